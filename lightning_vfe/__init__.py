"""Variational free energy of dense hydrogen with PyTorch Lightning."""

__version__ = "0.1.0"
