"""How many walkers a run has, and how they are dealt; each mistake raises ValueError with one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.structures import MIXED
from lightning_vfe.sampling.sampler import Sampler

CHAIN_PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class WalkerCounts:
    """Counts of the whole run; each process owns whole walker groups.

    Args:
        num_proton_walkers: W, a multiple of the number of strata and of num_groups. With fixed protons they are copies
            of one structure, each with B electron walkers of its own.
        num_electron_walkers: B.
        num_groups: walker groups with a random stream each; a multiple of the number of processes.

    Raises:
        ValueError: a count is below one, or W is not a multiple of num_groups.
    """

    num_proton_walkers: int
    num_electron_walkers: int
    num_groups: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise SettingError(name, value, "must be at least 1")
        if self.num_proton_walkers % self.num_groups:
            raise SettingError(
                "num_proton_walkers",
                self.num_proton_walkers,
                f"must be a multiple of sampler.num_groups = {self.num_groups}",
                f"set it to {(self.num_proton_walkers // self.num_groups + 1) * self.num_groups}",
            )

    def check(self, strata: Strata, sampled: bool) -> None:
        """Refuse counts with which no gradient can be taken.

        Raises:
            ValueError: too few walkers to compare, or W is not a multiple of the number of strata.
        """
        protons, electrons = self.num_proton_walkers, self.num_electron_walkers
        if sampled and electrons < 2:
            raise SettingError(
                "num_electron_walkers",
                electrons,
                "must be at least 2: the gradient compares electron walkers that share their protons",
            )
        if sampled and protons < 2 * strata.num_states:
            raise SettingError(
                "num_proton_walkers",
                protons,
                f"must be at least {2 * strata.num_states}: the gradient compares proton walkers of one state point",
            )
        own_twists = protons if strata.twists.is_random else len(strata)
        if not sampled and protons * electrons < 2 * own_twists:
            raise SettingError(
                "num_electron_walkers",
                electrons,
                "must be at least 2: the gradient compares electron walkers with the same protons and twist",
            )
        strata.deal(protons, range(self.num_groups), self.num_groups)  # raises where they are no multiple
        weights = strata.twists.weights
        if sampled and protons < 2 * len(strata) and bool((weights != weights[0]).any()):
            raise SettingError(
                "num_proton_walkers",
                protons,
                "gives each twist one walker, but twists of different weights need two",
                f"set it to {2 * len(strata)}",
            )

    def check_mixed_starts(self, strata: Strata, sampled: bool) -> None:
        """Refuse starts that cannot be mixed.

        Raises:
            ValueError: fixed protons, or a stratum with one proton walker.
        """
        if not sampled:
            raise SettingError("structure", MIXED, "needs protons that move", "set system.protons=sampled")
        if self.num_proton_walkers < 2 * len(strata):
            reason = "gives each twist one walker, but system.structure=mixed needs two"
            raise SettingError("num_proton_walkers", self.num_proton_walkers, reason, f"set it to {2 * len(strata)}")

    def share(self, num_ranks: int) -> int:
        """Walker groups of each process.

        Raises:
            ValueError: the groups do not divide into the processes.
        """
        if self.num_groups % num_ranks:
            nearest = -(-self.num_groups // num_ranks) * num_ranks
            raise SettingError(
                "num_groups",
                self.num_groups,
                f"must be a multiple of the number of processes, {num_ranks} (trainer.devices times trainer.num_nodes)",
                f"give a multiple of the {num_ranks} processes, such as {nearest}",
            )
        return self.num_groups // num_ranks


def chain_dtype(name: str | None) -> torch.dtype | None:
    """The precision of chains by its name; None keeps that of the parameters.

    Raises:
        ValueError: unknown name.
    """
    if name is None:
        return None
    if name not in CHAIN_PRECISIONS:
        raise SettingError("chain_precision", name, "is unknown", f"choose {' or '.join(CHAIN_PRECISIONS)}")
    return CHAIN_PRECISIONS[name]


def check_energy_moves(sampler: Sampler, strata: Strata) -> None:
    """Refuse settings with which protons cannot be moved by the energies of psi_x.

    Raises:
        ValueError: random twists, or electron walkers that cannot be dealt to the twists.
    """
    if sampler.proton_sampling != "ceimc":
        return
    if strata.twists.is_random:
        reason = "needs the same twists in every sweep, but they are random"
        raise SettingError("proton_sampling", "ceimc", reason, "set system.twists to a grid such as [2, 2, 2]")
    count, block = getattr(sampler, "ceimc_electron_walkers", 0), 2 * len(strata.twists)
    if count < 2 * block or count % block:
        reason = f"must be a multiple of {block}, twice the number of twists, and at least {2 * block}"
        nearest = max(2, round(count / block)) * block
        raise SettingError("ceimc_electron_walkers", count, reason, f"set it to {nearest}")


def check_tempered_base(sampler: Sampler, density: ProtonDensity | None) -> None:
    """Refuse tempering without chains of base protons.

    Raises:
        ValueError: the protons do not move, or the base is drawn from.
    """
    factors = list(getattr(sampler, "tempering", ()))
    if factors and density is None:
        raise SettingError("tempering", factors, "has no effect, since the protons do not move", "drop it")
    if factors and density is not None and hasattr(density.base, "sample"):
        reason = "has no effect, since base protons are drawn independently"
        raise SettingError("tempering", factors, reason, "drop it, or choose a base with chains such as base=schnet")
