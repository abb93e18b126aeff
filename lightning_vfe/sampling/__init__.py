"""Floor 2: Markov chains on callables that return a log-probability."""
