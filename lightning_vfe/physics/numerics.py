"""Errors that mean that the numbers of a calculation have broken down."""

from __future__ import annotations

import numpy as np
import torch


def is_breakdown(error: BaseException) -> bool:
    """Whether a matrix could not be inverted or decomposed, by PyTorch, NumPy or SciPy."""
    return isinstance(error, torch.linalg.LinAlgError | np.linalg.LinAlgError)  # type: ignore[attr-defined]
