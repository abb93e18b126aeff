"""The walkers: everything that a Markov chain needs to go on exactly where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.random import WalkerRandom, rows_of_groups


@dataclass
class Walkers:
    """W proton walkers with B electron walkers each, owned by one process; updated in place by the sampler.

    Walkers are stored group by group, in the order of random.groups.

    Attributes:
        protons: in bohr, inside the cell.  # (W, N, 3)
        electrons: in bohr, inside the cell; the first N/2 are up, the others down.  # (W, B, N, 3)
        twists: fractional, constant.  # (W, 3)
        proton_log_width: ln of the proton moves' width in bohr.  # ()
        electron_log_width: ln of the electron moves' width in bohr.  # ()
        random: the streams of the walker groups.
        num_sweeps: sweeps made so far.
        equilibrated: set by whoever decides that the chains have forgotten their start; the sampler does not use it.
        base_protons: z in bohr, inside the cell, where p(x) is sampled through them; None elsewhere.  # (W, N, 3)
    """

    protons: Tensor
    electrons: Tensor
    twists: Tensor
    proton_log_width: Tensor
    electron_log_width: Tensor
    random: WalkerRandom
    num_sweeps: int = 0
    equilibrated: bool = False
    base_protons: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers (torch.load takes them with weights_only=True)."""
        state = {
            "protons": self.protons.detach().clone(),
            "electrons": self.electrons.detach().clone(),
            "twists": self.twists.detach().clone(),
            "proton_log_width": self.proton_log_width.detach().clone(),
            "electron_log_width": self.electron_log_width.detach().clone(),
            "random": self.random.state_dict(),
            "num_sweeps": self.num_sweeps,
            "equilibrated": self.equilibrated,
        }
        if self.base_protons is not None:
            state["base_protons"] = self.base_protons.detach().clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. It may hold the walkers of all processes: the own groups are picked out of it.

        A state without base protons is one of chains on p(x).

        Raises:
            ValueError: the state lacks an entry or a group, has other shapes, or was made with other twists.
        """
        expected = set(self.state_dict()) - {"base_protons"}
        if set(state) - {"base_protons"} != expected:
            raise ValueError(
                f"saved walkers have the entries {sorted(state)} instead of {sorted(expected)}; "
                "the checkpoint is damaged or from another version"
            )
        saved_groups = state["random"]["groups"]
        share = self.random.walkers_per_group(self.protons.shape[0])
        rows = rows_of_groups(saved_groups, self.random.groups)
        picked = {}
        for name in _per_walker(state):
            current = self.protons if name == "base_protons" else getattr(self, name)
            needed = (len(saved_groups) * share, *current.shape[1:])
            if tuple(state[name].shape) != needed:
                raise ValueError(
                    f"saved {name} have shape {tuple(state[name].shape)} but this run needs {needed}; "
                    "resume with the num_atoms and the numbers of walkers and groups of the saved run"
                )
            by_group = state[name].to(current).unflatten(0, (len(saved_groups), share))
            picked[name] = by_group[rows].flatten(0, 1)
        if not torch.equal(picked["twists"], self.twists):
            raise ValueError("saved walkers have other twists than system.twists; resume with those of the saved run")
        self.random.load_state_dict(state["random"])
        self.protons, self.electrons = picked["protons"], picked["electrons"]
        self.base_protons = picked.get("base_protons")
        self.proton_log_width = state["proton_log_width"].to(self.proton_log_width)
        self.electron_log_width = state["electron_log_width"].to(self.electron_log_width)
        self.num_sweeps = int(state["num_sweeps"])
        self.equilibrated = bool(state["equilibrated"])


class ProtonMove(NamedTuple):
    """Where the protons of the walkers went in a sweep."""

    protons: Tensor
    """In bohr, inside the cell. # (W, N, 3)"""
    displacement: Tensor
    """Along which the electrons are carried, not wrapped, bohr. # (W, N, 3)"""
    accepted: Tensor
    """Accepted moves of each walker, int64. # (W,)"""
    num_stranded: Tensor
    """Walkers that stand where the density is not finite, float64. # ()"""
    drawn: bool = False
    """Whether they were drawn independently, so that there is no width to adapt."""
    decided: Tensor | None = None
    """Whether the end of a chain on a surrogate density was accepted; None where there is none. # (W,)"""
    num_failed_inversions: Tensor | None = None
    """Walkers whose z has no x; None where no map is inverted, float64. # ()"""


def _per_walker(state: dict[str, Any]) -> list[str]:
    """Entries of a saved state that have one row per proton walker."""
    return [name for name in ("protons", "electrons", "twists", "base_protons") if name in state]


def merge_walker_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of all processes' walkers, ordered by group, from each process's state_dict().

    Widths and counters are equal on all processes; those of the first are kept.
    """
    groups = [group for state in states for group in state["random"]["groups"]]
    order = sorted(range(len(groups)), key=groups.__getitem__)
    merged = dict(states[0])
    for name in _per_walker(merged):
        parts = [state[name].unflatten(0, (len(state["random"]["groups"]), -1)) for state in states]
        merged[name] = torch.cat(parts)[order].flatten(0, 1)
    generators = torch.cat([state["random"]["generators"] for state in states])[order]
    merged["random"] = {**states[0]["random"], "groups": sorted(groups), "generators": generators}
    return merged


def twist_index(num_twists: int, num_walkers: int, groups: Sequence[int], num_groups: int) -> Tensor:
    """Number of the twist of every proton walker: walker w of the whole run has twist w mod T.

    Args:
        num_twists: T.
        num_walkers: W, the walkers of this process.
        groups: the walker groups of this process.
        num_groups: the walker groups of all processes, numbered from 0.

    Returns:
        int64 indices, the strata of the statistics.  # (W,)

    Raises:
        ValueError: the walkers of the whole run are not a multiple of T, or a group's number is out of range.
    """
    if max(groups) >= num_groups:
        raise ValueError(f"walker groups = {list(groups)} must be below num_groups = {num_groups}")
    share = num_walkers // len(groups)
    total = share * num_groups
    if total % num_twists:
        raise ValueError(
            f"sampler.num_proton_walkers = {total} must be a multiple of the {num_twists} twists of system.twists; "
            f"set it to {(total // num_twists + 1) * num_twists}"
        )
    walker = torch.tensor(list(groups))[:, None] * share + torch.arange(share)
    return walker.flatten() % num_twists


def initial_electrons(
    protons: Tensor, num_electron_walkers: int, random: WalkerRandom, cell: PeriodicCell, cloud_width: float = 1.0
) -> Tensor:
    """Electrons in Gaussian clouds around the protons, one on each, with the spins dealt at random in every walker.

    Args:
        protons: in bohr.  # (W, N, 3)
        num_electron_walkers: B.
        random: streams of the walker groups.
        cell: the periodic cell.
        cloud_width: standard deviation per component in bohr; 1 has the <r^2> = 3 of a hydrogen atom.

    Returns:
        Positions inside the cell.  # (W, B, N, 3)
    """
    num_walkers, num_atoms, _ = protons.shape
    shape = (num_walkers, num_electron_walkers, num_atoms)
    host = random.uniform(shape, dtype=protons.dtype).argsort(dim=-1)  # (W, B, N)
    spread = protons[:, None].expand(*shape, 3)
    centres = torch.gather(spread, 2, host[..., None].expand(*shape, 3))
    return cell.wrap(centres + cloud_width * random.normal((*shape, 3), dtype=protons.dtype))
