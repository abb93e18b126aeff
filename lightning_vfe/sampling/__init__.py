"""Markov chains on callables that return a log-probability."""
