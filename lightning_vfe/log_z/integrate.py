r"""ln Z of potentials, from the ideal gas along a path of potentials E_1, ..., E_S:

    ln Z = ln int exp(-E_S(z)/kT) d^{3N}z = 3N ln L + sum over neighbouring windows of the path (no 1/N!).

A pilot finds windows of equal thermodynamic length; the chains of all windows move together and swap; where neighbours
overlap too little windows are added; MBAR puts the samples together. Known are callables only, never a model: the path
may be [Yukawa, SchNet], [harmonic wells] or [Ewald energy of a plasma].

Several state points are one problem. In units of rs all densities share one cell, so that a state point is a potential
E(rs u)/kT of u = z/rs. The path visits the states one after the other, and MBAR takes the samples of all windows for
each of them. The errors of two states are therefore correlated; their covariance is part of the result. Where two
neighbouring states overlap too little, a state is put between them.

Source of the two-stage path: Morales, Pierleoni and Ceperley, Phys. Rev. E 81, 021202 (2010).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.log_z.between import Between, neighbour_overlaps
from lightning_vfe.log_z.journal import SweepJournal
from lightning_vfe.log_z.ladder_run import LadderRun, Progress
from lightning_vfe.log_z.mbar import bootstrap_covariance
from lightning_vfe.log_z.path import coefficients
from lightning_vfe.log_z.replica_exchange import Energy
from lightning_vfe.log_z.result import LogZResult, WindowReport, reasons_against, window_reports
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell


@dataclass(frozen=True)
class JointResult:
    """ln Z of several potentials on one path; T of them are wanted.

    Attributes:
        log_z: of the targets, with the ideal gas's 3N ln L.  # (T,)
        covariance: of log_z; its diagonal has the squares of the larger one of the next two errors.  # (T, T)
        bootstrap_errors: from resampling each window's uncorrelated samples.  # (T,)
        ladder_errors: from the spread over the independent ladders of chains.  # (T,)
        windows: along the path, first the ideal gas.  # K
        rows: numbers of the targets' windows.  # (T,)
        overlap: overlap matrix of the windows.  # (K, K)
        reasons: why the result is not to be trusted; empty where it is.
        positions: last configurations of the chains of each target.  # (T, C, N, 3)
    """

    log_z: np.ndarray
    covariance: np.ndarray
    bootstrap_errors: np.ndarray
    ladder_errors: np.ndarray
    windows: tuple[WindowReport, ...]
    rows: np.ndarray
    overlap: np.ndarray
    reasons: tuple[str, ...]
    positions: Tensor

    @property
    def errors(self) -> np.ndarray:
        """Standard errors of log_z  # (T,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def converged(self) -> bool:
        """Whether the result can be trusted."""
        return not self.reasons


def integrate(
    energies: Sequence[Energy],
    cell: PeriodicCell,
    kT: float,
    settings: LogZSettings | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    journal: SweepJournal | None = None,
) -> LogZResult:
    """ln Z of the last potential of a path that begins at the ideal gas.

    Args:
        energies: E_1, ..., E_S in Ha for the whole cell, each (..., N, 3) -> (...), periodic in the cell and
            differentiable; none gives the ideal gas.
        cell: the periodic cell.
        kT: in Ha.
        settings: numbers of chains and sweeps, and what is demanded of the result.
        device: where the chains run.
        progress: called after every sweep.
        journal: keeps the samples, so that an interrupted integration can be resumed.

    Returns:
        ln Z with its error and all diagnostics; `converged` says whether to trust it, `reasons` why not.

    Raises:
        ValueError: kT is not positive.
        FloatingPointError: an energy is not a number, windows cannot be joined, or MBAR's equations are singular.
    """
    _check_kT(kT)
    if not energies:
        ideal = 3 * cell.num_atoms * math.log(cell.length)
        return LogZResult(ideal, 0.0, 0.0, 0.0, (), np.ones((1, 1)), True, (), None)
    identity = torch.eye(len(energies), dtype=torch.float64)
    found = integrate_path(energies, identity, [len(energies)], cell, kT, settings, device, progress, journal)
    return LogZResult(
        log_z=float(found.log_z[0]),
        log_z_error=float(found.errors[0]),
        bootstrap_error=float(found.bootstrap_errors[0]),
        ladder_error=float(found.ladder_errors[0]),
        windows=found.windows,
        overlap=found.overlap,
        converged=found.converged,
        reasons=found.reasons,
        positions=found.positions[0],
    )


def integrate_path(
    energies: Sequence[Energy],
    stages: Tensor,
    targets: Sequence[int],
    cell: PeriodicCell,
    kT: float,
    settings: LogZSettings | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    journal: SweepJournal | None = None,
    between: Between | None = None,
) -> JointResult:
    """ln Z of several potentials of a path, with their covariance; arguments and errors as of `integrate`.

    Args:
        energies: E_1, ..., E_M.
        stages: the S potentials of the path as sums of the energies.  # (S, M)
        targets: numbers from 1 to S of the potentials whose ln Z is wanted.
        cell: the periodic cell.
        kT: in Ha.
        settings: target_error_per_atom holds for each target.
        device: where the chains run.
        progress: called after every sweep.
        journal: keeps the samples.
        between: puts further targets between neighbouring ones that overlap by less than settings.min_overlap, after
            the pilot; the result holds all targets. None adds none.
    """
    _check_kT(kT)
    settings = settings or LogZSettings()
    ideal = 3 * cell.num_atoms * math.log(cell.length)
    progress, journal = progress or (lambda _what, _done, _total: None), journal or SweepJournal()
    run = LadderRun(energies, cell, kT, settings, device, progress, stages, targets, journal)
    run, chains = run.joined(between)
    chains, samples = run.without_gaps(chains)
    samples, equilibrium, found = run.produce(chains, samples)
    path = coefficients(chains.points).numpy()
    resampled = bootstrap_covariance(
        samples, path, equilibrium.steps, found.log_z, settings.num_bootstraps, settings.seed
    )
    rows = run.rows(chains)
    bootstrap, ladders = np.sqrt(np.diag(resampled))[rows], found.ladder_errors[rows]
    overlaps = neighbour_overlaps(samples, path, range(len(path)))
    windows = window_reports(chains, found, equilibrium, overlaps, ideal)
    covariance = _scaled(resampled[np.ix_(rows, rows)], np.maximum(bootstrap, ladders))
    error = float(np.sqrt(covariance.diagonal().max()))
    return JointResult(
        log_z=ideal + found.log_z[rows],
        covariance=covariance,
        bootstrap_errors=bootstrap,
        ladder_errors=ladders,
        windows=windows,
        rows=rows,
        overlap=found.overlap,
        reasons=reasons_against(windows, error / cell.num_atoms, found, settings),
        positions=chains.positions[rows.tolist()],
    )


def _scaled(covariance: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The same correlations with other standard errors."""
    own = np.sqrt(np.diag(covariance))
    correlation = np.divide(covariance, np.outer(own, own), out=np.zeros_like(covariance), where=np.outer(own, own) > 0)
    np.fill_diagonal(correlation, 1.0)
    scaled: np.ndarray = correlation * np.outer(errors, errors)
    return scaled


def _check_kT(kT: float) -> None:
    if not (math.isfinite(kT) and kT > 0):
        raise SettingError("kT", kT, "must be positive, in Ha", "system.temperature_kelvin sets it")
