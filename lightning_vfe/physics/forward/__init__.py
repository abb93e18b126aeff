"""Derivatives carried forward through the layers: value, Jacobian and Laplacian in one pass.

The same model code runs on plain tensors and on `Carried` ones.
"""

from lightning_vfe.physics.forward import linear_rules, rules  # noqa: F401  (registers the rules)
from lightning_vfe.physics.forward.carried import Carried, relative_vectors
from lightning_vfe.physics.forward.messages import messages_to_first, messages_to_second

__all__ = ["Carried", "messages_to_first", "messages_to_second", "relative_vectors"]
