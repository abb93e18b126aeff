"""A run's folder turned into tables and figures."""
