"""The cubic periodic cell: lengths, images, smooth periodic functions of a displacement, plane waves."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError

LONGEST_CUTOFF = 10.0
"""In edges of the cell: an atom reaches 4,000 images of every other then, and no interaction here ranges further."""

RS_RANGE = (1e-3, 1e4)
"""In bohr; far outside of it powers of the length leave the floating-point numbers, and long before that the model."""


@dataclass(frozen=True)
class PeriodicCell:
    """Cubic cell that holds N protons and N electrons at the density given by rs.

    Volume per atom: L^3 / N = 4 pi rs^3 / 3, so L = (4 pi N / 3)^(1/3) rs, in bohr.

    Args:
        num_atoms: number N of protons, any positive integer.
        rs: Wigner-Seitz radius in bohr, within RS_RANGE.

    Raises:
        ValueError: num_atoms is not a positive integer, or rs is not a number within RS_RANGE.
    """

    num_atoms: int
    rs: float

    def __post_init__(self) -> None:
        integer = isinstance(self.num_atoms, Integral) and not isinstance(self.num_atoms, bool)
        if not (integer and self.num_atoms >= 1):
            raise SettingError("num_atoms", self.num_atoms, "must be a positive integer", "set it to 8, 14 or 16")
        number = isinstance(self.rs, Real) and not isinstance(self.rs, bool)
        least, most = RS_RANGE
        if not (number and least <= self.rs <= most):
            raise SettingError(
                "rs",
                self.rs,
                f"must be positive, from {least:g} to {most:g} bohr",
                "dense hydrogen is rs = 1 to 4 bohr",
            )

    @property
    def length(self) -> float:
        """Edge L of the cube in bohr."""
        edge: float = (4.0 * math.pi * self.num_atoms / 3.0) ** (1.0 / 3.0) * self.rs
        return edge

    @property
    def volume(self) -> float:
        """L^3 in bohr^3."""
        return 4.0 * math.pi * self.num_atoms / 3.0 * self.rs**3

    def check_cutoff(self, cutoff: float, key: str, fix: str, unit: str = "bohr") -> None:
        """Refuse a range of interactions that is zero, or that contains thousands of images of every atom.

        Args:
            cutoff: radius in the cell's unit of length.
            key: its name in the config.
            fix: end of the message.
            unit: name of that unit.

        Raises:
            ValueError: the cutoff is not positive, or beyond LONGEST_CUTOFF edges of the cell.
        """
        most = LONGEST_CUTOFF * self.length
        if not 0 < cutoff <= most:
            raise SettingError(
                key,
                cutoff,
                f"must be positive and at most {most:.4g} {unit}, {LONGEST_CUTOFF:g} edges of the cell",
                fix,
            )

    def wrap(self, positions: Tensor) -> Tensor:
        """Translate positions (..., 3) in bohr into [0, L), each component on its own; the gradient is one."""
        wrapped = positions - self.length * torch.floor(positions / self.length)
        # Rounding can leave x just below L just below zero, and a tiny negative x on L itself.
        wrapped = torch.where(wrapped < 0, wrapped + self.length, wrapped)
        return torch.where(wrapped >= self.length, wrapped - self.length, wrapped)

    def minimum_image(self, displacement: Tensor) -> Tensor:
        """Translate displacements (..., 3) in bohr into [-L/2, L/2], each component on its own; the gradient is one."""
        return displacement - self.length * torch.round(displacement / self.length)

    def image_shifts(
        self, cutoff: float, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Lattice translations that can bring a minimum-image displacement within a cutoff.

        For d in [-L/2, L/2]^3 every image d + L n with |d + L n| <= cutoff has its L n in the list: the distance from
        the cube of minimum images to the origin, L^2 sum_d max(0, |n_d| - 1/2)^2, must not exceed cutoff^2.

        Args:
            cutoff: radius in bohr, positive; it may exceed L/2.
            device: where the result lives.
            dtype: type of the result, torch's default where left out.

        Returns:
            Translations in bohr, nearest first, the zero translation at the head.  # (M, 3)

        Raises:
            ValueError: cutoff is not positive.
        """
        dtype = torch.get_default_dtype() if dtype is None else dtype
        integers = torch.from_numpy(self.image_vectors(cutoff))
        return (integers.to(torch.float64) * self.length).to(device=device, dtype=dtype)

    def image_vectors(self, cutoff: float) -> np.ndarray:
        """The integer vectors n of `image_shifts`, as NumPy integers.  # (M, 3)"""
        if not (math.isfinite(cutoff) and cutoff > 0):
            raise SettingError("cutoff", cutoff, f"must be positive, in bohr, for example {self.length / 2:.4g}")
        # The margin keeps images that lie on the cutoff in spite of rounding.
        reach = cutoff / self.length * (1.0 + 1e-12)
        integers = integer_vectors(math.floor(reach + 0.5))
        nearest = np.maximum(np.abs(integers) - 0.5, 0.0)
        within: np.ndarray = integers[(nearest**2).sum(axis=-1) <= reach**2]
        return within

    def smooth_distance(self, displacement: Tensor) -> Tensor:
        """Periodic distance of displacements (..., 3) in bohr, see the function of this name.  # (...)"""
        return smooth_distance(displacement, self.length)

    def plane_waves(self, count: int) -> Tensor:
        """Integer vectors n of the plane waves exp(2 pi i n.x / L), in order of |n|.

        Whole shells of equal |n| are kept, so that the set has the cubic symmetry; equal lengths are in lexicographic
        order, so the list never changes. n = 0 comes first.

        Args:
            count: least number of vectors, positive.

        Returns:
            int64 vectors, at least `count`.  # (count', 3)

        Raises:
            ValueError: count is not positive.
        """
        if count < 1:
            raise SettingError("count", count, "plane waves must be positive", "1 keeps the constant wave only")
        # A ball of radius R holds fewer vectors than the cube [-R, R]^3, and every shell up to R lies in that cube.
        radius = 0
        while True:
            integers = integer_vectors(radius)
            squared = (integers**2).sum(axis=-1)
            complete = squared <= radius**2
            if int(complete.sum()) >= count:
                last = squared[complete][count - 1]
                return torch.from_numpy(integers[squared <= last].copy())
            radius += 1


def smooth_distance(displacement: Tensor, length: Tensor | float) -> Tensor:
    """Periodic distance (L/pi) sqrt(sum_d sin^2(pi dx_d / L)).

    It equals |dx| near dx = 0, has the lattice's period, and is analytic except at the lattice points. There, where the
    gradient of a distance is undefined, the value and the gradient are exactly zero instead of NaN, so that self pairs
    may be masked afterwards.

    Args:
        displacement: any image.  # (..., 3)
        length: L in the same unit; a tensor broadcasts with the leading dimensions.  # (...)

    Returns:
        Distance in the same unit.  # (...)
    """
    per_length = math.pi / (length.unsqueeze(-1) if isinstance(length, Tensor) else length)
    squared = torch.sin(displacement * per_length).square().sum(dim=-1)
    positive = squared > 0
    root = torch.sqrt(torch.where(positive, squared, torch.ones_like(squared)))
    return torch.where(positive, root, torch.zeros_like(root)) * (length / math.pi)


def periodic_waves(displacement: Tensor, length: Tensor | float) -> tuple[Tensor, Tensor]:
    """Smooth features of a displacement: sin(2 pi dx_d / L) and cos(2 pi dx_d / L) of its components.

    Args:
        displacement: any image.  # (..., 3)
        length: L in the same unit; a tensor broadcasts with the leading dimensions.  # (...)

    Returns:
        Sines and cosines.  # (..., 3) each
    """
    angle = displacement * (2.0 * math.pi / (length.unsqueeze(-1) if isinstance(length, Tensor) else length))
    return torch.sin(angle), torch.cos(angle)


@functools.lru_cache(maxsize=32)
def integer_vectors(largest: int) -> np.ndarray:
    """Integer vectors of the cube [-largest, largest]^3, by length, then lexicographically; read-only.  # (M, 3)"""
    axis = np.arange(-largest, largest + 1, dtype=np.int64)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    order = np.argsort((grid**2).sum(axis=-1), kind="stable")
    vectors = grid[order]
    vectors.setflags(write=False)
    return vectors
