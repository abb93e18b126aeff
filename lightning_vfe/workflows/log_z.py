"""ln Z of a stored potential at one state point, kept beside the potential."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from torch import Tensor

from lightning_vfe.analysis.figures import FILE_DPI, save_figures
from lightning_vfe.analysis.overlap import draw_overlap
from lightning_vfe.errors import SettingError
from lightning_vfe.files import write_json
from lightning_vfe.log_z.classical import classical_estimates, sample_potential
from lightning_vfe.log_z.integrate import JointResult, integrate
from lightning_vfe.log_z.result import LogZResult
from lightning_vfe.models.base.log_z import LogZEntry, store_entry
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.storage import potential_hash
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.training.variational.summary_files import write_pair_correlation
from lightning_vfe.workflows.log_z_setup import QUALITY, Prepared, prepare, quality
from lightning_vfe.workflows.log_z_summary import ClassicalResult, write_log_z_summary


@dataclass(frozen=True)
class LogZRun:
    """ln Z of a potential, and classical protons in it.

    Attributes:
        entry: ln Z with its error and its provenance, as it is stored.
        windows: everything that the integration found.
        kT: in Ha.
        file: where ln Z is stored.
        terms: F, E, S and P of classical protons in the potential; empty where they were not asked for.
        figures: files.
    """

    entry: LogZEntry
    windows: LogZResult
    kT: float
    file: Path
    terms: Mapping[str, Estimate] = field(default_factory=dict)
    figures: tuple[Path, ...] = ()


def log_z_with(config: DictConfig, command: str, progress: Progress, begin: Begin) -> LogZRun:
    """Integrate ln Z as a composed config says, and store it.

    Args:
        config: of `configs/log-z.yaml`.
        command: kept with the result.
        progress: called while the chains run.
        begin: called with the config and what the work is about, once all settings have been looked at.

    Raises:
        SettingError: a potential that is missing, damaged or not made for this density, a setting out of its range, or
            a file that cannot be written.
    """
    prepared = prepare(config, begin)
    potential, goal, run_dir = prepared.potential, prepared.goal, Path(config.run_dir)
    (point,) = prepared.points
    cell = point.cell(prepared.system.num_atoms)
    path = [chunked_energy(model, cell) for model in (prepared.yukawa, potential)]
    started = time.monotonic()
    result = integrate(path, cell, point.kT, prepared.settings, prepared.device, progress, prepared.journal)
    entry = LogZEntry(
        num_atoms=cell.num_atoms,
        rs=cell.rs,
        temperature_kelvin=point.temperature_kelvin,
        log_z=result.log_z,
        log_z_error=result.log_z_error,
        potential_hash=potential_hash(potential),
        converged=result.converged,
        reasons=result.reasons,
        provenance=prepared.provenance(config, command, started) | quality(result.windows),
    )
    _write_integration(run_dir, result, entry)
    store_entries(goal, [entry], run_dir)
    prepared.finish(result.converged)
    overlap = save_overlap(run_dir, result, str(point))
    assert result.positions is not None  # there is a potential
    found = measure(config, prepared, point, result.positions, result.windows[-1].width, entry, progress)
    write_results(config, prepared, [found], result.reasons, entry.provenance)
    if found.samples is None:
        return LogZRun(entry, result, point.kT, goal, figures=(overlap,))
    return LogZRun(entry, result, point.kT, goal, found.terms, (overlap, *save_figures(run_dir)))


def measure(
    config: DictConfig,
    prepared: Prepared,
    point: StatePoint,
    start: Tensor,
    width: float,
    entry: LogZEntry,
    progress: Progress,
) -> ClassicalResult:
    """F of classical protons in the potential, and E, S and P where config.num_samples is not zero.

    Args:
        config: with num_samples and seed.
        prepared: system and potential.
        point: the state point.
        start: equilibrated configurations in bohr.  # (C, N, 3)
        width: of the moves in bohr.
        entry: ln Z of the state.
        progress: called while the chains run.
    """
    cell, potential = point.cell(prepared.system.num_atoms), prepared.potential
    error = point.kT * entry.log_z_error / cell.num_atoms
    if config.num_samples == 0:
        value = (-point.kT * entry.log_z + float(momentum_free_energy(prepared.system, point.kT))) / cell.num_atoms
        return ClassicalResult(point, {"free_energy_per_atom": Estimate(value, error, *(math.nan,) * 3)}, error)
    samples = sample_potential(
        lambda z: potential.energy(z, cell),
        lambda z: potential.pressure(z, cell),
        cell,
        point.kT,
        start,
        width,
        config.num_samples,
        config.seed,
        lambda done: progress("potential alone", done, config.num_samples),
    )
    terms = classical_estimates(prepared.system, point, samples, entry.log_z, entry.log_z_error)
    return ClassicalResult(point, terms, error, samples)


def write_results(
    config: DictConfig,
    prepared: Prepared,
    results: Sequence[ClassicalResult],
    reasons: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """summary.json and, where there are samples, pair_correlation.csv of all state points.

    Args:
        config: with run_dir and potential.path.
        prepared: the system.
        results: of each state point.
        reasons: why ln Z is not to be trusted.
        provenance: of ln Z, with the quality of its windows.
    """
    run_dir = Path(config.run_dir)
    diagnostics = {name: provenance[name] for name in QUALITY}
    origin = {name: value for name, value in provenance.items() if name not in QUALITY}
    path = str(config.potential.path)
    write_log_z_summary(run_dir, prepared.system, results, reasons, path, diagnostics, origin)
    curves = [(each.point, each.samples.radial) for each in results if each.samples is not None]
    if curves:
        write_pair_correlation(run_dir, curves)


def store_entries(goal: Path, entries: Sequence[LogZEntry], run_dir: Path) -> None:
    """Write the entries into the file of ln Z.

    Raises:
        SettingError: it cannot be written; the line says where ln Z is kept.
    """
    try:
        for entry in entries:
            store_entry(goal, entry)
    except OSError as error:
        kept = f"ln Z is kept in {run_dir / 'integration.json'}"
        raise SettingError("log_z_path", goal, f"cannot be written ({error.strerror})", kept) from error


def _write_integration(run_dir: Path, result: LogZResult, entry: LogZEntry) -> None:
    """integration.json, with every window."""
    content = {
        **asdict(entry),
        "bootstrap_error": result.bootstrap_error,
        "ladder_error": result.ladder_error,
        "windows": [asdict(window) for window in result.windows],
        "overlap": np.round(result.overlap, 6).tolist(),
    }
    write_json(run_dir / "integration.json", content)


def save_overlap(run_dir: Path, result: LogZResult | JointResult, title: str) -> Path:
    """The figure of the overlap matrix; returns its path."""
    points = np.array([window.point for window in result.windows])
    file = run_dir / "figures" / "overlap.png"
    draw_overlap(result.overlap, points, title).savefig(file, dpi=FILE_DPI)
    return file
