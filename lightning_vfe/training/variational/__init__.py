"""Training of the variational free energy: flow and wavefunction together."""
