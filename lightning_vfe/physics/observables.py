"""Radial distribution functions g(r) of protons and electrons in the periodic cell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell

PAIRS = ("proton_proton", "proton_electron", "electron_electron_like", "electron_electron_unlike")


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) of one kind of pair; 1 everywhere for independent uniform particles.

    Attributes:
        r: centres of the bins in bohr.  # (bins,)
        g: mean over walkers and samples.  # (bins,)
        error: standard error from the spread of the independent proton walkers; nan with a single one, and in bins
            without any pair.  # (bins,)
    """

    r: np.ndarray
    g: np.ndarray
    error: np.ndarray


class RadialDistributions:
    """Collects g(r) of all kinds of pairs while the chains run.

    With n_ab(bin) the pairs of kinds a, b whose minimum-image distance falls into the bin, P_ab the number of pairs and
    v(bin) the volume of the points of the cell whose minimum-image distance from its centre lies in the bin,

        g_ab(bin) = <n_ab(bin)> / (P_ab v(bin) / L^3).

    P_ab is the number of pairs at hand, so that independent uniform particles give exactly 1 for any N (not 1 - 1/N).
    v(bin) is a spherical shell up to r = L/2; beyond, up to the corner sqrt(3) L/2, only its part inside the cube.

    Args:
        cell: the periodic cell, in bohr or in units of rs: positions and r are in its unit.
        num_bins: number of bins of equal width.
        r_max: end of the last bin, at most sqrt(3) L/2; None is L/2.
        num_up: electrons with spin up; None is half of them.

    Raises:
        ValueError: num_bins or r_max is out of its range.
    """

    def __init__(
        self, cell: PeriodicCell, num_bins: int = 50, r_max: float | None = None, num_up: int | None = None
    ) -> None:
        corner = math.sqrt(3.0) / 2.0 * cell.length
        r_max = cell.length / 2 if r_max is None else r_max
        if num_bins < 1:
            raise SettingError("num_bins", num_bins, "must be at least 1", "50 is usual")
        if not 0.0 < r_max <= corner:
            raise SettingError("r_max", r_max, f"must lie between 0 and {corner:.4f} bohr, the corner of the cell")
        self.cell = cell
        self.num_bins = num_bins
        self.num_up = cell.num_atoms // 2 if num_up is None else num_up
        self.edges = np.linspace(0.0, r_max, num_bins + 1)
        volumes = [ball_in_cube_volume(edge / cell.length) for edge in self.edges]
        self._fractions = torch.from_numpy(np.diff(volumes))
        self._expected: dict[str, int] = {}
        self._counts: dict[str, Tensor] = {}

    def update(self, protons: Tensor, electrons: Tensor | None = None) -> None:
        """Add one sample of every walker.

        Args:
            protons: the same number W of walkers at every call; none in jellium.  # (W, N, 3), or (W, 0, 3)
            electrons: the first `num_up` up, the others down; None counts protons only.  # (W, B, N, 3)
        """
        num_atoms = self.cell.num_atoms
        first, second = torch.triu_indices(num_atoms, num_atoms, offset=1, device=protons.device)
        if protons.shape[1]:
            self._add("proton_proton", protons[:, first] - protons[:, second])
        if electrons is None:
            return
        self._add("proton_electron", electrons[:, :, :, None] - protons[:, None, None])
        like = (first < self.num_up) == (second < self.num_up)
        separation = electrons[:, :, first] - electrons[:, :, second]
        self._add("electron_electron_like", separation[:, :, like])
        self._add("electron_electron_unlike", separation[:, :, ~like])

    def per_walker(self) -> dict[str, Tensor]:
        """g(r) of each walker, to be gathered from all processes; kinds without any pair are left out.

        Returns:
            float64, by the names of PAIRS.  # (W, bins) each
        """
        return {
            name: counts / (self._expected[name] * self._fractions.to(counts.device))
            for name, counts in self._counts.items()
        }

    def result(
        self, per_walker: dict[str, Tensor] | None = None, weights: Tensor | None = None, unit: float = 1.0
    ) -> dict[str, RadialDistribution]:
        """Mean and error over the walkers.

        Args:
            per_walker: `per_walker()` of all processes, joined along the walkers; None takes those collected here.
            weights: what each walker counts in the mean, in any unit; None is equal weights.  # (W,)
            unit: unit of the cell's lengths in bohr, rs for a cell in units of rs.

        Raises:
            ValueError: nothing was collected.
        """
        walkers = self.per_walker() if per_walker is None else per_walker
        if not walkers:
            raise ValueError("g(r) has no samples yet; call update() with the walkers' positions first")
        centres = 0.5 * (self.edges[1:] + self.edges[:-1]) * unit
        distributions = {}
        for name, values in walkers.items():
            mean, error = mean_of_walkers(values, weights)
            # No pair in a bin is no proof that there are none: the scatter of zeros is not an error.
            error[values.cpu().numpy().sum(axis=0) == 0] = math.nan
            distributions[name] = RadialDistribution(centres, mean, error)
        return distributions

    def _add(self, name: str, displacement: Tensor) -> None:
        """Count displacements (W, ..., 3) of pairs into the bins of their walker."""
        num_walkers = displacement.shape[0]
        distance = self.cell.minimum_image(displacement).norm(dim=-1).reshape(num_walkers, -1)  # (W, pairs)
        if distance.shape[1] == 0:
            return
        index = (distance * (self.num_bins / self.edges[-1])).long()
        # Distances beyond r_max go to an extra bin, which is cut off.
        index = index.clamp(max=self.num_bins)
        walker = torch.arange(num_walkers, device=index.device)[:, None] * (self.num_bins + 1)
        size = num_walkers * (self.num_bins + 1)
        counts = torch.bincount((walker + index).flatten(), minlength=size).reshape(num_walkers, -1)[:, :-1]
        if name in self._counts:
            self._counts[name] += counts
        else:
            self._counts[name] = counts.to(torch.float64)
        self._expected[name] = self._expected.get(name, 0) + distance.shape[1]


def mean_of_walkers(values: Tensor, weights: Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean over independent walkers, and its standard error from their spread; nan with a single walker.

    Args:
        values: time averages of each walker.  # (W, bins)
        weights: what each walker counts, in any unit; None is equal weights.  # (W,)

    Returns:
        Mean and error.  # (bins,) each
    """
    table = values.cpu().numpy()
    count = table.shape[0]
    omega = np.full(count, 1.0 / count) if weights is None else (weights / weights.sum()).cpu().numpy()
    # equal weights: the standard error of the mean
    scale = math.sqrt(float((omega**2).sum()))
    error = table.std(axis=0, ddof=1) * scale if count > 1 else np.full(table.shape[1], math.nan)
    return omega @ table, error


def ball_in_cube_volume(radius: float) -> float:
    """Volume of the part of a ball of the given radius that lies in the unit cube around its centre.

    A sphere up to 1/2; a sphere less six caps up to sqrt(2)/2; then, by slices of area A,

        2 int_0^{1/2} A(sqrt(R^2 - x^2)) dx,    A(s) = pi s^2 - 4 s^2 arccos(1/2s) + 2 sqrt(s^2 - 1/4),

    with A = 1 where the slice covers the square (s >= sqrt(2)/2); 1 from sqrt(3)/2 on.
    """
    if radius <= 0.5:
        return 4.0 / 3.0 * math.pi * radius**3
    if radius <= math.sqrt(0.5):
        height = radius - 0.5
        return 4.0 / 3.0 * math.pi * radius**3 - 2.0 * math.pi * height**2 * (3.0 * radius - height)
    if radius >= math.sqrt(0.75):
        return 1.0
    covered = math.sqrt(radius**2 - 0.5)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    x = covered + 0.5 * (0.5 - covered) * (nodes + 1.0)
    squared = radius**2 - x**2
    area = math.pi * squared - 4.0 * squared * np.arccos(0.5 / np.sqrt(squared)) + 2.0 * np.sqrt(squared - 0.25)
    return 2.0 * (covered + 0.5 * (0.5 - covered) * float(weights @ area))
