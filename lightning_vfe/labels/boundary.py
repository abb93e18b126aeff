"""Boundary conditions of the electrons that labels were made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vfe.physics.twists import TwistGrid, twist_grid


def label_twists(calculator: Mapping[str, Any]) -> TwistGrid | None:
    """Twists over which the energies of labels are averaged: the k-points of density functional theory.

    Args:
        calculator: settings of the labels' calculator, as databases and potentials keep them. `twists` and
            `twist_shift` are those of `twist_grid`. `kpts` is a grid with Gamma, which a `koffset` of 1 shifts by half
            a spacing.

    Returns:
        The twists; None where the settings do not tell.

    Raises:
        ValueError: the settings name no twists that exist.
    """
    if "twists" in calculator:
        return twist_grid(calculator["twists"], "time_reversal", calculator.get("twist_shift", (0, 0, 0)))
    if "kpts" not in calculator:
        return None
    grid = [int(n) for n in calculator["kpts"]]
    # a Monkhorst-Pack grid has Gamma without a shift where n is odd, and with half a spacing where n is even
    shift = [(n + 1 + int(k)) % 2 / 2 for n, k in zip(grid, calculator.get("koffset", (0, 0, 0)), strict=True)]
    return twist_grid(grid, "time_reversal", shift)


def twists_name(twists: TwistGrid) -> str:
    """In words: Gamma, random twists, a single twist, or how many there are and whether Gamma is among them."""
    if twists.is_random:
        return "random twists"
    if twists.is_gamma:
        return "Gamma"
    if twists.num_averaged == 1:
        return f"the twist ({', '.join(f'{x:g}' for x in twists.fractions[0].tolist())})"
    has_gamma = bool((twists.fractions == 0).all(1).any())
    return f"{twists.num_averaged} twists {'with' if has_gamma else 'without'} Gamma"
