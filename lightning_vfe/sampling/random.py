"""Random numbers that belong to groups of walkers, so that trajectories do not depend on the number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError

MOST_NUMBERS = 2**18
"""Normal numbers of a group that are drawn and kept at a time."""

_MASK_32 = 0xFFFFFFFF
_MASK_64 = 0xFFFFFFFFFFFFFFFF


class WalkerRandom:
    """One random stream per walker group.

    The W proton walkers are dealt to the groups in equal, consecutive shares; group g draws the numbers of its share
    from a generator seeded from (seed, g) alone. A process may own any set of whole groups: the numbers of a group are
    the same wherever it lives.

    Args:
        groups: the group numbers owned here, distinct and not negative, for example range(8).
        seed: seed of the whole run, not negative.
        device: where the numbers are drawn. Streams of different kinds of devices differ.

    Raises:
        ValueError: no group, a repeated or negative group, or a negative seed.
    """

    def __init__(self, groups: Sequence[int], seed: int, device: torch.device | str = "cpu") -> None:
        self.groups = [int(group) for group in groups]
        self.seed = int(seed)
        self.device = torch.device(device)
        if not self.groups or len(set(self.groups)) != len(self.groups) or min(self.groups) < 0:
            raise ValueError(f"walker groups = {self.groups} must be distinct numbers >= 0; give for example range(8)")
        if self.seed < 0:
            raise SettingError("seed", self.seed, "must not be negative", "give a whole number such as 42")
        self._generators = [torch.Generator(self.device) for _ in self.groups]
        self.reseed(self.seed)

    def reseed(self, seed: int) -> None:
        """Begin the streams of another seed."""
        self.seed = seed
        for group, generator in zip(self.groups, self._generators, strict=True):
            generator.manual_seed(group_seed(seed, group))

    def walkers_per_group(self, num_walkers: int) -> int:
        """Number of walkers in each group when num_walkers of them live here.

        Raises:
            ValueError: the walkers do not divide into the groups.
        """
        share, rest = divmod(num_walkers, len(self.groups))
        if rest or share == 0:
            reason = f"do not divide into {len(self.groups)} groups"
            raise SettingError("num_proton_walkers", num_walkers, reason, f"make it a multiple of {len(self.groups)}")
        return share

    def per_group(self, draw: Callable[[torch.Generator, int], Tensor], num_walkers: int, dim: int = 0) -> Tensor:
        """Concatenate draw(generator, share) over the groups: for any function that takes a generator.

        Args:
            draw: given a group's generator and its number of walkers, returns a tensor with that many rows.
            num_walkers: W, all walkers that live here.
            dim: dimension of the rows.

        Returns:
            The groups' tensors in the order of `groups`.  # (W, ...)
        """
        share = self.walkers_per_group(num_walkers)
        return torch.cat([draw(generator, share) for generator in self._generators], dim)

    def normal(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers; the first entry of shape is W.  # (W, ...)"""
        rest = tuple(shape[1:])
        return self.per_group(
            lambda generator, share: torch.randn((share, *rest), generator=generator, device=self.device, dtype=dtype),
            shape[0],
        )

    def uniform(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in [0, 1); the first entry of shape is W.  # (W, ...)"""
        rest = tuple(shape[1:])
        return self.per_group(
            lambda generator, share: torch.rand((share, *rest), generator=generator, device=self.device, dtype=dtype),
            shape[0],
        )

    def moves(
        self, num_moves: int, normal: Sequence[int], uniform: Sequence[int], dtype: torch.dtype
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The random numbers of num_moves moves in few large draws; every number is used once.

        The moves come in parts, so that no group holds more than about MOST_NUMBERS normal numbers at a time. Where the
        parts end depends on the share of a group alone, as the numbers do.

        Args:
            num_moves: all moves.
            normal: shape of the normal numbers of a move, which begins with W.
            uniform: shape of its uniform numbers, which begins with W.
            dtype: of the numbers.

        Yields:
            Normal numbers (moves, W, ...) and uniform ones in [0, 1) (moves, W, ...) of the next moves.
        """
        numbers = self.walkers_per_group(normal[0]) * math.prod(normal[1:])
        most = max(1, MOST_NUMBERS // max(1, numbers))
        options: dict[str, Any] = {"device": self.device, "dtype": dtype}
        for start in range(0, num_moves, most):
            count = min(most, num_moves - start)

            def drawn(draw: Callable[..., Tensor], shape: Sequence[int], count: int = count) -> Tensor:
                rest = tuple(shape[1:])
                return self.per_group(
                    lambda generator, share: draw((count, share, *rest), generator=generator, **options), shape[0], 1
                )

            yield drawn(torch.randn, normal), drawn(torch.rand, uniform)

    def state_dict(self) -> dict[str, Any]:
        """Groups, seed and the generators' states  # (G, bytes) uint8."""
        states = torch.stack([generator.get_state() for generator in self._generators])
        return {"seed": self.seed, "groups": list(self.groups), "generators": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the streams of a saved state, which may hold further groups (those of other processes).

        Raises:
            ValueError: a group of this object is not in the state, or the state comes from another kind of device.
        """
        rows = rows_of_groups(state["groups"], self.groups)
        saved = state["generators"]
        size = self._generators[0].get_state().numel()
        if saved.shape[-1] != size:
            raise ValueError(
                f"saved random states have {saved.shape[-1]} bytes, {self.device.type} needs {size}; "
                "resume on the kind of device that wrote the checkpoint"
            )
        for row, generator in zip(rows, self._generators, strict=True):
            # Cloned because a generator crashes on a view with a storage offset (torch 2.13).
            generator.set_state(saved[row].cpu().clone())
        self.seed = int(state["seed"])


def rows_of_groups(saved: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Position of every wanted group among the saved ones.

    Raises:
        ValueError: a wanted group was not saved.
    """
    missing = sorted(set(wanted) - set(saved))
    if missing:
        raise ValueError(
            f"the saved walkers have no groups {missing} (they have {list(saved)}); "
            "resume with the number of walker groups that the run was started with"
        )
    return [list(saved).index(group) for group in wanted]


def group_seed(seed: int, group: int) -> int:
    """Seed of a group's generator, 32 bits, well mixed from (seed, group).

    Two groups of one run never share a seed: for a fixed run seed, the map from the group to the result is a
    composition of bijections of 32-bit numbers. 32 bits because PyTorch's CPU generator (Mersenne twister) ignores the
    upper half of a seed. Mixers: the finalizers of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) and of MurmurHash3.
    """
    wide = (seed + 0x9E3779B97F4A7C15) & _MASK_64
    wide = ((wide ^ (wide >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    wide = ((wide ^ (wide >> 27)) * 0x94D049BB133111EB) & _MASK_64
    narrow = ((wide ^ (wide >> 31)) + group) & _MASK_32
    narrow = ((narrow ^ (narrow >> 16)) * 0x85EBCA6B) & _MASK_32
    narrow = ((narrow ^ (narrow >> 13)) * 0xC2B2AE35) & _MASK_32
    return narrow ^ (narrow >> 16)
