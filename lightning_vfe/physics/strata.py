"""The strata of a run: every state point with every twist, and how walkers are dealt to them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.series import Series
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.statistics import Estimate, estimate
from lightning_vfe.physics.system import PROTONS
from lightning_vfe.physics.twists import TwistGrid, TwistSymmetry, twist_grid
from lightning_vfe.physics.units import check_temperature

MOST_STATES = 1000


@dataclass(frozen=True)
class Strata:
    """S state points, each with the same T twists. Stratum number t + T s has state s and twist t.

    Walkers of one stratum sample one Hamiltonian at one temperature. Statistics compare walkers within their stratum,
    since states and twists are chosen and not random.

    Args:
        points: the state points, all different.
        twists: the twists with their weights.

    Raises:
        ValueError: no state point, too many, or one given twice.
    """

    points: tuple[StatePoint, ...]
    twists: TwistGrid

    def __post_init__(self) -> None:
        if not self.points:
            raise SettingError("states", [], "holds no state point", "give pairs [rs, T] such as [[1.25, 6000]]")
        if len(self.points) > MOST_STATES:
            raise SettingError("states", len(self.points), "state points are too many", f"give at most {MOST_STATES}")
        names = [str(point) for point in self.points]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            reason = f"holds {twice} twice, to the six digits of its name"
            raise SettingError("states", f"[{', '.join(names)}]", reason, "give each state point once")

    @classmethod
    def of(
        cls,
        rs: Any = 1.25,
        temperature_kelvin: Any = 6000.0,
        states: Any = None,
        protons: str = "sampled",
        twists: Any = (1, 1, 1),
        twist_symmetry: TwistSymmetry = "none",
        twist_shift: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> Strata:
        """The strata of the keys `system.*`.

        Args:
            rs: one density in bohr or several.
            temperature_kelvin: one temperature or several; every pair with a density is a state point. Not used if the
                protons are fixed or absent.
            states: pairs [rs, T] instead of the two lists.
            protons: sampled; or fixed or none: the electrons' ground state, T = 0.
            twists: see `twist_grid`.
            twist_symmetry: see `twist_grid`.
            twist_shift: see `twist_grid`.

        Raises:
            ValueError: a value is out of its range, or does not fit another one.
        """
        grid = twist_grid(twists, twist_symmetry, twist_shift)
        if protons not in PROTONS:
            raise SettingError("protons", protons, "is unknown", f"choose {', '.join(PROTONS)}")
        if states is None:
            temperatures = _numbers("temperature_kelvin", temperature_kelvin)
            pairs = list(itertools.product(_numbers("rs", rs), temperatures if protons == "sampled" else [0.0]))
            if protons != "sampled" and len(temperatures) > 1:
                raise SettingError(
                    "temperature_kelvin",
                    temperature_kelvin,
                    f"but with protons = {protons} nothing has a temperature",
                    "give one number, or set system.protons=sampled",
                )
        else:
            pairs = _pairs(states)
        if protons == "sampled":
            for _, temperature in pairs:
                check_temperature(temperature, "for T = 0 keep the protons fixed with system.protons=fixed")
        elif states is not None:
            pairs = [(density, 0.0) for density, _ in pairs]
        return cls(tuple(StatePoint(float(density), float(temperature)) for density, temperature in pairs), grid)

    def __len__(self) -> int:
        return len(self.points) * len(self.twists)

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.points)

    @property
    def reference(self) -> StatePoint:
        """The middle of the state points, (least + largest) / 2 of rs and T: the reference state of the networks.

        With one state point it is this point.
        """
        rs, temperature = ([getattr(p, name) for p in self.points] for name in ("rs", "temperature_kelvin"))
        return StatePoint(0.5 * (min(rs) + max(rs)), 0.5 * (min(temperature) + max(temperature)))

    @property
    def single(self) -> StatePoint:
        """The only state point.

        Raises:
            ValueError: there are several.
        """
        if self.num_states > 1:
            raise self.too_many("give one")
        return self.points[0]

    def too_many(self, remedy: str) -> SettingError:
        """The error if there are several state points and one is needed."""
        key = "rs" if len({point.rs for point in self.points}) > 1 else "temperature_kelvin"
        return SettingError(key, [getattr(point, key) for point in self.points], "has several state points", remedy)

    def state_index(self, stratum: Tensor) -> Tensor:
        """Number s of the state point of every stratum's number."""
        return torch.div(stratum, len(self.twists), rounding_mode="floor")

    def weights(self, stratum: Tensor) -> Tensor:
        """Weight of the twist of every stratum's number; those of one state point add up to one over its strata."""
        return self.twists.weights.to(stratum.device)[stratum % len(self.twists)]

    def estimate(self, series: Series, stratum: Tensor) -> list[Estimate]:
        """Mean and error for each state point: the weighted average over its twists.

        Args:
            series: real samples.  # (steps, chains)
            stratum: number of the stratum of each chain.  # (chains,)
        """
        found = []
        for number in range(self.num_states):
            own = (self.state_index(stratum) == number).cpu()
            labels = stratum.cpu()[own]
            found.append(estimate(series[:, own], labels, self.weights(labels)))
        return found

    def walker_states(self, stratum: Tensor, like: Tensor) -> WalkerStates:
        """State point and twist of walkers from the numbers of their strata (W,).

        They have the dtype and the device of `like`.
        """
        index = self.state_index(stratum).cpu()
        rs = torch.tensor([point.rs for point in self.points], dtype=torch.float64)[index]
        kT = torch.tensor([point.kT for point in self.points], dtype=torch.float64)[index]
        twist = self.twists.fractions[stratum.cpu() % len(self.twists)]
        return WalkerStates(rs.to(like), kT.to(like), twist.to(like))

    def deal(self, num_walkers: int, groups: Sequence[int], num_groups: int) -> Tensor:
        """Number of the stratum of every proton walker: walker w of the whole run has stratum w mod (S T).

        Args:
            num_walkers: W, the walkers of this process.
            groups: the walker groups of this process.
            num_groups: the walker groups of all processes, numbered from 0.

        Returns:
            int64.  # (W,)

        Raises:
            ValueError: the walkers of the whole run are not a multiple of the strata, or a group's number is out of
                range.
        """
        if max(groups) >= num_groups:
            raise ValueError(f"walker groups = {list(groups)} must be below num_groups = {num_groups}")
        total, number = num_walkers // len(groups) * num_groups, len(self)
        if total % number:
            states = f"{self.num_states} state points times " if self.num_states > 1 else ""
            raise SettingError(
                "num_proton_walkers",
                total,
                f"must be a multiple of the {states}{len(self.twists)} twists of system.twists",
                f"set it to {(total // number + 1) * number}",
            )
        return _walker_numbers(num_walkers, groups) % number

    def deal_starts(self, num_walkers: int, groups: Sequence[int], num_starts: int) -> Tensor:
        """Number of the start of every proton walker: those of one stratum take the starts in turn.

        Args:
            num_walkers: W, the walkers of this process.
            groups: the walker groups of this process.
            num_starts: kinds of starts.

        Returns:
            int64.  # (W,)
        """
        turn = torch.div(_walker_numbers(num_walkers, groups), len(self), rounding_mode="floor")
        return turn % num_starts


def reference_point(strata: Strata) -> StatePoint:
    """`Strata.reference`, as a function that a config can name."""
    return strata.reference


def _walker_numbers(num_walkers: int, groups: Sequence[int]) -> Tensor:
    """Numbers, in the whole run, of the walkers of some groups.  # (W,)"""
    share = num_walkers // len(groups)
    return (torch.tensor(list(groups))[:, None] * share + torch.arange(share)).flatten()


def _numbers(key: str, value: Any) -> list[float]:
    """A number, or a list of numbers, as a list."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values or any(not isinstance(each, Real) or isinstance(each, bool) for each in values):
        raise SettingError(key, value, "must be a number, or a list of numbers such as [1.2,1.3]")
    names = [f"{each:g}" for each in values]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingError(key, value, f"holds {twice} twice, to six digits", "give each number once")
    return values


def _pairs(states: Any) -> list[tuple[float, float]]:
    """Pairs [rs, T]."""
    if isinstance(states, str) or not isinstance(states, Sequence):
        raise SettingError("states", states, "must be a list of pairs [rs, T] such as [[1.2,4000],[1.3,6000]]")
    example = "give such as [[1.2,4000],[1.3,6000]]"
    for pair in states:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise SettingError("states", states, f": {pair!r} is no pair [rs, T]", example)
        if any(not isinstance(each, Real) or isinstance(each, bool) for each in pair):
            raise SettingError("states", states, f": {list(pair)!r} is no pair of numbers [rs, T]", example)
    return [(pair[0], pair[1]) for pair in states]
