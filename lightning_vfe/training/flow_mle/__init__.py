"""Training of a flow by maximum likelihood on given configurations."""
