"""The momentum distribution n(k) of the electrons, from one electron that is moved to another place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.cell import PeriodicCell, integer_vectors
from lightning_vfe.physics.chunking import map_chunks, map_rows, max_chunk_elements
from lightning_vfe.physics.electron_gas import fermi_wavenumber
from lightning_vfe.physics.local_energy import LogPsi
from lightning_vfe.physics.observables import mean_of_walkers
from lightning_vfe.physics.state_point import WalkerStates

WALKER_NUMBERS = 64
"""Numbers that ln psi of one configuration takes for each pair of electrons."""
DIGITS = 6
"""Of k L / 2 pi: plane waves that agree to these have one length."""

Draw = Callable[[Sequence[int]], Tensor]
"""Uniform numbers in [0, 1) of a shape that begins with W."""


@dataclass(frozen=True)
class MomentumDistribution:
    """n(k) of both spins together, by the length of k.

    Attributes:
        k: length in 1/bohr, ascending.  # (levels,)
        n: mean number of electrons in a plane wave of one spin, from 0 to 1.  # (levels,)
        error: standard error from the spread of the independent proton walkers; nan with a single one.  # (levels,)
        multiplicity: plane waves of this length, averaged over the twists: 2 sum_k multiplicity n = N.  # (levels,)
    """

    k: np.ndarray
    n: np.ndarray
    error: np.ndarray
    multiplicity: np.ndarray


class MomentumDistributions:
    r"""Collects n(k) of the plane waves k = 2 pi / L (m + twist) while the chains run.

        n(k) = 1/2 sum_i < exp(-i k . s) psi(r_i -> r_i + s) / psi(r) >,

    with the mean over |psi|^2 and over places s, uniform in the cell; 1/2 is for the two spins. Every sample moves
    `num_points` electrons, chosen at random, one at a time, and counts each N times. The variance of a ratio is that of
    psi itself, and finite: <|psi'/psi|^2> = 1. Source: McMillan, Phys. Rev. 138, A442 (1965); for electrons Holzmann et
    al., PRL 107, 110402 (2011).

    Args:
        cell: in units of rs: positions are in its unit.
        log_psi: see LogPsi.
        states: state point and twist of every walker, the same at all times.  # (W,)
        draw: gives random numbers; they are not those of the chains.
        num_points: electrons that are moved in every sample.
        max_wavenumber: largest k in units of k_F.

    Raises:
        SettingError: num_points or max_wavenumber is not positive.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        log_psi: LogPsi,
        states: WalkerStates,
        draw: Draw,
        num_points: int = 1,
        max_wavenumber: float = 3.0,
    ) -> None:
        if num_points < 1:
            raise SettingError("num_points", num_points, "must be at least 1", "1 is usual")
        if not max_wavenumber > 0.0:
            raise SettingError("max_wavenumber", max_wavenumber, "must be positive", "3 is usual")
        self.cell, self.log_psi, self.states = cell, log_psi, states
        self.draw, self.num_points = draw, num_points
        self._unit = 2.0 * math.pi / cell.length
        self._largest = max_wavenumber * fermi_wavenumber(1.0) / self._unit  # of |m + twist|
        # every |m| that a twist, of components up to 1/2, brings below the largest
        vectors = integer_vectors(math.ceil(self._largest + 1.0))
        near = (vectors**2).sum(axis=1) <= (self._largest + math.sqrt(0.75)) ** 2
        self._integers = torch.from_numpy(vectors[near].astype(np.float64))  # (M, 3)
        self._sum: Tensor | float = 0.0
        self._count = 0

    @torch.no_grad()
    def update(self, protons: Tensor, electrons: Tensor) -> None:
        """Add one sample of every walker.

        Args:
            protons: # (W, N, 3), or (W, 0, 3)
            electrons: # (W, B, N, 3)
        """
        shape = (*electrons.shape[:2], self.num_points)
        mover = (electrons.shape[2] * self.draw(shape)).long().to(electrons.device)  # (W, B, P)
        place = (self.cell.length * self.draw((*shape, 3))).to(electrons)
        is_mover = mover.unsqueeze(-1) == torch.arange(electrons.shape[2], device=electrons.device)
        moved = electrons.unsqueeze(2) + is_mover.unsqueeze(-1) * place.unsqueeze(-2)  # (W, B, P, N, 3)
        every = torch.cat([electrons.unsqueeze(2), moved], dim=2)
        log_psi = self._log_psi(protons, every.flatten(1, 2)).unflatten(1, every.shape[1:3])
        ratio = torch.exp(log_psi[..., 1:] - log_psi[..., :1])  # (W, B, P)
        waves = self._unit * (self._integers.to(electrons) + self.states.twist.to(electrons).unsqueeze(1))  # (W, M, 3)
        limit = max(1, max_chunk_elements(electrons) // (2 * waves.shape[1] * math.prod(shape[1:])))
        parts = place.flatten(1, 2), torch.view_as_real(ratio).flatten(1, 2), waves
        (found,) = map_rows(_projections, limit, *parts)
        self._sum = self._sum + 0.5 * electrons.shape[2] * found.double()
        self._count += 1

    def _log_psi(self, protons: Tensor, electrons: Tensor) -> Tensor:
        """ln psi (W, C) of electrons (W, C, N, 3) in units of rs."""
        rs, num = self.states.rs, electrons.shape[-2]

        def evaluate(x: Tensor, r: Tensor, *of_states: Tensor) -> tuple[Tensor]:
            rs, kT, twist = (each.squeeze(-2) for each in of_states)
            return (self.log_psi(x, r, WalkerStates(rs.squeeze(-1), kT.squeeze(-1), twist)),)

        limit = max(1, max_chunk_elements(electrons) // (WALKER_NUMBERS * num**2))
        bohr = rs[:, None, None]
        of_states = rs[:, None, None, None], self.states.kT[:, None, None, None], self.states.twist[:, None, None]
        given = (protons * bohr).unsqueeze(1), electrons * bohr.unsqueeze(1), *of_states
        return map_chunks(evaluate, limit, *given)[0]

    def per_walker(self) -> dict[str, Tensor]:
        """n(k) of each walker, to be gathered from all processes.

        Returns:
            float64, by the name momentum_distribution.  # (W, M)
        """
        return {"momentum_distribution": torch.as_tensor(self._sum) / self._count}

    def result(self, values: Tensor, twists: Tensor, weights: Tensor, unit: float = 1.0) -> MomentumDistribution:
        """Mean and error over the walkers of one state point.

        Args:
            values: `per_walker()` of all processes, joined along the walkers.  # (W, M)
            twists: of these walkers.  # (W, 3)
            weights: what each walker counts in the average over twists, in any unit.  # (W,)
            unit: unit of the cell's lengths in bohr, rs for a cell in units of rs.
        """
        lengths = (self._integers + twists.double().cpu().unsqueeze(1)).norm(dim=-1).numpy().round(DIGITS)  # (W, M)
        share = (weights.double() / weights.double().sum()).cpu()
        levels = np.unique(lengths[lengths <= self._largest])
        rows = []
        for level in levels:
            member = torch.from_numpy(lengths == level)  # (W, M)
            count = member.sum(1)
            own = count > 0
            of_walker = (values.cpu() * member).sum(1)[own] / count[own]
            mean, error = mean_of_walkers(of_walker.unsqueeze(1), share[own] * count[own])
            rows.append((mean[0], error[0], float(share @ count.double())))
        n, error, multiplicity = (np.array(column) for column in zip(*rows, strict=True))
        return MomentumDistribution(levels * self._unit / unit, n, error, multiplicity)


def _projections(places: Tensor, ratios: Tensor, waves: Tensor) -> tuple[Tensor]:
    """Mean of Re exp(-i k . s) ratio: places (w, C, 3), ratios (w, C, 2), waves (w, M, 3) -> (w, M)."""
    angles = places @ waves.mT  # (w, C, M)
    real, imaginary = (part.unsqueeze(-1) for part in ratios.unbind(-1))
    return ((torch.cos(angles) * real + torch.sin(angles) * imaginary).mean(1),)
