"""The files of a result: summary.json and pair_correlation.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_vfe.files import CHECKSUM, checksum, whole_file, write_json
from lightning_vfe.physics.observables import RadialDistribution
from lightning_vfe.physics.state_point import StatePoint


def write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """summary.json, the results of a run: each term as {"value":, "error":}, diagnostics, converged and reasons.

    The checksum in it shows whether it has changed since.
    """
    write_json(folder / "summary.json", {**content, CHECKSUM: checksum(content)})


def write_pair_correlation(folder: Path, results: Sequence[tuple[StatePoint, dict[str, RadialDistribution]]]) -> None:
    """pair_correlation.csv: g(r) of all kinds of pairs, each with its error, by the distance in bohr.

    With several state points the rows of each follow those of the one before, and begin with its rs and temperature.
    """
    several = len(results) > 1
    with whole_file(folder / "pair_correlation.csv", newline="") as stream:
        writer = csv.writer(stream)
        names = list(results[0][1])
        columns = [column for name in names for column in (name, f"{name}_error")]
        writer.writerow((["rs", "temperature_kelvin"] if several else []) + ["r_bohr", *columns])
        for point, radial in results:
            state = [point.rs, point.temperature_kelvin] if several else []
            for i, r in enumerate(radial[names[0]].r if names else ()):
                values = [value for name in names for value in (radial[name].g[i], radial[name].error[i])]
                writer.writerow([*state, float(r), *map(float, values)])
