"""Base densities of the flow."""
