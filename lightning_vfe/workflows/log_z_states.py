"""ln Z of a stored potential at several state points, by one MBAR problem, kept beside the potential."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from lightning_vfe.files import checksum, write_json
from lightning_vfe.log_z.integrate import JointResult, integrate_path
from lightning_vfe.models.base.log_z import LogZEntry
from lightning_vfe.models.potential.storage import potential_hash
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.workflows.log_z import measure, save_overlap, store_entries, write_results
from lightning_vfe.workflows.log_z_route import Route
from lightning_vfe.workflows.log_z_setup import Prepared, prepare, quality


@dataclass(frozen=True)
class LogZStates:
    """ln Z of a potential at several state points.

    Attributes:
        entries: ln Z of each with its error, its covariances and its provenance, as they are stored.
        joint: everything that the integration found.
        points: the state points, in the order of the entries.
        terms: F of classical protons in the potential at each state, with the momenta; E, S and P where they were asked
            for.
        file: where ln Z is stored.
        added: ln Z of states that were put between those which overlap too little; they are stored, too.
        figures: files.
    """

    entries: tuple[LogZEntry, ...]
    joint: JointResult
    points: tuple[StatePoint, ...]
    terms: tuple[Mapping[str, Estimate], ...]
    file: Path
    added: tuple[LogZEntry, ...]
    figures: tuple[Path, ...]


def log_z_states_with(config: DictConfig, command: str, progress: Progress, begin: Begin) -> LogZStates:
    """Integrate ln Z of all state points of a composed config, and store it; arguments and errors as of `log_z_with`.

    In units of rs all cells are the same one: with u = z/rs, ln Z(rs, T) = 3N ln rs + ln int exp(-E(rs u)/kT) du.
    """
    prepared = prepare(config, begin)
    run_dir, started, num_atoms = Path(config.run_dir), time.monotonic(), prepared.system.num_atoms
    route = Route(prepared.yukawa, prepared.potential, prepared.points, num_atoms)
    cell, settings = PeriodicCell(num_atoms, 1.0), prepared.settings
    joint = integrate_path(
        *route.path(), cell, 1.0, settings, prepared.device, progress, prepared.journal, route.between
    )
    provenance = prepared.provenance(config, command, started) | quality(joint.windows)
    stored = _entries(prepared, route.points, joint, provenance)
    _write_integration(run_dir, joint, stored)
    store_entries(prepared.goal, stored, run_dir)
    prepared.finish(joint.converged)
    figure = save_overlap(run_dir, joint, f"{len(route.points)} states, $N = {num_atoms}$")
    results = []
    for row in route.rows:
        point, width = route.points[row], joint.windows[int(joint.rows[row])].width
        start = joint.positions[row] * point.rs
        results.append(measure(config, prepared, point, start, width * point.rs, stored[row], progress))
    write_results(config, prepared, results, joint.reasons, provenance)
    return LogZStates(
        entries=tuple(stored[row] for row in route.rows),
        added=tuple(stored[row] for row in route.added),
        joint=joint,
        points=route.wanted,
        terms=tuple(each.terms for each in results),
        file=prepared.goal,
        figures=(figure,),
    )


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
