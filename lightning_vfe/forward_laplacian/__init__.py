"""Derivatives carried forward through the layers: value, Jacobian and Laplacian in one pass.

The same model code runs on plain tensors and on `LaplacianTensor` ones.
"""

from lightning_vfe.forward_laplacian import linear_rules, rules  # noqa: F401  (registers the rules)
from lightning_vfe.forward_laplacian.laplacian_tensor import LaplacianTensor, relative_vectors
from lightning_vfe.forward_laplacian.layers import (
    bilinear_scores,
    block_means,
    join_features,
    opposite_spin_scores,
    tanh_layer,
)
from lightning_vfe.forward_laplacian.messages import messages_by_spin, messages_to_first, messages_to_second
from lightning_vfe.forward_laplacian.plane_waves import paired_plane_waves

__all__ = [
    "LaplacianTensor",
    "bilinear_scores",
    "block_means",
    "join_features",
    "messages_by_spin",
    "messages_to_first",
    "messages_to_second",
    "opposite_spin_scores",
    "paired_plane_waves",
    "relative_vectors",
    "tanh_layer",
]
