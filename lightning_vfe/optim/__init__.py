"""Natural gradient of the two blocks, on plain tensors."""
