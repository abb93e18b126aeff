"""The result of `test`: values with errors, diagnostics, and whether to trust them."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.physics.observables import RadialDistribution
from lightning_vfe.physics.statistics import Estimate

NEEDS_INVERTIBLE_MAP = ("free_energy_per_atom", "entropy_per_atom")
SIGNS_OF_A_BROKEN_MAP = ("negative_determinants", "num_failed_inversions")
MAX_R_HAT = 1.05
MIN_EFFECTIVE_SAMPLES = 100.0
MAX_ELECTRON_DRIFT = 0.05


@dataclass
class Summary:
    """Everything that `test` found.

    Attributes:
        system: what was computed.
        step: optimizer steps of the measured parameters.
        estimates: every term with its error.
        diagnostics: of chains and estimators.
        radial: g(r) of all kinds of pairs.
        reasons: why the numbers are not to be trusted; empty if they are.
    """

    system: dict[str, Any]
    step: int
    estimates: dict[str, Estimate]
    diagnostics: dict[str, float]
    radial: dict[str, RadialDistribution]
    reasons: list[str] = field(init=False)

    def __post_init__(self) -> None:
        energy, free_energy = self.estimates["energy_per_atom"], self.estimates["free_energy_per_atom"]
        self.diagnostics |= {
            "r_hat": max(energy.r_hat, free_energy.r_hat),
            "autocorrelation_time": max(energy.autocorrelation_time, free_energy.autocorrelation_time),
            "effective_sample_size": min(energy.effective_sample_size, free_energy.effective_sample_size),
        }
        self.reasons = self._reasons()

    def _reasons(self) -> list[str]:
        found, given = [], self.diagnostics
        if not given["r_hat"] <= MAX_R_HAT:
            found.append(
                f"R-hat = {given['r_hat']:.3f} is above {MAX_R_HAT}: the chains have not equilibrated; "
                "raise datamodule.equilibration_steps and datamodule.test_steps"
            )
        if not given["effective_sample_size"] >= MIN_EFFECTIVE_SAMPLES:
            found.append(
                f"only {given['effective_sample_size']:.0f} effective samples (at least {MIN_EFFECTIVE_SAMPLES:.0f} "
                "are wanted); raise datamodule.test_steps"
            )
        if given.get("negative_determinants", 0.0) > 0.0:
            found.append(
                f"det dz/dx is negative for a fraction {given['negative_determinants']:.2e} of the samples: the map "
                "folds, p(x) is not normalised and F and S are not reported; lower "
                "optimizer.flow_max_norm (with optimizer=adam flow_learning_rate) and start again"
            )
        if given.get("num_failed_inversions", 0.0) > 0.0:
            found.append(
                f"the flow could not be inverted for {given['num_failed_inversions']:.2g} walkers a sweep: they stayed "
                "where they were: F and S would be biased and are not reported; measure with "
                "sampler.proton_sampling=delayed sampler.num_proton_steps=20"
            )
        if given["num_stranded"] > 0.0:
            found.append("chains stand where the density is zero or not finite; start from another system.structure")
        if abs(given["electron_drift"]) > max(MAX_ELECTRON_DRIFT, 4.0 * given["electron_drift_error"]):
            found.append(
                "the electrons have not settled around the moved protons "
                f"(drift of ln|psi|^2 = {given['electron_drift']:.3f}); "
                "raise sampler.num_electron_steps"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """What summary.json holds: {"value":, "error":} for each term, diagnostics, converged, reasons."""
        refused = any(self.diagnostics.get(name, 0.0) > 0.0 for name in SIGNS_OF_A_BROKEN_MAP)
        content: dict[str, Any] = {"system": self.system, "step": self.step}
        for name, estimate in self.estimates.items():
            if refused and name in NEEDS_INVERTIBLE_MAP:
                content[name] = {"value": None, "error": None}
            else:
                content[name] = {"value": _plain(estimate.value), "error": _plain(estimate.error)}
        content["diagnostics"] = {name: _plain(value) for name, value in self.diagnostics.items()}
        content["converged"] = not self.reasons
        content["reasons"] = self.reasons
        return content

    def write(self, folder: Path) -> None:
        """summary.json and pair_correlation.csv."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n")
        write_pair_correlation(folder, self.radial)

    def print(self) -> None:
        """The table, the diagnostics and the verdict."""
        console = Console()
        content = self.as_dict()
        table = Table(title=f"after {self.step} steps; errors are one standard error")
        for heading, side in (("quantity", "left"), ("value", "right"), ("error", "right"), ("unit", "left")):
            table.add_column(heading, justify=side)  # type: ignore[arg-type]
        for name, term in TERMS.items():
            if name in content:
                value, error = content[name]["value"], content[name]["error"]
                digits = 2 if name == "pressure_gpa" else 5
                cells = ["-" if x is None else f"{x:.{digits}f}" for x in (value, error)]
                table.add_row(term.plain_title, *cells, term.unit)
        console.print(table)
        shown = Table(title="diagnostics")
        shown.add_column("what")
        shown.add_column("value", justify="right")
        for name, value in self.diagnostics.items():
            shown.add_row(name, f"{value:.4g}")
        console.print(shown)
        if not self.reasons:
            console.print("converged")
        for reason in self.reasons:
            console.print(f"NOT CONVERGED: {reason}", style="bold red", soft_wrap=True)


def _plain(value: float) -> float | None:
    """JSON knows no nan."""
    return float(value) if math.isfinite(value) else None


def write_pair_correlation(folder: Path, radial: dict[str, RadialDistribution]) -> None:
    """pair_correlation.csv: g(r) of all kinds of pairs, each with its error, by the distance in bohr."""
    with (folder / "pair_correlation.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        names = list(radial)
        writer.writerow(["r_bohr"] + [column for name in names for column in (name, f"{name}_error")])
        for i, r in enumerate(radial[names[0]].r if names else ()):
            values = [value for name in names for value in (radial[name].g[i], radial[name].error[i])]
            writer.writerow([float(r), *map(float, values)])
