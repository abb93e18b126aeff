"""From tested runs over state points to an equation of state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lightning_vfe.analysis.eos.figures import draw_free_energy, draw_hugoniot, draw_isentropes, draw_isotherms
from lightning_vfe.analysis.eos.fit import Fit, fit_surface
from lightning_vfe.analysis.eos.hugoniot import InitialState, hugoniot_of_points, hugoniot_of_surface
from lightning_vfe.analysis.eos.points import Point, collect
from lightning_vfe.analysis.eos.surface import Surface
from lightning_vfe.analysis.eos.tables import (
    finite_size_lines,
    fit_summary,
    gaps,
    hugoniot_lines,
    remarks,
    state_table,
)
from lightning_vfe.analysis.figures import FILE_DPI
from lightning_vfe.analysis.run import load_run
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.files import whole_file, write_json
from lightning_vfe.physics.system import System
from lightning_vfe.resources import data_folder, is_shipped
from lightning_vfe.workflows.eos_log_z import with_shared_errors

SEVERAL_RUNS = Path("runs/eos")
"""Where the files of several runs go."""
TEMPERATURES = 9
"""At least so many temperatures of the Hugoniot of the surface."""


@dataclass(frozen=True)
class EquationOfState:
    """What follows from the results at several states.

    Attributes:
        table: a row for each state, see `analysis.eos.tables.state_table`.
        surface: F(V, T) with its derivatives and their errors.
        fit: the least-squares fit: chi2, dof.
        hugoniot: of the surface, see `analysis.eos.hugoniot`; empty where it does not run through the states.
        measured_hugoniot: of measured E and P alone.
        remarks: a line for each state that does not fit or is not to be trusted, for gaps in the grid, for errors that
            lack a truncation error, and for each run whose errors of ln Z cannot be joined.
        figures: by name.
        files: where each is stored; empty where they are not.
    """

    table: pd.DataFrame
    surface: Surface
    fit: Fit
    hugoniot: pd.DataFrame
    measured_hugoniot: pd.DataFrame
    remarks: list[str]
    figures: Mapping[str, Figure]
    files: Mapping[str, Path] = field(default_factory=dict)


def eos(
    runs: Sequence[str | Path],
    start: InitialState | None = None,
    run_dir: str | Path | None = None,
    finite_size: bool = False,
) -> EquationOfState:
    """Fit one surface F(V, T) to F, E and P of all states of tested runs, and derive the Hugoniot and other results.

    Args:
        runs: folders of tested runs of one N, nucleus and base.
        start: E_0, V_0 and P_0 of the Hugoniot; None takes those of liquid deuterium.
        run_dir: folder of eos.csv, eos_surface.json, hugoniot.csv and figures; None writes nothing.
        finite_size: add the two-body finite-size corrections to F, E and P of every state, see docs/theory.md.

    Raises:
        CommandError: no run, one that is not tested or lacks a state, runs that do not belong together, one state.
    """
    start = InitialState.of() if start is None else start
    try:
        found = [load_run(folder) for folder in runs]
        points, independent = with_shared_errors(collect(found, finite_size), found)
        system = found[0].system if found else {}
        particles = System(int(system["num_atoms"]), system.get("nucleus", "H"))
        fit = fit_surface(points, particles.num_atoms, particles.nuclear_mass)
    except SettingError:
        raise
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    table = state_table(fit)
    hugoniot = hugoniot_of_surface(fit.surface, start, _temperatures(points), _densities(points))
    measured = hugoniot_of_points(points, start)
    figures = {
        "eos_isotherms": draw_isotherms(fit, table, system),
        "eos_free_energy": draw_free_energy(fit, table, system),
        "eos_isentropes": draw_isentropes(fit, system),
        "eos_hugoniot": draw_hugoniot(hugoniot, measured, system),
    }
    lines = [*remarks(table), *gaps(points), *hugoniot_lines(measured), *independent]
    if finite_size:
        lines += finite_size_lines(points, particles.num_atoms)
    result = EquationOfState(table, fit.surface, fit, hugoniot, measured, lines, figures)
    return result if run_dir is None else _stored(result, Path(run_dir))


def home_of(runs: Sequence[str | Path], run_dir: str | Path | None) -> Path:
    """Folder of the files: the given one, that of the only run, or runs/eos; nothing is written beside shipped data."""
    if run_dir is not None:
        return Path(run_dir)
    only = data_folder(str(runs[0])) if len(runs) == 1 else SEVERAL_RUNS
    return SEVERAL_RUNS if is_shipped(only) else only


def _temperatures(points: Sequence[Point]) -> list[float]:
    """Those of the states, and some between them."""
    own = sorted({point.state.temperature_kelvin for point in points})
    return sorted({*own, *(float(kelvin) for kelvin in np.linspace(own[0], own[-1], TEMPERATURES))})


def _densities(points: Sequence[Point]) -> tuple[float, float]:
    own = [point.state.rs for point in points]
    return min(own), max(own)


def _stored(result: EquationOfState, home: Path) -> EquationOfState:
    (home / "figures").mkdir(parents=True, exist_ok=True)
    files = {"table": home / "eos.csv", "surface": home / "eos_surface.json", "hugoniot": home / "hugoniot.csv"}
    rows = {"surface": result.hugoniot, "measured": result.measured_hugoniot}
    for file, content, index in (
        (files["table"], result.table, True),
        (files["hugoniot"], pd.concat(rows, names=["source"]).reset_index("source"), False),
    ):
        with whole_file(file, newline="") as stream:
            content.to_csv(stream, index=index)
    write_json(files["surface"], fit_summary(result.fit))
    for name, figure in result.figures.items():
        files[name] = home / "figures" / f"{name}.png"
        figure.savefig(files[name], dpi=FILE_DPI)
    return EquationOfState(**{**result.__dict__, "files": files})
