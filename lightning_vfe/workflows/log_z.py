"""ln Z of a stored potential at one state point, kept beside the potential."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.analysis.figures import FILE_DPI, save_figures
from lightning_vfe.analysis.overlap import draw_overlap
from lightning_vfe.errors import SettingError
from lightning_vfe.files import write_json
from lightning_vfe.log_z.classical import classical_estimates, sample_potential
from lightning_vfe.log_z.integrate import integrate
from lightning_vfe.log_z.result import LogZResult
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.models.base.log_z import LogZEntry, log_z_file, read_entries, store_entry
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import load_potential, potential_hash
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.physics.system import System
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.resources import data_file
from lightning_vfe.training.variational.diagnostics import MAX_R_HAT
from lightning_vfe.training.variational.summary_files import write_pair_correlation, write_summary
from lightning_vfe.workflows.guards import instantiate, key_errors
from lightning_vfe.workflows.memory import check_memory
from lightning_vfe.workflows.paths import check_file
from lightning_vfe.workflows.run_config import write_config
from lightning_vfe.workflows.system import strata_of


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
    system, file = System(config.system.num_atoms, config.system.nucleus), data_file(config.potential.path)
    check_memory(config.system.num_atoms)
    point = strata_of(config).single
    cell = point.cell(system.num_atoms)
    potential, metadata = load_potential(file)
    potential.check(torch.zeros(cell.num_atoms, 3), cell)
    goal = log_z_file(file) if config.log_z_path is None else Path(config.log_z_path)
    check_file("log_z_path", goal)
    read_entries(goal)  # a damaged file is to be known before the work
    if config.num_samples < 0:
        raise SettingError("num_samples", config.num_samples, "must not be negative", "0 leaves E, P and g(r) out")
    settings, device = instantiate(config.log_z), _device(config.device)
    yukawa = instantiate(config.yukawa)
    with key_errors(config, "yukawa"):
        yukawa.check(torch.zeros(cell.num_atoms, 3), cell)
    path = [model.to(device).requires_grad_(False) for model in (yukawa, potential)]
    begin(config, _description(system, point, config, settings, device))
    run_dir = Path(config.run_dir)
    (run_dir / "figures").mkdir(parents=True, exist_ok=True)
    write_config(run_dir, config)

    started = time.monotonic()
    result = integrate([chunked_energy(model, cell) for model in path], cell, point.kT, settings, device, progress)
    provenance = {
        "command": command,
        "code_version": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.monotonic() - started, 1),
        "potential_temperature_kelvin": metadata["temperature_kelvin"],
        "settings": OmegaConf.to_container(config.log_z, resolve=True),
    }
    entry = LogZEntry(
        num_atoms=cell.num_atoms,
        rs=cell.rs,
        temperature_kelvin=point.temperature_kelvin,
        log_z=result.log_z,
        log_z_error=result.log_z_error,
        potential_hash=potential_hash(potential),
        converged=result.converged,
        reasons=result.reasons,
        provenance=provenance | _quality(result),
    )
    _write_integration(run_dir, result, entry)
    try:
        store_entry(goal, entry)
    except OSError as error:
        kept = f"ln Z is kept in {run_dir / 'integration.json'}"
        raise SettingError("log_z_path", goal, f"cannot be written ({error.strerror})", kept) from error
    found = LogZRun(entry, result, point.kT, goal, figures=(_save_overlap(run_dir, result, entry),))
    if config.num_samples == 0:
        return found
    terms = _measure(config, potential, system, point, result, run_dir, progress)
    return LogZRun(entry, result, point.kT, goal, terms, (*found.figures, *save_figures(run_dir)))


def _description(
    system: System, point: StatePoint, config: DictConfig, settings: LogZSettings, device: str
) -> dict[str, str]:
    """What the banner says."""
    return {
        "system": f"{system.name}, N = {system.num_atoms}, {point}",
        "potential": str(config.potential.path),
        "chains": f"{settings.num_chains} in each window, at most {settings.max_sweeps} sweeps ({device})",
        "wanted error": f"{settings.target_error_per_atom:g} kT per atom",
    }


def _measure(
    config: DictConfig,
    potential: Potential,
    system: System,
    point: StatePoint,
    result: LogZResult,
    run_dir: Path,
    progress: Progress,
) -> dict[str, Estimate]:
    """E, S, P and g(r) of classical protons in the potential: summary.json and pair_correlation.csv as of `test`."""
    cell, last = point.cell(system.num_atoms), result.windows[-1]
    assert result.positions is not None  # there is a potential
    samples = sample_potential(
        lambda z: potential.energy(z, cell),
        lambda z: potential.pressure(z, cell),
        cell,
        point.kT,
        result.positions,
        last.width,
        config.num_samples,
        config.seed,
        lambda done: progress("potential alone", done, config.num_samples),
    )
    terms = classical_estimates(system, point, samples, result.log_z, result.log_z_error)
    reasons, energy = list(result.reasons), terms["energy_per_atom"]
    if math.isnan(energy.r_hat):
        reasons.append("too few samples for R-hat and errors: raise num_samples, to 4 at the least")
    elif energy.r_hat > MAX_R_HAT:
        reasons.append(f"R-hat = {energy.r_hat:.3f} is above {MAX_R_HAT}: raise num_samples")
    described = {"num_atoms": cell.num_atoms, "nucleus": system.nucleus, "rs": cell.rs, "protons": "sampled"}
    described["temperature_kelvin"] = point.temperature_kelvin
    diagnostics = {
        "r_hat": energy.r_hat,
        "autocorrelation_time": energy.autocorrelation_time,
        "effective_sample_size": energy.effective_sample_size,
    }
    content: dict[str, Any] = {"system": described, "potential": str(config.potential.path)}
    content |= {name: {"value": term.value, "error": term.error} for name, term in terms.items()}
    write_summary(run_dir, content | {"diagnostics": diagnostics, "converged": not reasons, "reasons": reasons})
    write_pair_correlation(run_dir, [(point, samples.radial)])
    return terms


def _quality(result: LogZResult) -> dict[str, Any]:
    windows = result.windows
    return {
        "num_windows": len(windows),
        "num_samples": sum(window.num_samples for window in windows),
        "least_overlap": round(float(min(w.overlap_with_next or 1.0 for w in windows)), 4),
        "largest_r_hat": round(max(window.r_hat for window in windows), 4),
    }


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError("device", name, "does not exist", "there is: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device", "cuda", "is not available here", "set device=cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


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


def _save_overlap(run_dir: Path, result: LogZResult, entry: LogZEntry) -> Path:
    """The figure of the overlap matrix; returns its path."""
    points = np.array([window.point for window in result.windows])
    title = f"$N = {entry.num_atoms}$,  $r_s = {entry.rs:g}$,  $T = {entry.temperature_kelvin:g}$ K"
    file = run_dir / "figures" / "overlap.png"
    draw_overlap(result.overlap, points, title).savefig(file, dpi=FILE_DPI)
    return file
