"""The walkers: an open record of named fields, with everything that a Markov chain needs to continue exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.sampling.random import WalkerRandom, rows_of_groups

STATE = ("rs", "kT", "twist")
"""Fields that say where on the phase diagram a walker is."""
CONSTANT = (*STATE, "stratum")
"""Fields that no move changes."""


@dataclass
class Walkers:
    """W proton walkers, owned by one process; updated in place by the sampler.

    A field is a tensor with one row for each proton walker. Chains, checkpoints and processes treat all fields alike:
    a new kind of move brings its own field without a change here. Walkers are stored group by group, in the order of
    random.groups.

    Attributes:
        fields: by name. Always there are `protons` (W, N, 3) in units of rs, inside the cell; `rs` (W,) in bohr, `kT`
            (W,) in Ha and `twist` (W, 3), fractional; and `stratum` (W,), int64. Usually there are `electrons`
            (W, B, N, 3) in units of rs, inside the cell. Moves through the base add `base_protons` (W, N, 3) and, where
            they are tempered, `hotter_protons` (W, K - 1, N, 3). Mixed starts add `start` (W,), the number of each
            walker's start.
        log_widths: ln of the width of each kind of move, in units of rs, by the field that it moves.  # () each
        random: the streams of the walker groups.
        constant: fields that no move changes; a saved state must have the same.
        electron_steps: electron moves in a sweep before rounding, if their number adapts.
        num_sweeps: sweeps made so far.
        equilibrated: whether the chains have forgotten their start.
    """

    fields: dict[str, Tensor]
    log_widths: dict[str, Tensor]
    random: WalkerRandom
    constant: tuple[str, ...] = CONSTANT
    electron_steps: float | None = None
    num_sweeps: int = 0
    equilibrated: bool = False
    _required: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self._required = frozenset(self.fields)

    def __len__(self) -> int:
        return len(self["protons"])

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.fields[name] = value

    @property
    def protons(self) -> Tensor:
        """In units of rs.  # (W, N, 3)"""
        return self["protons"]

    @property
    def electrons(self) -> Tensor:
        """In units of rs.  # (W, B, N, 3)"""
        return self["electrons"]

    @property
    def states(self) -> WalkerStates:
        """State point and twist of every walker."""
        return WalkerStates(self["rs"], self["kT"], self["twist"])

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers (torch.load takes them with weights_only=True)."""
        return {
            "fields": {name: value.detach().clone() for name, value in self.fields.items()},
            "log_widths": {name: value.detach().clone() for name, value in self.log_widths.items()},
            "random": self.random.state_dict(),
            "electron_steps": self.electron_steps,
            "num_sweeps": self.num_sweeps,
            "equilibrated": self.equilibrated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. It may hold the walkers of all processes: the own groups are picked out of it.

        Fields that the saved run has besides those that every run starts with come along.

        Raises:
            ValueError: the state lacks an entry, a field or a group, has other shapes, or belongs to other state points
                or twists.
        """
        needed_entries = set(self.state_dict()) - {"electron_steps"}  # a number that does not adapt needs none
        missing = sorted(needed_entries - set(state)) or sorted(self._required - set(state["fields"]))
        if missing:
            raise ValueError(f"saved walkers lack {missing}; the checkpoint is damaged or from another version")
        saved_groups = state["random"]["groups"]
        share = self.random.walkers_per_group(len(self))
        rows = rows_of_groups(saved_groups, self.random.groups)
        picked = {}
        for name, value in state["fields"].items():
            like = self.fields.get(name)
            if like is None:  # a field that this run has not made yet: any numbers for each walker
                like = value.to(self.protons.device)
            needed = (len(saved_groups) * share, *like.shape[1:])
            if tuple(value.shape) != needed:
                raise ValueError(
                    f"saved {name} have shape {tuple(value.shape)} but this run needs {needed}; "
                    "resume with the num_atoms and the numbers of walkers and groups of the saved run"
                )
            by_group = value.to(like).unflatten(0, (len(saved_groups), share))
            picked[name] = by_group[rows].flatten(0, 1)
        for name in self.constant:
            if not torch.equal(picked[name], self[name]):
                raise ValueError(
                    f"saved walkers have other values of {name} than this run; "
                    "resume with the keys system.* of the saved run"
                )
        self.random.load_state_dict(state["random"])
        self.fields = picked
        self.log_widths = {name: state["log_widths"][name].to(width) for name, width in self.log_widths.items()}
        if self.electron_steps is not None:
            self.electron_steps = state.get("electron_steps") or self.electron_steps
        self.num_sweeps = int(state["num_sweeps"])
        self.equilibrated = bool(state["equilibrated"])


def merge_walker_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of all processes' walkers, ordered by group, from each process's state_dict().

    Widths and counters are equal on all processes; those of the first are kept.
    """
    groups = [group for state in states for group in state["random"]["groups"]]
    order = sorted(range(len(groups)), key=groups.__getitem__)
    merged = dict(states[0])
    merged["fields"] = {
        name: torch.cat([state["fields"][name].unflatten(0, (len(state["random"]["groups"]), -1)) for state in states])[
            order
        ].flatten(0, 1)
        for name in states[0]["fields"]
    }
    generators = torch.cat([state["random"]["generators"] for state in states])[order]
    merged["random"] = {**states[0]["random"], "groups": sorted(groups), "generators": generators}
    return merged


def initial_electrons(
    protons: Tensor, num_electron_walkers: int, random: WalkerRandom, cell: PeriodicCell, cloud_width: Tensor
) -> Tensor:
    """Electrons in Gaussian clouds around the protons, one on each, with the spins dealt at random in every walker.

    Without protons they are uniform in the cell.

    Args:
        protons: # (W, N, 3), or (W, 0, 3)
        num_electron_walkers: B.
        random: streams of the walker groups.
        cell: the periodic cell.
        cloud_width: standard deviation per component; 1 bohr has the <r^2> = 3 of a hydrogen atom.  # (W,)

    Returns:
        Positions inside the cell.  # (W, B, N, 3)
    """
    shape = (len(protons), num_electron_walkers, cell.num_atoms)
    if protons.shape[1] == 0:
        return cell.length * random.uniform((*shape, 3), dtype=protons.dtype)
    host = random.uniform(shape, dtype=protons.dtype).argsort(dim=-1)  # (W, B, N)
    spread = protons[:, None].expand(*shape, 3)
    centres = torch.gather(spread, 2, host[..., None].expand(*shape, 3))
    return cell.wrap(centres + cloud_width[:, None, None, None] * random.normal((*shape, 3), dtype=protons.dtype))
