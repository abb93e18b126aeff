"""Runs of one state with several numbers of atoms: F, E and P against 1/N, raw and with finite-size corrections."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightning_vfe.analysis.compare import check_same_state, draw_protons
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.style import BLUE, VERMILION, house_style, panel_grid, substance
from lightning_vfe.analysis.terms import TERMS

EXTRAPOLATED = ("free_energy_per_atom", "energy_per_atom", "pressure_gpa")
"""By their names in summary.json."""
KINDS = {"raw": ("", "without correction", BLUE, "o"), "corrected": ("_corrected", "corrected", VERMILION, "s")}
"""Ending of the columns, legend, colour and marker."""
MIN_SIZES = 3
"""Different N for a fit: two leave no way to see whether the points are on a line."""


def size_table(runs: Mapping[str, RunFolder]) -> pd.DataFrame:
    """A row for each run, the smallest N first: F, E and P as measured, and with the two-body corrections added.

    Args:
        runs: of one system and one state that differ in N, by the names that the table shows.

    Returns:
        num_atoms; NAME, NAME_error, NAME_corrected and NAME_corrected_error for each of EXTRAPOLATED, nan where a run
        does not report it; converged.

    Raises:
        ValueError: the runs are not of one system and one state.
        FileNotFoundError: a run has no summary.json.
    """
    check_same_state(runs, any_size=True)
    rows = []
    for run in runs.values():
        row: dict[str, object] = {"num_atoms": int(run.system["num_atoms"])}
        for name in EXTRAPOLATED:
            value, error = run.result(name)
            shift, shift_error = run.result(f"finite_size_{name}")
            row[name], row[f"{name}_error"] = value, error
            row[f"{name}_corrected"] = value + shift
            # a correction of the plasmon alone has no statistical error
            known = 0.0 if math.isnan(shift_error) else shift_error
            row[f"{name}_corrected_error"] = math.hypot(error, known) if math.isfinite(shift) else math.nan
        rows.append(row | {"converged": bool(run.summary.get("converged", False))})
    table = pd.DataFrame(rows, index=pd.Index(list(runs), name="run"))
    return table.sort_values("num_atoms", kind="stable")


def extrapolate(table: pd.DataFrame) -> pd.DataFrame:
    """Weighted least-squares lines y = y_inf + c / N through raw and corrected values.

    Args:
        table: of `size_table`, or any table with its columns; values without an error are left out.

    Returns:
        A row for each quantity and each of raw and corrected that at least three different N have: value y_inf, error,
        slope c, slope_error, chi2_per_dof and num_sizes. The errors are those of the points alone: where chi2_per_dof
        is far above 1, the points are not on a line, and the error of the value is too small.
    """
    found = {}
    for name in EXTRAPOLATED:
        for kind, (ending, *_) in KINDS.items():
            if f"{name}{ending}" not in table:
                continue
            value, error = (table[f"{name}{ending}{part}"].to_numpy(dtype=float) for part in ("", "_error"))
            good = np.isfinite(value) & (error > 0)
            inverse = 1.0 / table["num_atoms"].to_numpy(dtype=float)[good]
            sizes = len(set(inverse))
            if sizes >= MIN_SIZES:
                found[name, kind] = {**_line(inverse, value[good], error[good]), "num_sizes": sizes}
    index = pd.MultiIndex.from_tuples(list(found), names=["term", "kind"])
    columns = ["value", "error", "slope", "slope_error", "chi2_per_dof", "num_sizes"]
    return pd.DataFrame(list(found.values()), index=index, columns=columns)


def _line(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Weighted fit of a line."""
    design = np.stack([np.ones_like(x), x], axis=1)
    covariance = np.linalg.inv(design.T @ (design / error[:, None] ** 2))
    value, slope = covariance @ design.T @ (y / error**2)
    chi2 = float((((y - value - slope * x) / error) ** 2).sum())
    errors = np.sqrt(np.diag(covariance))
    fit = {"value": value, "error": errors[0], "slope": slope, "slope_error": errors[1]}
    return {name: float(number) for name, number in fit.items()} | {"chi2_per_dof": chi2 / (len(x) - 2)}


def draw_sizes(runs: Mapping[str, RunFolder]) -> Figure:
    """F, E and P against 1/N with one standard error: raw, corrected, and the lines of `extrapolate`.

    A star is the value of a line at 1/N = 0. A hollow mark means that the run does not trust the number. The last panel
    has g(r) of the protons of all runs that have one.
    """
    table = size_table(runs)
    pairs = {label: run for label, run in runs.items() if (run.folder / "pair_correlation.csv").is_file()}
    lines, inverse = extrapolate(table), 1.0 / table["num_atoms"]
    first = next(iter(runs.values()))
    with house_style():
        figure, axes = panel_grid(len(EXTRAPOLATED) + bool(pairs), 2, (4.6, 2.8))
        for panel, name in zip(axes, EXTRAPOLATED, strict=False):
            for kind, (ending, label, color, marker) in KINDS.items():
                values, errors = table[f"{name}{ending}"], table[f"{name}{ending}_error"]
                if values.notna().any():
                    panel.errorbar(inverse, values, errors, fmt="none", ecolor=color, capsize=3)
                    faces = [color if trusted else "white" for trusted in table["converged"]]
                    panel.scatter(inverse, values, s=22, marker=marker, c=faces, edgecolors=color, label=label)
                if (name, kind) in lines.index:
                    fit, x = lines.loc[(name, kind)], np.array([0.0, inverse.max()])
                    panel.plot(x, fit["value"] + fit["slope"] * x, color=color, linewidth=1.0)
                    panel.errorbar(0.0, fit["value"], fit["error"], fmt="*", color=color, markersize=8, capsize=3)
            panel.set_title(TERMS[name].title)
            panel.set_ylabel(TERMS[name].axis_unit)
            panel.set_xlabel("$1/N$")
            panel.set_xlim(-0.04 * inverse.max(), 1.05 * inverse.max())
        axes[0].legend(fontsize=7.5)
        if pairs:
            draw_protons(axes[-1], pairs, list(runs))
        title = f"{substance(first.system)},  $r_s = {first.system['rs']:g}$"
        title += f",  $T = {first.system.get('temperature_kelvin', 0.0):g}$ K"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    return figure
