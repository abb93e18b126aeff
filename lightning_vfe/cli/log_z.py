"""The verb `log-z`: ln Z of a stored potential at one state point, kept beside the potential."""

import datetime
import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lightning_vfe import __version__
from lightning_vfe.errors import CommandError, SettingError
from lightning_vfe.workflows.guards import instantiate, key_errors
from lightning_vfe.workflows.paths import check_file
from lightning_vfe.workflows.system import strata_of

FAILED = 1
FILE_DPI = 160


def run(config: DictConfig) -> int:
    """Integrate ln Z, store it, and print it; returns 0, or 1 where the result is not to be trusted.

    Raises:
        ValueError: a potential that is missing, damaged or not made for this density.
        CommandError: a setting out of its range, or a file that could not be written.
    """
    import torch

    from lightning_vfe.log_z.integrate import integrate
    from lightning_vfe.models.base.log_z import LogZEntry, log_z_file, read_entries, store_entry
    from lightning_vfe.models.potential.chunked import chunked_energy
    from lightning_vfe.models.potential.storage import load_potential, potential_hash
    from lightning_vfe.physics.system import System
    from lightning_vfe.resources import data_file

    system, file = System(config.system.num_atoms, config.system.nucleus), data_file(config.potential.path)
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
    with key_errors(config, "yukawa"):
        yukawa = instantiate(config.yukawa)
        yukawa.check(torch.zeros(cell.num_atoms, 3), cell)
    path = [model.to(device).requires_grad_(False) for model in (yukawa, potential)]
    energies = [chunked_energy(model, cell) for model in path]
    run_dir = Path(config.run_dir)
    (run_dir / "figures").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / "config.yaml")

    kT, started = point.kT, time.monotonic()
    with _progress_bar() as progress:
        result = integrate(energies, cell, kT, settings, device, progress)
    entry = LogZEntry(
        num_atoms=cell.num_atoms,
        rs=cell.rs,
        temperature_kelvin=point.temperature_kelvin,
        log_z=result.log_z,
        log_z_error=result.log_z_error,
        potential_hash=potential_hash(potential),
        converged=result.converged,
        reasons=result.reasons,
        provenance={
            "command": shlex.join(["lightning-vfe", *sys.argv[1:]]),
            "code_version": __version__,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seconds": round(time.monotonic() - started, 1),
            "potential_temperature_kelvin": metadata["temperature_kelvin"],
            "num_windows": len(result.windows),
            "num_samples": sum(window.num_samples for window in result.windows),
            "least_overlap": round(float(min(w.overlap_with_next or 1.0 for w in result.windows)), 4),
            "largest_r_hat": round(max(window.r_hat for window in result.windows), 4),
            "settings": OmegaConf.to_container(config.log_z, resolve=True),
        },
    )
    _save_run(run_dir, result, entry)
    try:
        store_entry(goal, entry)
    except OSError as error:
        kept = f"ln Z is kept in {run_dir / 'integration.json'}"
        raise SettingError("log_z_path", goal, f"cannot be written ({error.strerror})", kept) from error
    figure = _save_overlap(run_dir, result, entry)
    _print_result(result, entry, kT, goal, figure)
    if config.num_samples > 0:
        measure(config, potential, system, point, result, run_dir)
    return 0 if result.converged else FAILED


def measure(config: DictConfig, potential: Any, particles: Any, point: Any, result: Any, run_dir: Path) -> None:
    """E, S, P and g(r) of classical protons in the potential: summary.json, pair_correlation.csv and figures, as
    `test` writes them.
    """
    from lightning_vfe.analysis.figures import save_figures
    from lightning_vfe.log_z.classical import classical_estimates, sample_potential
    from lightning_vfe.training.variational.summary import MAX_R_HAT, write_pair_correlation

    cell, last = point.cell(particles.num_atoms), result.windows[-1]
    with _progress_bar() as progress:
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
    found = classical_estimates(particles, point, samples, result.log_z, result.log_z_error)
    reasons, energy = list(result.reasons), found["energy_per_atom"]
    if not energy.r_hat <= MAX_R_HAT:
        reasons.append(f"R-hat = {energy.r_hat:.3f} is above {MAX_R_HAT}: raise num_samples")
    system = {"num_atoms": cell.num_atoms, "nucleus": particles.nucleus, "rs": cell.rs, "protons": "sampled"}
    system["temperature_kelvin"] = point.temperature_kelvin
    content: dict[str, Any] = {"system": system, "potential": str(config.potential.path)}
    content |= {name: {"value": term.value, "error": term.error} for name, term in found.items()}
    content["diagnostics"] = {
        "r_hat": energy.r_hat,
        "autocorrelation_time": energy.autocorrelation_time,
        "effective_sample_size": energy.effective_sample_size,
    }
    content |= {"converged": not reasons, "reasons": reasons}
    (run_dir / "summary.json").write_text(json.dumps(content, indent=2) + "\n")
    write_pair_correlation(run_dir, [(point, samples.radial)])
    _print_terms(found)
    for file in save_figures(run_dir):
        print(f"figure: {file}")


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise SettingError("device", name, "does not exist", "there is: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise CommandError("device = cuda is not available here; set device=cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@contextmanager
def _progress_bar() -> Iterator[Any]:
    """A bar for each part of the work, as a function (what, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        tasks: dict[tuple[str, int], Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if (what, total) not in tasks or bar.tasks[tasks[what, total]].completed >= done:
                tasks[what, total] = bar.add_task(what, total=total)
            bar.update(tasks[what, total], completed=done)

        yield show


def _save_run(run_dir: Path, result: Any, entry: Any) -> None:
    """integration.json, with every window."""
    from dataclasses import asdict

    import numpy as np

    content = {
        **asdict(entry),
        "bootstrap_error": result.bootstrap_error,
        "ladder_error": result.ladder_error,
        "windows": [asdict(window) for window in result.windows],
        "overlap": np.round(result.overlap, 6).tolist(),
    }
    (run_dir / "integration.json").write_text(json.dumps(content, indent=1) + "\n")


def _save_overlap(run_dir: Path, result: Any, entry: Any) -> Path:
    """The figure of the overlap matrix; returns its path."""
    import numpy as np

    from lightning_vfe.analysis.overlap import draw_overlap

    points = np.array([window.point for window in result.windows])
    title = f"$N = {entry.num_atoms}$,  $r_s = {entry.rs:g}$,  $T = {entry.temperature_kelvin:g}$ K"
    file = run_dir / "figures" / "overlap.png"
    draw_overlap(result.overlap, points, title).savefig(file, dpi=FILE_DPI)
    return file


def _print_result(result: Any, entry: Any, kT: float, goal: Path, figure: Path) -> None:
    """The windows, ln Z, and F per atom."""
    table = Table(title="windows: 0 ideal gas, 1 Yukawa, 2 the potential", title_justify="left", box=None)
    for name in ("point", "ln Z", "samples", "g", "R-hat", "accepted", "width/bohr", "overlap", "swaps"):
        table.add_column(name, justify="right")
    for w in result.windows:
        last = ("", "") if w.overlap_with_next is None else (f"{w.overlap_with_next:.3f}", f"{w.swaps_with_next:.2f}")
        numbers = (f"{w.num_samples}", f"{w.inefficiency:.1f}", f"{w.r_hat:.3f}", f"{w.acceptance:.2f}")
        table.add_row(f"{w.point:.4f}", f"{w.log_z:.3f}", *numbers, f"{w.width:.3f}", *last)
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    count, value, error = entry.num_atoms, result.log_z, result.log_z_error
    console.print(f"ln Z                {value:.4f} +- {error:.4f}")
    console.print(f"-ln Z / N           {-value / count:.5f} +- {error / count:.5f}")
    console.print(f"-kT ln Z / N        {-kT * value / count:.6f} +- {kT * error / count:.6f} Ha per atom")
    if not result.converged:
        console.print(f"NOT CONVERGED: {'; '.join(result.reasons)}")
    console.print(f"stored in {goal}; figure {figure}")


def _print_terms(found: dict[str, Any]) -> None:
    """F, E, S, P of the potential alone."""
    from lightning_vfe.analysis.terms import TERMS, value_with_error

    table = Table(title="classical protons in the potential, per atom", title_justify="left", box=None)
    for heading in ("quantity", "value", "unit"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for name, term in found.items():
        table.add_row(TERMS[name].plain_title, value_with_error(term.value, term.error), TERMS[name].unit)
    Console(highlight=False).print(table)
