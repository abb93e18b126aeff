"""The only place that imports SchNetPack."""

from __future__ import annotations

import functools
from types import ModuleType

from torch.utils.data import dataloader


@functools.cache
def schnetpack() -> ModuleType:
    """SchNetPack, imported when it is first asked for: that takes seconds.

    SchNetPack 2.0.4 takes the type variable `T_co` from torch's dataloader; torch has renamed it to `_T_co`.
    """
    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]
    import schnetpack

    return schnetpack
