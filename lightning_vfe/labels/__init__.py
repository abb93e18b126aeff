"""Energies and forces of proton configurations, as a database that a potential is fitted to."""
