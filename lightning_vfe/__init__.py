"""Variational free energy of dense hydrogen with PyTorch Lightning."""

__version__ = "0.2.0"
