"""Machine-learning potentials E_ML(z) of the protons."""
