"""From the results at several states to an equation of state: the surface F(V, T), its tests, the Hugoniot."""
