"""Derivatives carried forward through the layers: value, Jacobian and Laplacian in one pass.

The same model code runs on plain tensors and on `LaplacianTensor` ones. docs/forward_laplacian.md is the guide for
authors of rules.
"""

from lightning_vfe.forward_laplacian import activation_rules, linear_rules  # noqa: F401  (both register their rules)
from lightning_vfe.forward_laplacian.laplacian_tensor import (
    LaplacianTensor,
    PairSparsity,
    register,
    register_named,
    relative_vectors,
)
from lightning_vfe.forward_laplacian.layers import (
    bilinear_scores,
    block_means,
    join_features,
    opposite_spin_scores,
    tanh_layer,
)
from lightning_vfe.forward_laplacian.messages import messages_by_spin, messages_to_first, messages_to_second
from lightning_vfe.forward_laplacian.plane_waves import paired_plane_waves
from lightning_vfe.forward_laplacian.rules import pointwise

__all__ = [
    "LaplacianTensor",
    "PairSparsity",
    "bilinear_scores",
    "block_means",
    "join_features",
    "messages_by_spin",
    "messages_to_first",
    "messages_to_second",
    "opposite_spin_scores",
    "paired_plane_waves",
    "pointwise",
    "register",
    "register_named",
    "relative_vectors",
    "tanh_layer",
]
