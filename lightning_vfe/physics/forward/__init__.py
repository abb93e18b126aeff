"""Derivatives carried forward through the layers: value, Jacobian and Laplacian in one pass.

The same model code runs on plain tensors and on `Carried` ones.
"""

from lightning_vfe.physics.forward import linear_rules, rules  # noqa: F401  (registers the rules)
from lightning_vfe.physics.forward.carried import Carried, relative_vectors
from lightning_vfe.physics.forward.layers import (
    bilinear_scores,
    block_means,
    join_features,
    opposite_spin_scores,
    tanh_layer,
)
from lightning_vfe.physics.forward.messages import messages_by_spin, messages_to_first, messages_to_second
from lightning_vfe.physics.forward.plane_waves import paired_plane_waves

__all__ = [
    "Carried",
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
