"""Walkers after a sweep, and what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lightning_vfe.models.proton_density import ProtonTerms
from lightning_vfe.physics.local_energy import LocalEnergy
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.sampling.nested import SweepReport


@dataclass
class Batch:
    """Walkers after a sweep with the current parameters.

    Attributes:
        protons: bohr. # (W, N, 3)
        electrons: bohr. # (W, B, N, 3)
        states: state point and twist of every proton walker. # (W,)
        stratum: number of the stratum of every proton walker. # (W,)
        report: acceptances and widths of the sweep.
    """

    protons: Tensor
    electrons: Tensor
    states: WalkerStates
    stratum: Tensor
    report: SweepReport


class Sample(NamedTuple):
    """One batch with its energies; no gradients."""

    electronic: LocalEnergy
    protons: ProtonTerms | None
    terms: dict[str, Tensor]
    """All reported quantities per atom, of each proton walker (W,), or of each electron walker (W B,) if the protons
    are fixed: the independent samples of the error bars."""
