"""Calculators that come ready: ASE calculators of ours, and energies of a trained wavefunction."""
