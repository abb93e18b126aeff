"""What the error of a term consists of."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.training.variational.metrics import base_errors, unreached_shifts

Budget = dict[str, dict[str, float]]
"""By term, then by cause: `statistical`, `log_z` and `unreached_fraction`, in the unit of the term."""
BUDGETED = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
CAUSES = {"statistical": "statistical", "log_z": "ln Z of the base", "unreached_fraction": "unreached fraction"}


def error_budget(
    statistical: Mapping[str, Estimate], base_error: float, fraction: float, kT: float, num_atoms: int
) -> Budget:
    """The independent parts of the error of F, E, S and P: the error is the root of the sum of their squares.

    Args:
        statistical: estimates with the scatter of the samples alone, per atom.
        base_error: standard error of -kT ln Z_ML per atom, in Ha.
        fraction: of the base protons that the map does not reach.
        kT: in Ha.
        num_atoms: N.
    """
    of_base = base_errors(base_error, kT) if base_error else {}
    of_map = unreached_shifts(fraction, kT, num_atoms) if fraction else {}
    return {
        name: {
            "statistical": statistical[name].error,
            "log_z": of_base.get(name, 0.0),
            "unreached_fraction": abs(of_map.get(name, 0.0)),
        }
        for name in BUDGETED
        if name in statistical
    }
