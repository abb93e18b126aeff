"""Networks, moves and walkers together: the one place that samples, measures and gives scores."""
