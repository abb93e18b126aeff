"""The neural geminal wavefunction of the electrons."""
