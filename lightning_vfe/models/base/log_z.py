"""ln Z of a potential, stored beside it: `<potential>.log_z.json`, one entry for each state point."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from lightning_vfe.errors import SettingError
from lightning_vfe.files import CHECKSUM, checksum, has_changed, write_json
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.resources import resource_folder


@dataclass(frozen=True)
class LogZEntry:
    """ln Z of one potential at one state point.

    Attributes:
        num_atoms: N.
        rs: in bohr.
        temperature_kelvin: T.
        log_z: ln of the integral of exp(-E/kT) over the cell, lengths in bohr, without 1/N!.
        log_z_error: its standard error.
        potential_hash: of the potential that was integrated.
        converged: whether the integration trusts its result.
        reasons: why not.
        provenance: how it was computed; plain values.
        problem: name of the integration that found several states together; empty where it found one.
        covariances: (rs, T, covariance of the two ln Z) for each state of that integration.
    """

    num_atoms: int
    rs: float
    temperature_kelvin: float
    log_z: float
    log_z_error: float
    potential_hash: str
    converged: bool
    reasons: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    covariances: tuple[tuple[float, float, float], ...] = ()

    def is_at(self, num_atoms: int, rs: float, temperature_kelvin: float) -> bool:
        """Whether this is the entry of a state point."""
        same_rs = math.isclose(self.rs, rs, rel_tol=1e-9)
        return self.num_atoms == num_atoms and same_rs and math.isclose(self.temperature_kelvin, temperature_kelvin)


_ENTRY = TypeAdapter(LogZEntry)


def joint_covariance(entries: Sequence[LogZEntry]) -> np.ndarray:
    """Covariance of the ln Z of several entries; those of different integrations are independent.

    Args:
        entries: S of them.

    Returns:
        Without units.  # (S, S)
    """
    covariance = np.diag([entry.log_z_error**2 for entry in entries])
    for i, one in enumerate(entries):
        for j, other in enumerate(entries):
            if i != j and one.problem and one.problem == other.problem:
                shared = [value for rs, T, value in one.covariances if other.is_at(one.num_atoms, rs, T)]
                covariance[i, j] = shared[0] if shared else 0.0
    return covariance


def log_z_file(potential_path: str | Path) -> Path:
    """The file beside a potential that holds its ln Z."""
    path = Path(potential_path)
    return path.with_name(f"{path.stem}.log_z.json")


def read_entries(path: str | Path) -> list[LogZEntry]:
    """All entries of a file; none where there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    if not Path(path).is_file():
        return []
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["entries"]
        if any(has_changed(row) for row in rows):
            raise _damaged(path)
        entries = [_ENTRY.validate_python({key: row[key] for key in row if key != CHECKSUM}) for row in rows]
        sound = all(math.isfinite(entry.log_z) and math.isfinite(entry.log_z_error) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path) from None
    if not sound:
        raise _damaged(path)
    return entries


def store_entry(path: str | Path, entry: LogZEntry) -> None:
    """Add an entry to a file, in place of an older one of the same state point; the file is never seen half written.

    Raises:
        ValueError: the file is damaged.
        OSError: the folder cannot be written to.
    """
    path, state_point = Path(path), (entry.num_atoms, entry.rs, entry.temperature_kelvin)
    entries = [old for old in read_entries(path) if not old.is_at(*state_point)] + [entry]
    entries.sort(key=lambda each: (each.num_atoms, each.rs, each.temperature_kelvin))
    rows = [asdict(each) for each in entries]
    content = {
        "potential_hash": entry.potential_hash,
        "entries": [row | {CHECKSUM: checksum(row)} for row in rows],
    }
    write_json(path, content)


def shipped_potentials(num_atoms: int, rs: float, temperature_kelvin: float) -> list[str]:
    """Potentials of the package with a converged ln Z at a state point, by their paths inside data/."""
    data = resource_folder("data")
    return [
        str(file.relative_to(data))
        for file in sorted(data.glob("potentials/*.pt"))
        if any(e.converged and e.is_at(num_atoms, rs, temperature_kelvin) for e in read_entries(log_z_file(file)))
    ]


def find_entry(
    path: str | Path, potential_path: str | Path, potential_hash: str, cell: PeriodicCell, temperature_kelvin: float
) -> LogZEntry:
    """The converged entry of a potential at a state point.

    Raises:
        ValueError: there is none, it is of other parameters of the potential, or its integration did not converge; the
            message ends with the command that computes it.
    """
    fix = (
        f"run: lightning-vfe log-z potential.path={potential_path} system.num_atoms={cell.num_atoms} "
        f"system.rs={cell.rs:g} system.temperature_kelvin={temperature_kelvin:g}"
    )
    if Path(path) != log_z_file(potential_path):
        fix += f" log_z_path={path}"
    entries = read_entries(path)
    here = [entry for entry in entries if entry.is_at(cell.num_atoms, cell.rs, temperature_kelvin)]
    if not here:
        known = ", ".join(f"N={e.num_atoms} rs={e.rs:g} T={e.temperature_kelvin:g} K" for e in entries) or "nothing"
        state = f"N={cell.num_atoms} rs={cell.rs:g} T={temperature_kelvin:g} K"
        shipped = shipped_potentials(cell.num_atoms, cell.rs, temperature_kelvin)
        other = f", or take the shipped {' or '.join(shipped)}" if shipped else ""
        raise SettingError(
            "log_z_path", path, f"has no ln Z for {state} (it has {known})", f"{fix}{other}, or take base=uniform"
        )
    entry = here[0]
    if entry.potential_hash != potential_hash:
        raise SettingError(
            "log_z_path",
            path,
            f"holds the ln Z of a potential with hash {entry.potential_hash}, but that of {potential_path} is "
            f"{potential_hash}: the potential was trained again afterwards",
            fix,
        )
    if not entry.converged:
        raise SettingError(
            "log_z_path",
            path,
            f": the integration had not converged ({'; '.join(entry.reasons)})",
            f"{fix} log_z.max_sweeps=... with more sweeps",
        )
    return entry


def _damaged(path: str | Path) -> SettingError:
    return SettingError("log_z_path", path, "is damaged", "delete it and run lightning-vfe log-z again")
