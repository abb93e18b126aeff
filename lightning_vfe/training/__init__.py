"""Floor 3: everything that knows Lightning."""
