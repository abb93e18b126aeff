"""What a state asks of its sampler. Whoever gives it moves the walkers, whatever class it is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.sampling.electron_moves import ElectronTarget
from lightning_vfe.sampling.nested import SweepReport
from lightning_vfe.sampling.proton_moves import ProtonTarget
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import CONSTANT, Walkers


class Sampler(Protocol):
    """How walkers start and move. `NestedSampler` is one; derive from it to change a part."""

    proton_sampling: str
    """How `step` is given p(x): "metropolis", "direct", "delayed" or "ceimc", see `ProtonTarget`."""

    def start(
        self,
        protons: Tensor,
        states: WalkerStates,
        stratum: Tensor,
        num_electron_walkers: int | None,
        random: WalkerRandom,
        constant: tuple[str, ...] = CONSTANT,
    ) -> Walkers:
        """New walkers at given protons in units of rs, see `NestedSampler.start`.  # (W, N, 3)"""
        ...

    def step(
        self,
        walkers: Walkers,
        proton_target: ProtonTarget | None,
        electron_target: ElectronTarget | None,
        adapt: bool,
        sum_over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> SweepReport:
        """One sweep, in place, that leaves p(x) |psi_x(r)|^2 invariant, see `NestedSampler.step`."""
        ...
