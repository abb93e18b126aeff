"""The only place that imports SchNetPack."""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from torch import nn
from torch.utils.data import dataloader


@functools.cache
def schnetpack() -> ModuleType:
    """SchNetPack, imported when it is first asked for: that takes seconds.

    SchNetPack 2.0.4 takes the type variable `T_co` from torch's dataloader; torch has renamed it to `_T_co`.
    """
    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]
    import schnetpack

    module: ModuleType = schnetpack
    return module


def schnet_of(num_elements: int, num_features: int, **settings: Any) -> Any:
    """SchNetPack's SchNet for atomic numbers below num_elements.

    Version 2.0.4 (the one of Python 3.11) makes the embedding of the elements itself, 2.2 (from Python 3.12 on) is
    given it.
    """
    schnet = schnetpack().representation.SchNet
    if "max_z" in inspect.signature(schnet).parameters:
        return schnet(num_features, max_z=num_elements, **settings)
    embedding = nn.Embedding(num_elements, num_features, padding_idx=0)
    return schnet(num_features, nuclear_embedding=embedding, **settings)
