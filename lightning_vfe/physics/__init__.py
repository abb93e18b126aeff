"""Functions of tensors, in Hartree atomic units."""
