"""ln |psi_x(r)|^2 of many electron walkers in few operations: what an electron move evaluates."""

from lightning_vfe.models.wavefunction.density.electron_density import ElectronDensity

__all__ = ["ElectronDensity"]
