"""ln Z of a stored potential at one state point, kept beside the potential."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
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
from lightning_vfe.log_z.classical import ClassicalSamples, classical_estimates, sample_potential
from lightning_vfe.log_z.integrate import JointResult, integrate
from lightning_vfe.log_z.result import LogZResult
from lightning_vfe.models.base.log_z import LogZEntry, store_entry
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.storage import potential_hash
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.physics.system import System
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.training.variational.diagnostics import MAX_R_HAT
from lightning_vfe.training.variational.summary_files import write_pair_correlation, write_summary
from lightning_vfe.workflows.log_z_setup import Prepared, prepare, quality


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
    system, potential, goal, run_dir = prepared.system, prepared.potential, prepared.goal, Path(config.run_dir)
    (point,) = prepared.points
    cell = point.cell(system.num_atoms)
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
    try:
        store_entry(goal, entry)
    except OSError as error:
        kept = f"ln Z is kept in {run_dir / 'integration.json'}"
        raise SettingError("log_z_path", goal, f"cannot be written ({error.strerror})", kept) from error
    prepared.finish(result.converged)
    found = LogZRun(entry, result, point.kT, goal, figures=(save_overlap(run_dir, result, str(point)),))
    if config.num_samples == 0:
        return found
    assert result.positions is not None  # there is a potential
    terms, samples = measure(config, prepared, point, result.positions, result.windows[-1].width, entry, progress)
    _write_summary(config, system, point, result, terms)
    write_pair_correlation(run_dir, [(point, samples.radial)])
    return LogZRun(entry, result, point.kT, goal, terms, (*found.figures, *save_figures(run_dir)))


def measure(
    config: DictConfig,
    prepared: Prepared,
    point: StatePoint,
    start: Tensor,
    width: float,
    entry: LogZEntry,
    progress: Progress,
) -> tuple[dict[str, Estimate], ClassicalSamples]:
    """F, E, S and P of classical protons in the potential, and what the chains saw.

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
    return classical_estimates(prepared.system, point, samples, entry.log_z, entry.log_z_error), samples


def _write_summary(
    config: DictConfig, system: System, point: StatePoint, result: LogZResult, terms: Mapping[str, Estimate]
) -> None:
    """summary.json as of `test`."""
    reasons, energy = list(result.reasons), terms["energy_per_atom"]
    if math.isnan(energy.r_hat):
        reasons.append("too few samples for R-hat and errors: raise num_samples, to 4 at the least")
    elif energy.r_hat > MAX_R_HAT:
        reasons.append(f"R-hat = {energy.r_hat:.3f} is above {MAX_R_HAT}: raise num_samples")
    described = {"num_atoms": system.num_atoms, "nucleus": system.nucleus, "rs": point.rs, "protons": "sampled"}
    described["temperature_kelvin"] = point.temperature_kelvin
    diagnostics = {
        "r_hat": energy.r_hat,
        "autocorrelation_time": energy.autocorrelation_time,
        "effective_sample_size": energy.effective_sample_size,
    }
    content: dict[str, Any] = {"system": described, "potential": str(config.potential.path)}
    content |= {name: {"value": term.value, "error": term.error} for name, term in terms.items()}
    verdict = {"converged": not reasons, "reasons": reasons}
    write_summary(Path(config.run_dir), content | {"diagnostics": diagnostics} | verdict)


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
