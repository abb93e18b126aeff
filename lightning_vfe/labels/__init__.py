"""Floor 2: energies and forces of proton configurations, as a database that a potential is fitted to."""
