"""ln Z of a stored potential at several state points, by one MBAR problem, kept beside the potential."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.files import checksum, write_json
from lightning_vfe.log_z.integrate import JointResult, integrate_path
from lightning_vfe.models.base.log_z import LogZEntry, store_entry
from lightning_vfe.models.potential.chunked import chunked_energy
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.models.potential.storage import potential_hash
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import momentum_free_energy
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.training.variational.summary_files import write_pair_correlation
from lightning_vfe.workflows.log_z import measure, save_overlap
from lightning_vfe.workflows.log_z_setup import Prepared, prepare, quality


@dataclass(frozen=True)
class LogZStates:
    """ln Z of a potential at several state points.

    Attributes:
        entries: ln Z of each with its error, its covariances and its provenance, as they are stored.
        joint: everything that the integration found.
        points: the state points, in the order of the entries.
        free_energies: F per atom in Ha of classical protons in the potential, with the momenta.
        free_energy_errors: their standard errors.
        file: where ln Z is stored.
        terms: F, E, S and P of each state; empty where they were not asked for.
        figures: files.
    """

    entries: tuple[LogZEntry, ...]
    joint: JointResult
    points: tuple[StatePoint, ...]
    free_energies: tuple[float, ...]
    free_energy_errors: tuple[float, ...]
    file: Path
    terms: tuple[Mapping[str, Estimate], ...]
    figures: tuple[Path, ...]


def log_z_states_with(config: DictConfig, command: str, progress: Progress, begin: Begin) -> LogZStates:
    """Integrate ln Z of all state points of a composed config, and store it; arguments and errors as of `log_z_with`.

    In units of rs all cells are the same one: with u = z/rs, ln Z(rs, T) = 3N ln rs + ln int exp(-E(rs u)/kT) du.
    """
    prepared = prepare(config, begin)
    points, run_dir, started = path_order(prepared.points), Path(config.run_dir), time.monotonic()
    num_atoms = prepared.system.num_atoms
    energies, stages = path_of_states(prepared.yukawa, prepared.potential, points, num_atoms)
    targets, cell = [2 + number for number in range(len(points))], PeriodicCell(num_atoms, 1.0)
    joint = integrate_path(
        energies, stages, targets, cell, 1.0, prepared.settings, prepared.device, progress, prepared.journal
    )
    provenance = prepared.provenance(config, command, started) | quality(joint.windows)
    entries = _entries(prepared, points, joint, provenance)
    _write_integration(run_dir, joint, entries)
    try:
        for entry in entries:
            store_entry(prepared.goal, entry)
    except OSError as error:
        kept = f"ln Z is kept in {run_dir / 'integration.json'}"
        raise SettingError("log_z_path", prepared.goal, f"cannot be written ({error.strerror})", kept) from error
    prepared.finish(joint.converged)
    figure = save_overlap(run_dir, joint, f"{len(points)} states, $N = {num_atoms}$")
    momenta = [float(momentum_free_energy(prepared.system, point.kT)) for point in points]
    free = [(-p.kT * e.log_z + m) / num_atoms for p, e, m in zip(points, entries, momenta, strict=True)]
    errors = [point.kT * entry.log_z_error / num_atoms for point, entry in zip(points, entries, strict=True)]
    terms = _measured(config, prepared, points, joint, entries, progress)
    return LogZStates(entries, joint, points, tuple(free), tuple(errors), prepared.goal, terms, (figure,))


def path_order(points: Sequence[StatePoint]) -> tuple[StatePoint, ...]:
    """State points so that neighbours are near: by density, with the temperature falling and rising in turn."""
    ordered: list[StatePoint] = []
    for number, rs in enumerate(sorted({point.rs for point in points})):
        own = [point for point in points if point.rs == rs]
        ordered += sorted(own, key=lambda point: point.temperature_kelvin, reverse=number % 2 == 0)
    return tuple(ordered)


def path_of_states(
    yukawa: Potential, potential: Potential, points: Sequence[StatePoint], num_atoms: int
) -> tuple[list[Callable[[Tensor], Tensor]], Tensor]:
    """The path ideal gas -> Yukawa -> first state -> second state -> ..., for kT = 1 in the cell of rs = 1.

    Args:
        yukawa: taken at the first state.
        potential: taken at all of them; each density costs one energy, whatever the number of temperatures.
        points: the states in the order of the path.
        num_atoms: N.

    Returns:
        The energies of Yukawa and of each density in Ha, as functions of u = z/rs; the path's potentials E/kT as sums
        of them.  # (1 + S, 1 + densities)
    """
    densities = sorted({point.rs for point in points})
    energies = [_in_units_of_rs(yukawa, points[0].rs, num_atoms)]
    energies += [_in_units_of_rs(potential, rs, num_atoms) for rs in densities]
    stages = torch.zeros(1 + len(points), len(energies), dtype=torch.float64)
    stages[0, 0] = 1.0 / points[0].kT
    for number, point in enumerate(points, start=1):
        stages[number, 1 + densities.index(point.rs)] = 1.0 / point.kT
    return energies, stages


def _in_units_of_rs(potential: Potential, rs: float, num_atoms: int) -> Callable[[Tensor], Tensor]:
    energy = chunked_energy(potential, PeriodicCell(num_atoms, rs))
    return lambda u: energy(rs * u)


def _entries(
    prepared: Prepared, points: Sequence[StatePoint], joint: JointResult, provenance: Mapping[str, object]
) -> tuple[LogZEntry, ...]:
    num_atoms, own_hash = prepared.system.num_atoms, potential_hash(prepared.potential)
    values = [
        float(value) + 3 * num_atoms * float(np.log(point.rs)) for value, point in zip(joint.log_z, points, strict=True)
    ]
    problem = checksum({"hash": own_hash, "log_z": values, "provenance": dict(provenance)}).removeprefix("sha256-")
    return tuple(
        LogZEntry(
            num_atoms=num_atoms,
            rs=point.rs,
            temperature_kelvin=point.temperature_kelvin,
            log_z=value,
            log_z_error=float(joint.errors[row]),
            potential_hash=own_hash,
            converged=joint.converged,
            reasons=joint.reasons,
            provenance=dict(provenance),
            problem=problem,
            covariances=tuple(
                (other.rs, other.temperature_kelvin, float(joint.covariance[row, column]))
                for column, other in enumerate(points)
            ),
        )
        for row, (point, value) in enumerate(zip(points, values, strict=True))
    )


def _measured(
    config: DictConfig,
    prepared: Prepared,
    points: Sequence[StatePoint],
    joint: JointResult,
    entries: Sequence[LogZEntry],
    progress: Progress,
) -> tuple[Mapping[str, Estimate], ...]:
    """F, E, S and P of each state, and pair_correlation.csv with g(r) of all."""
    if config.num_samples == 0:
        return ()
    terms, curves = [], []
    for number, (point, entry) in enumerate(zip(points, entries, strict=True)):
        start = joint.positions[number] * point.rs
        width = joint.windows[int(joint.rows[number])].width * point.rs
        found, samples = measure(config, prepared, point, start, width, entry, progress)
        terms.append(found)
        curves.append((point, samples.radial))
    write_pair_correlation(Path(config.run_dir), curves)
    return tuple(terms)


def _write_integration(run_dir: Path, joint: JointResult, entries: Sequence[LogZEntry]) -> None:
    """integration.json, with every window; states carry their point of the path."""
    content = {
        "states": [asdict(entry) for entry in entries],
        "covariance": joint.covariance.tolist(),
        "converged": joint.converged,
        "reasons": joint.reasons,
        "windows": [asdict(window) for window in joint.windows],
        "overlap": np.round(joint.overlap, 6).tolist(),
    }
    write_json(run_dir / "integration.json", content)
