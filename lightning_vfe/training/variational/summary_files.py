"""The files of a result: summary.json, and the CSV files of g(r), S(k) and n(k)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vfe.files import CHECKSUM, checksum, whole_file, write_json
from lightning_vfe.physics.momentum_distribution import MomentumDistribution
from lightning_vfe.physics.observables import RadialDistribution
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.static_structure import StructureFactor

Curve = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Places, values and errors."""


def write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """summary.json, the results of a run: each term as {"value":, "error":}, diagnostics, converged and reasons.

    The checksum in it shows whether it has changed since.
    """
    write_json(folder / "summary.json", {**content, CHECKSUM: checksum(content)})


def write_pair_correlation(folder: Path, results: Sequence[tuple[StatePoint, dict[str, RadialDistribution]]]) -> None:
    """pair_correlation.csv: g(r) of all kinds of pairs, each with its error, by the distance in bohr."""
    curves = [
        (point, {name: (found.r, found.g, found.error) for name, found in radial.items()}) for point, radial in results
    ]
    _write_curves(folder / "pair_correlation.csv", "r_bohr", curves)


def write_structure_factor(folder: Path, results: Sequence[tuple[StatePoint, dict[str, StructureFactor]]]) -> None:
    """structure_factor.csv: S(k) of all kinds, each with its error, by the wavenumber in 1/bohr."""
    curves = [
        (point, {name: (found.k, found.s, found.error) for name, found in kinds.items()}) for point, kinds in results
    ]
    _write_curves(folder / "structure_factor.csv", "k_per_bohr", curves)


def write_momentum_distribution(folder: Path, results: Sequence[tuple[StatePoint, MomentumDistribution]]) -> None:
    """momentum_distribution.csv: n(k) with its error, and the number of plane waves, by the wavenumber in 1/bohr.

    Without results, a file of an earlier measurement is removed.
    """
    file, several = folder / "momentum_distribution.csv", len(results) > 1
    if not results:
        file.unlink(missing_ok=True)
        return
    with whole_file(file, newline="") as stream:
        writer = csv.writer(stream)
        states = ["rs", "temperature_kelvin"] if several else []
        writer.writerow([*states, "k_per_bohr", "n", "n_error", "multiplicity"])
        for point, found in results:
            state = [point.rs, point.temperature_kelvin] if several else []
            for row in zip(found.k, found.n, found.error, found.multiplicity, strict=True):
                writer.writerow([*state, *map(float, row)])


def _write_curves(file: Path, axis: str, results: Sequence[tuple[StatePoint, Mapping[str, Curve]]]) -> None:
    """A column for each curve and one for its error.

    With several state points the rows of each follow those of the one before, and begin with its rs and temperature.
    """
    several, names = len(results) > 1, list(results[0][1])
    with whole_file(file, newline="") as stream:
        writer = csv.writer(stream)
        columns = [column for name in names for column in (name, f"{name}_error")]
        writer.writerow((["rs", "temperature_kelvin"] if several else []) + [axis, *columns])
        for point, curves in results:
            state = [point.rs, point.temperature_kelvin] if several else []
            for i, place in enumerate(curves[names[0]][0] if names else ()):
                values = [value for name in names for value in (curves[name][1][i], curves[name][2][i])]
                writer.writerow([*state, float(place), *map(float, values)])
