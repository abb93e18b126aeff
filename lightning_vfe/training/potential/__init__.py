"""Training of potentials on labelled configurations."""
