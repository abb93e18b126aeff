"""Checks of the sampler's settings; each raises ValueError with one line that names the key."""

from __future__ import annotations

import math

from lightning_vfe.errors import SettingError


def positive_integer(name: str, value: int) -> int:
    """The value as an integer, if it is a whole number >= 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise SettingError(name, value, "must be a whole number >= 1", "for example 20")
    return int(value)


AUTO = "auto"
"""A number of moves that adapts."""


def steps_or_auto(name: str, value: int | str) -> int | str:
    """The value, if it is "auto" or a whole number >= 1."""
    if isinstance(value, str):
        if value != AUTO:
            raise SettingError(name, value, "is unknown", f"give a whole number or {AUTO}")
        return value
    return positive_integer(name, value)


def positive(name: str, value: float) -> float:
    """The value, if it is positive."""
    if not (math.isfinite(value) and value > 0):
        raise SettingError(name, value, "must be positive", "leave it out for the default")
    return float(value)


def fraction(name: str, value: float | None, default: float) -> float:
    """The value, if it lies between 0 and 1; None stands for the default."""
    if value is None:
        return default
    if not 0.0 < value < 1.0:
        raise SettingError(name, value, "must lie between 0 and 1", f"{default} suits this proposal")
    return float(value)
