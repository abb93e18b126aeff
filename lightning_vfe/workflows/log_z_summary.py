"""summary.json of `log-z`: F, E, S and P of classical protons in a potential, as `test` writes those of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.log_z.classical import ClassicalSamples
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.physics.system import System
from lightning_vfe.training.variational.diagnostics import MAX_R_HAT
from lightning_vfe.training.variational.metrics import CORRELATED
from lightning_vfe.training.variational.summary_files import write_summary


@dataclass(frozen=True)
class ClassicalResult:
    """Classical protons in a potential at one state point.

    Attributes:
        point: the state point.
        terms: F, and where they were measured E, S and P, by the names of summary.json.
        free_energy_error: of F per atom in Ha, all of it by ln Z.
        samples: what the chains saw; None where there are none.
    """

    point: StatePoint
    terms: Mapping[str, Estimate]
    free_energy_error: float
    samples: ClassicalSamples | None = field(default=None, repr=False)

    @property
    def reasons(self) -> list[str]:
        """Why E, S and P are not to be trusted."""
        if "energy_per_atom" not in self.terms:
            return []
        r_hat = self.terms["energy_per_atom"].r_hat
        if math.isnan(r_hat):
            return ["too few samples for R-hat and errors: raise num_samples, to at least 4"]
        return [f"R-hat = {r_hat:.3f} is above {MAX_R_HAT}: raise num_samples"] if r_hat > MAX_R_HAT else []

    def entries(self) -> dict[str, Any]:
        """Values, the parts of their errors, correlations and diagnostics."""
        found: dict[str, Any] = {name: {"value": term.value, "error": term.error} for name, term in self.terms.items()}
        budget = {"free_energy_per_atom": {"statistical": 0.0, "log_z": self.free_energy_error}}
        if "energy_per_atom" not in self.terms:
            return found | {"error_budget": budget, "diagnostics": {}}
        energy, pressure = self.terms["energy_per_atom"], self.terms["pressure_gpa"]
        budget |= {
            "energy_per_atom": {"statistical": energy.error, "log_z": 0.0},
            "entropy_per_atom": {
                "statistical": energy.error / self.point.kT,
                "log_z": self.free_energy_error / self.point.kT,
            },
            "pressure_gpa": {"statistical": pressure.error, "log_z": 0.0},
        }
        diagnostics = {
            "r_hat": energy.r_hat,
            "autocorrelation_time": energy.autocorrelation_time,
            "effective_sample_size": energy.effective_sample_size,
        }
        return found | {"error_budget": budget} | self._correlations() | {"diagnostics": diagnostics}

    def _correlations(self) -> dict[str, Any]:
        """E and P come from the same samples, F comes from others."""
        if self.samples is None or self.samples.energy.numel() < 3:
            return {}
        pairs = np.stack([self.samples.energy.cpu().numpy().ravel(), self.samples.pressure.cpu().numpy().ravel()])
        shared = float(np.nan_to_num(np.corrcoef(pairs)[0, 1]))
        matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, shared], [0.0, shared, 1.0]]
        return {"correlations": {"terms": list(CORRELATED), "matrix": matrix}}


def write_log_z_summary(
    folder: Path,
    system: System,
    results: Sequence[ClassicalResult],
    reasons: Sequence[str],
    potential: str,
    diagnostics: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """summary.json, with `states` where there are several.

    Args:
        folder: of the run.
        system: the protons.
        results: of each state point.
        reasons: why ln Z is not to be trusted.
        potential: its file.
        diagnostics: of the integration.
        provenance: which command of which version found it when.
    """
    several = len(results) > 1
    described: dict[str, Any] = {"num_atoms": system.num_atoms, "nucleus": system.nucleus, "protons": "sampled"}
    places = [{"rs": each.point.rs, "temperature_kelvin": each.point.temperature_kelvin} for each in results]
    own = [f"{each.point}: {reason}" if several else reason for each in results for reason in each.reasons]
    verdict = {"converged": not (own or reasons), "reasons": [*reasons, *own]}
    units = {"units": {name: TERMS[name].unit for name in results[0].terms}}
    content: dict[str, Any]
    if several:
        described["states"] = [list(place.values()) for place in places]
        states = [
            place | each.entries() | {"converged": not (each.reasons or reasons), "reasons": each.reasons}
            for place, each in zip(places, results, strict=True)
        ]
        content = {"states": states, "diagnostics": dict(diagnostics)}
    else:
        content = results[0].entries()
        content["diagnostics"] = dict(diagnostics) | content["diagnostics"]
        described |= places[0]
    head = {"system": described, "potential": potential}
    write_summary(folder, head | content | verdict | units | {"provenance": dict(provenance)})
