"""Configurations from a file: a trajectory, or the rows of another database of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.database import LabelState
from lightning_vfe.labels.label import Configuration
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.frames import Frame, frame_of, looks_like_bohr, read_atoms

SAME_LENGTH = 1e-4
"""Relative difference of two boxes that differ by rounding alone."""
MOST_CELLS = 5
"""Cells that a message lists."""


@dataclass(frozen=True)
class GivenConfigurations:
    """What a file holds of the wanted states.

    Attributes:
        chosen: configurations of each state, in the order of the file.
        num_frames: all frames of the file.
        num_other: frames of no wanted state, which are left out.
    """

    chosen: dict[LabelState, list[Configuration]]
    num_frames: int
    num_other: int


def read_configurations(
    path: str | Path, states: Sequence[LabelState], count: int
) -> dict[LabelState, list[Configuration]]:
    """The first `count` configurations of every state in a file, as `find_configurations` finds them."""
    return find_configurations(path, states, count).chosen


def find_configurations(
    path: str | Path,
    states: Sequence[LabelState],
    count: int,
    key: str = "configurations_path",
    cell_keys: tuple[str, str] = ("label.num_atoms", "label.rs"),
) -> GivenConfigurations:
    """The first `count` configurations of every state in a file that ASE reads; those of other states are left out.

    A box that differs from that of its state by rounding is scaled to it, with the positions in it.

    Args:
        path: a trajectory in any of ASE's formats, or an ASE database.
        states: wanted states; their temperature is not looked at.
        count: largest number of configurations of a state.
        key: the setting that named the file, for the messages.
        cell_keys: the settings of N and rs, for the messages.

    Raises:
        ValueError: no such file, one that ASE cannot read, a frame that is not hydrogen in a periodic cube, has two
            protons on one site or numbers that are not finite, or a state without any frame.
    """
    if not Path(path).is_file():
        raise SettingError(key, path, "does not exist", "give a trajectory or a database that ASE reads")
    frames = [frame_of(atoms, path, key, number) for number, atoms in enumerate(read_atoms(path, key))]
    found: dict[LabelState, list[Configuration]] = {state: [] for state in states}
    num_other = 0
    for frame in frames:
        state = _nearest(frame, states)
        if state is None:
            num_other += 1
        elif len(found[state]) < count:
            found[state].append(_in_cell(frame, state.cell.length))
    for state, chosen in found.items():
        if not chosen:
            reason = f"has no frame of num_atoms = {state.num_atoms}, rs = {state.rs:g} "
            reason += f"(a cube of {state.cell.length:.6f} bohr); it holds {_cells(frames)}"
            raise SettingError(key, path, reason, _advice(frames, state, cell_keys))
    return GivenConfigurations(found, len(frames), num_other)


def _in_cell(frame: Frame, length: float) -> Configuration:
    """A frame in the box of its state; one whose box is right to nine digits stays as it is."""
    if abs(frame.length - length) <= 1e-9 * length:
        return Configuration(frame.positions, frame.length)
    return Configuration(frame.positions * (length / frame.length), length)


def _nearest(frame: Frame, states: Sequence[LabelState]) -> LabelState | None:
    """The state of the same N whose box is nearest to that of a frame, if rounding alone tells them apart."""
    own = [state for state in states if state.num_atoms == len(frame.positions)]
    nearest = min(own, key=lambda state: abs(state.cell.length - frame.length), default=None)
    if nearest is None or abs(nearest.cell.length - frame.length) > SAME_LENGTH * frame.length:
        return None
    return nearest


def _cells(frames: Sequence[Frame]) -> str:
    """What the frames are, such as `40 of N = 2, rs = 2`."""
    kinds = Counter((len(frame.positions), _rs(frame)) for frame in frames)
    shown = [f"{count} of N = {number}, rs = {rs}" for (number, rs), count in kinds.most_common(MOST_CELLS)]
    return "; ".join(shown) + ("; ..." if len(kinds) > MOST_CELLS else "") if kinds else "no frame"


def _rs(frame: Frame) -> str:
    return f"{frame.length / PeriodicCell(len(frame.positions), 1.0).length:.5g}"


def _advice(frames: Sequence[Frame], state: LabelState, cell_keys: tuple[str, str]) -> str:
    if any(looks_like_bohr(frame.length, state.cell.length) for frame in frames):
        return "the numbers fit if they are bohr: convert boxes and positions to angstrom"
    return f"set {cell_keys[0]} and {cell_keys[1]} to what it holds"
