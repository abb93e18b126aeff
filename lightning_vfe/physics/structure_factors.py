"""Reciprocal-space sums over structure factors, sum_{k != 0} (2 pi / V k^2) exp(-k^2 / 4 alpha^2) |S(k)|^2.

Structure factors are real here. For n >= 0 let

    T_abc(n) = sum_i a(2 pi n_x x_i / L) b(2 pi n_y y_i / L) c(2 pi n_z z_i / L),    a, b, c: a cosine or a sine each.

Over the eight signs of the components of k = 2 pi n / L (a half space holds four of them)

    sum_signs |S(k)|^2 = 8 sum_abc T_abc^2,        sum_signs Re(S_p^* S_e) = 8 sum_abc T_abc^p T_abc^e,

because the products of signs are orthogonal. So one octant without complex numbers is enough, and the sum over
particles is a matrix product between the tables of (a, n_x) and of (b, c, n_y, n_z).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.chunking import max_chunk_elements

# With fewer columns in a block the matrix products are small and their tables are read piecemeal: measured on CPUs.
_FAVOURABLE_COLUMNS = 24


class _Block(NamedTuple):
    """A part of the octant of wavevectors: 0 <= n_x < rows for some of the columns (n_y, n_z)."""

    rows: int
    columns: Tensor  # (2, C)
    weights: Tensor  # (2 rows, 4 C)


class ReciprocalSum:
    """The sum over 0 < |n|^2 <= max_square for one or for two species of N particles.

    Args:
        cell: the periodic cell.
        alpha: screening in 1/bohr.
        max_square: largest |n|^2.
    """

    def __init__(self, cell: PeriodicCell, alpha: float, max_square: int) -> None:
        self.cell = cell
        self.max_square = max_square
        self._columns, self._weights = _octant(cell, alpha, max_square)
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        # Temporaries that one column (n_y, n_z) takes for one configuration.
        self._column_elements = 4 * (cell.num_atoms + 2 * len(self._weights))

    def favourable_configurations(self, positions: Tensor) -> int:
        """Number of configurations at a time above which the blocks get too narrow to be fast."""
        return max(1, max_chunk_elements(positions) // (_FAVOURABLE_COLUMNS * self._column_elements))

    def energy(self, positions: Tensor) -> Tensor:
        """The sum for |S(k)|^2 of one species, in Ha.

        Args:
            positions: in bohr, in any image.  # (..., N, 3)

        Returns:
            Energy of like charges.  # (...)
        """
        tables = self._tables(positions)
        energy = positions.new_zeros(())
        for block in self._blocks(positions):
            factors = _structure_factors(tables, block)
            energy = energy + (factors * factors * block.weights).sum(dim=(-2, -1))
        return energy

    def pair_energies(self, protons: Tensor, electrons: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sums for |S_p|^2, -2 Re(S_p^* S_e) and |S_e|^2, in Ha.

        Args:
            protons: in bohr, in any image.  # (..., N, 3)
            electrons: in bohr, in any image; leading dimensions broadcast with those of protons.  # (..., N, 3)

        Returns:
            Energies, each with the leading dimensions that it depends on.
        """
        proton_tables, electron_tables = self._tables(protons), self._tables(electrons)
        v_pp, v_pe, v_ee = protons.new_zeros(()), protons.new_zeros(()), protons.new_zeros(())
        for block in self._blocks(protons, electrons):
            of_protons = _structure_factors(proton_tables, block)
            of_electrons = _structure_factors(electron_tables, block)
            weighted = of_electrons * block.weights
            v_pp = v_pp + (of_protons * of_protons * block.weights).sum(dim=(-2, -1))
            v_pe = v_pe - 2.0 * (of_protons * weighted).sum(dim=(-2, -1))
            v_ee = v_ee + (of_electrons * weighted).sum(dim=(-2, -1))
        return v_pp, v_pe, v_ee

    def _tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of 2 pi n x / L for every component and 0 <= n <= n_max.  # 2 x (..., 3, N, n_max + 1)"""
        orders = torch.arange(len(self._weights), device=positions.device, dtype=positions.dtype)
        angles = self.cell.minimum_image(positions).transpose(-1, -2) * (2.0 * math.pi / self.cell.length)
        phases = angles.unsqueeze(-1) * orders
        return torch.cos(phases), torch.sin(phases)

    def _blocks(self, *positions: Tensor) -> Iterator[_Block]:
        """Divide the octant so that no temporary of _structure_factors exceeds the bound of memory."""
        columns, weights = self._constants_like(positions[0])
        squares = (self._columns**2).sum(axis=0)
        configurations = max(1, max(math.prod(each.shape[:-2]) for each in positions))
        size = max(1, max_chunk_elements(positions[0]) // (configurations * self._column_elements))
        for start in range(0, len(squares), size):
            part = slice(start, start + size)
            # The columns are in order of n_y^2 + n_z^2, so the first one of a block is the longest one.
            rows = math.isqrt(self.max_square - int(squares[start])) + 1
            yield _Block(rows, columns[:, part], weights[:rows, part].repeat(2, 4))

    def _constants_like(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Columns and weights on the device of the positions; computed in float64, then rounded to their type."""
        device, dtype = positions.device, positions.dtype
        if (device, dtype) not in self._constants:
            # A first call in inference mode would otherwise leave tensors behind that autograd refuses ever after.
            with torch.inference_mode(False):
                columns = torch.tensor(self._columns, device=device)
                weights = torch.tensor(self._weights, device=device, dtype=dtype)
            self._constants[device, dtype] = (columns, weights)
        return self._constants[device, dtype]


def _octant(cell: PeriodicCell, alpha: float, max_square: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n_y, n_z) of the octant in order of length, and the weights of sum_abc T_abc^2 at n_x = 0, 1, ... n_max.

    The weight is (2 pi / V k^2) exp(-k^2 / 4 alpha^2) times the eight signs, over two for each component that is zero
    (those signs are not different wavevectors); zero outside the sphere.

    Returns:
        Columns and weights in Ha.  # (2, C), (n_max + 1, C)
    """
    orders = np.arange(math.isqrt(max_square) + 1)
    columns = np.stack(np.meshgrid(orders, orders, indexing="ij")).reshape(2, -1)
    squares = (columns**2).sum(axis=0)
    order = np.argsort(squares, kind="stable")
    order = order[squares[order] <= max_square]
    columns, squares = columns[:, order], squares[order]
    total = orders[:, None] ** 2 + squares
    k_squared = (2.0 * math.pi / cell.length) ** 2 * np.maximum(total, 1)
    signs = 8.0 / 2.0 ** ((orders == 0)[:, None].astype(int) + (columns == 0).sum(axis=0))
    weights = signs * 2.0 * math.pi / cell.volume / k_squared * np.exp(-k_squared / (4.0 * alpha**2))
    return columns, np.where((total > 0) & (total <= max_square), weights, 0.0)


def _structure_factors(tables: tuple[Tensor, Tensor], block: _Block) -> Tensor:
    """T_abc(n) of a block from the tables; rows are (a, n_x), columns (b, c, n_y n_z).  # (..., 2 rows, 4 C)"""
    cos, sin = tables
    along_x = torch.cat([cos[..., 0, :, : block.rows], sin[..., 0, :, : block.rows]], dim=-1)
    cos_y, sin_y = (each[..., 1, :, :].index_select(-1, block.columns[0]) for each in tables)
    cos_z, sin_z = (each[..., 2, :, :].index_select(-1, block.columns[1]) for each in tables)
    across = torch.cat([cos_y * cos_z, cos_y * sin_z, sin_y * cos_z, sin_y * sin_z], dim=-1)
    return along_x.transpose(-1, -2) @ across
