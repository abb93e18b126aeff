"""An equation of state that is known in closed form, as the results of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, KELVIN_TO_HARTREE, PROTON_MASS

ATTRACTION = 0.3
"""a in Ha bohr^3 of F = F_ideal - a/v, which adds -a/v^2 to P and -a/v to E."""
ERRORS = (3e-4, 3e-4, 1.0)
"""Of F and E in Ha and P in GPa."""
CORRELATION = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]])


def exact(num_atoms: int, rs: float, kelvin: float, attraction: float = ATTRACTION) -> np.ndarray:
    """F and E in Ha per atom, P in GPa, of N free protons with the energy -a/v."""
    volume, kT = 4.0 * math.pi / 3.0 * rs**3, KELVIN_TO_HARTREE * kelvin
    wavelength = math.sqrt(2.0 * math.pi / (PROTON_MASS * kT))
    ideal = kT * (math.lgamma(num_atoms + 1) / num_atoms - math.log(num_atoms * volume) + 3.0 * math.log(wavelength))
    pressure = kT / volume - attraction / volume**2
    return np.array([ideal - attraction / volume, 1.5 * kT - attraction / volume, pressure * HARTREE_PER_BOHR3_TO_GPA])


def write_gas(
    folder: Path,
    rs: Sequence[float],
    kelvins: Sequence[float],
    seed: int | None = None,
    wrong: dict[tuple[float, float], tuple[float, float, float]] | None = None,
    num_atoms: int = 8,
    nucleus: str = "H",
) -> Path:
    """The summary.json of a run over a grid of states.

    Args:
        folder: made anew.
        rs: densities.
        kelvins: temperatures.
        seed: of errors that are added to F, E and P with the stated covariance; None adds none.
        wrong: what else is added at single states, in units of the errors.
        num_atoms: N.
        nucleus: of the system.
    """
    folder.mkdir(parents=True)
    random = None if seed is None else np.random.default_rng(seed)
    entries = []
    for density in rs:
        for kelvin in kelvins:
            values = exact(num_atoms, density, kelvin)
            if random is not None:
                values = values + np.linalg.cholesky(CORRELATION) @ random.normal(size=3) * ERRORS
            values = values + np.array((wrong or {}).get((density, kelvin), (0.0, 0.0, 0.0))) * ERRORS
            names = ("free_energy_per_atom", "energy_per_atom", "pressure_gpa")
            terms = {n: {"value": v, "error": e} for n, v, e in zip(names, values.tolist(), ERRORS, strict=True)}
            correlations = {"terms": list(names), "matrix": CORRELATION.tolist()}
            entries.append({"rs": density, "temperature_kelvin": kelvin} | terms | {"correlations": correlations})
            entries[-1] |= {"converged": True, "reasons": [], "diagnostics": {}}
    system = {"num_atoms": num_atoms, "nucleus": nucleus, "protons": "sampled"}
    content = {"system": system, "states": entries, "converged": True, "reasons": []}
    (folder / "summary.json").write_text(json.dumps(content))
    return folder
