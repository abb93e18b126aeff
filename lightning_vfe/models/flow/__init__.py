"""The equivariant map from protons x to base coordinates z, with its log-determinant."""
