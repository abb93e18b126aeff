"""LightningModules, datamodules and callbacks: the one part that knows Lightning."""
