"""Configurations from a file: a trajectory, or the rows of another database of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.database import State
from lightning_vfe.labels.label import Configuration

_KEY = "configurations_path"


def read_configurations(path: str | Path, states: Sequence[State], count: int) -> dict[State, list[Configuration]]:
    """The first `count` configurations of every state in a file that ASE reads; those of other states are left out.

    Args:
        path: a trajectory in any of ASE's formats, or an ASE database.
        states: wanted states; their temperature is not looked at.
        count: largest number of configurations of a state.

    Raises:
        ValueError: no such file, one that ASE cannot read, frames that are not hydrogen in a periodic cube, or a state
            without any frame.
    """
    from ase.io import read

    if not Path(path).is_file():
        raise SettingError(_KEY, path, "does not exist", "give a trajectory or a database that ASE reads")
    try:
        frames = read(str(path), index=":")
    except Exception as error:  # ASE's readers raise whatever their parsers meet
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise SettingError(_KEY, path, f"cannot be read by ASE ({reason})", "try another format") from error
    found: dict[State, list[Configuration]] = {state: [] for state in states}
    for number, frame in enumerate(frames):
        box = np.asarray(frame.cell)
        cube = box[0, 0] * np.eye(3)
        if set(frame.get_chemical_symbols()) != {"H"} or box[0, 0] <= 0 or np.abs(box - cube).max() > 1e-6 * box[0, 0]:
            raise SettingError(_KEY, path, f": frame {number} is not hydrogen in a cube", "give such frames only")
        configuration = Configuration.from_atoms(frame)
        for state, chosen in found.items():
            same = state.num_atoms == len(frame) and math.isclose(state.cell.length, configuration.length, rel_tol=1e-6)
            if same and len(chosen) < count:
                chosen.append(configuration)
    for state, chosen in found.items():
        if not chosen:
            raise SettingError(
                _KEY,
                path,
                f"has no frame of num_atoms = {state.num_atoms}, rs = {state.rs:g} "
                f"(a cube of {state.cell.length:.6f} bohr)",
                "set label.num_atoms and label.rs to what it holds",
            )
    return found
