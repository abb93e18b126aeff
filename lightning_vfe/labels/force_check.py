"""Spot checks: forces of labels against finite differences of their free energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightning_vfe.labels.label import Configuration, Label, Labeller
from lightning_vfe.labels.store import LabelStore

STEP = 0.01
"""Displacement in bohr, as the norm of the 3N components."""


@dataclass(frozen=True)
class ForceCheck:
    """One force component along a random direction of unit length in 3N dimensions, in Ha/bohr.

    Attributes:
        row: id of the row.
        force: from the label.
        finite_difference: -[F(x + h d) - F(x - h d)] / 2h.
    """

    row: int
    force: float
    finite_difference: float

    @property
    def deviation(self) -> float:
        """Absolute difference in Ha/bohr."""
        return abs(self.force - self.finite_difference)


def check_forces(
    store: LabelStore, labeller: Labeller, count: int, seed: int, progress: Callable[[int, int], None]
) -> list[ForceCheck]:
    """Check `count` labels drawn at random, and keep the result in the metadata as `force_checks`.

    Each takes two more labels, which are not stored. A calculation that fails leaves its check out.

    Args:
        store: of labels with forces.
        labeller: the one that made them.
        count: number of labels to check.
        seed: chooses labels and directions.
        progress: hears how many calculations of how many are through.
    """
    generator = np.random.default_rng(seed)
    rows = store.labelled()
    chosen = [rows[index] for index in generator.permutation(len(rows))[:count]]
    moved: list[Configuration] = []
    components: list[float] = []
    for row_id, _, configuration in chosen:
        forces = store.label(row_id).forces
        if forces is None:
            return []
        direction = generator.normal(size=configuration.positions.shape)
        direction /= np.linalg.norm(direction)
        components.append(float((np.asarray(forces) * direction).sum()))
        for sign in (1.0, -1.0):
            positions = configuration.positions + sign * STEP * direction
            moved.append(Configuration(positions, configuration.length))
    labels = {}
    for done, (number, label) in enumerate(labeller(moved), start=1):
        labels[number] = label
        progress(done, len(moved))
    checks = []
    for number, (row_id, _, _) in enumerate(chosen):
        forward, backward = labels[2 * number], labels[2 * number + 1]
        if isinstance(forward, Label) and isinstance(backward, Label):
            slope = (forward.free_energy - backward.free_energy) / (2.0 * STEP)
            checks.append(ForceCheck(row_id, components[number], -slope))
    entries: list[dict[str, Any]] = [asdict(check) for check in checks]
    store.update_metadata(force_checks=entries)
    return checks
