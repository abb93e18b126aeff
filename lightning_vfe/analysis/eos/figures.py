"""Figures of an equation of state: P along isotherms, F along isochores, isentropes, and the Hugoniot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter

from lightning_vfe.analysis.eos.fit import Fit
from lightning_vfe.analysis.eos.hugoniot import GROUND_STATE_LIMIT
from lightning_vfe.analysis.eos.surface import Surface, kelvin_to_kT, volume_per_atom
from lightning_vfe.analysis.published import literature_table
from lightning_vfe.analysis.state_lines import AXIS_LABELS, HOLLOW, math_label
from lightning_vfe.analysis.states import is_hydrogen
from lightning_vfe.analysis.style import BLUE, GREY, ORANGE, VERMILION, house_style, panel_grid, substance
from lightning_vfe.analysis.terms import TERMS
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, KELVIN_TO_HARTREE
from lightning_vfe.resources import resource_folder

POINTS_OF_A_LINE = 60
MOST_LINES = 6
"""Isentropes in a figure at most."""
NEAR = {"rs": 1.05, "temperature_kelvin": 1.2}
"""Published values are shown up to these factors beyond the densities and temperatures of the states."""
LINEAR_GPA = 10.0
"""Up to about here an axis of P is linear, and from here on logarithmic, where P spans decades and may be zero."""
DECADES = 10.0
"""Ratio of the largest P to the smallest, or to LINEAR_GPA, from which on such an axis is used."""
PRESSURE_TICKS = [-1e3, -100, -30, -10, 0, 10, 30, 100, 300, 1e3, 3e3, 1e4, 1e5, 1e6]
LOOKS = {"LRDMC": (GREY, "s"), "CEIMC": (ORANGE, "*")}


def draw_isotherms(fit: Fit, table: pd.DataFrame, system: Mapping[str, Any]) -> Figure:
    """P against rs at each temperature: measured values, the surface, and published values nearby.

    Published values have the colour of their temperature where the states have it, and are grey elsewhere.
    """
    return _draw_lines(fit, table, system, "pressure_gpa", "rs")


def draw_free_energy(fit: Fit, table: pd.DataFrame, system: Mapping[str, Any]) -> Figure:
    """F against T at each density: measured values, the surface, and published values nearby.

    Published values have the colour of their density where the states have it, and are grey elsewhere.
    """
    return _draw_lines(fit, table, system, "free_energy_per_atom", "temperature_kelvin")


def _draw_lines(fit: Fit, table: pd.DataFrame, system: Mapping[str, Any], name: str, axis: str) -> Figure:
    states = [point.state for point in fit.points]
    other = "temperature_kelvin" if axis == "rs" else "rs"
    with house_style():
        figure, (panel,) = panel_grid(1, 1, (5.4, 3.6))
        numbers = sorted({getattr(state, other) for state in states})
        colors = dict(zip(numbers, _colors(len(numbers)), strict=True))
        for number, color in colors.items():
            own = [i for i, state in enumerate(states) if getattr(state, other) == number]
            x = np.array([getattr(states[i], axis) for i in own])
            rows = table.iloc[own]
            _draw_points(panel, x, rows, name, color, math_label(other, number))
            line = np.linspace(x.min(), x.max(), POINTS_OF_A_LINE)
            _draw_curve(panel, fit.surface, line, number, axis, name, color)
        published = _draw_published(panel, table, system, name, axis, colors)
        if name == "pressure_gpa" and table[name].max() > DECADES * max(LINEAR_GPA, abs(table[name].min())):
            panel.set_yscale("asinh", linear_width=LINEAR_GPA)
            panel.yaxis.set_major_locator(FixedLocator(PRESSURE_TICKS))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.set_xlabel(AXIS_LABELS[axis])
        panel.set_ylabel(TERMS[name].axis_unit)
        panel.set_title(TERMS[name].title)
        handles, labels = panel.get_legend_handles_labels()
        # published values come last
        handles, labels = handles[published:] + handles[:published], labels[published:] + labels[:published]
        handles += [HOLLOW] if not table["converged"].all() else []
        labels += ["not converged"] if not table["converged"].all() else []
        figure.legend(handles, labels, loc="outside right upper")
        figure.suptitle(_title(system, fit), x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_isentropes(fit: Fit, system: Mapping[str, Any]) -> Figure:
    """T and P along lines of constant entropy, through the densities of the states at the middle of their T."""
    surface, states = fit.surface, [point.state for point in fit.points]
    kelvins = sorted({state.temperature_kelvin for state in states})
    densities = sorted({state.rs for state in states})
    rs = np.linspace(densities[0], densities[-1], POINTS_OF_A_LINE)
    middle = kelvin_to_kT(math.sqrt(kelvins[0] * kelvins[-1]))
    span = float(kelvin_to_kT(kelvins[0])), float(kelvin_to_kT(kelvins[-1]))
    with house_style():
        figure, axes = panel_grid(2, 2, (3.9, 3.0))
        shown = densities[:: max(1, -(-len(densities) // MOST_LINES))]
        for density, color in zip(shown, _colors(len(shown)), strict=True):
            entropy = float(surface.entropy(volume_per_atom(density), middle))
            kT = surface.isentrope(entropy, volume_per_atom(rs), span)
            label = f"$S = {entropy:.2f}$ $k_\\mathrm{{B}}$/atom"
            axes[0].plot(rs, kT / KELVIN_TO_HARTREE, color=color, label=label)
            pressure = surface.pressure(volume_per_atom(rs), kT) * HARTREE_PER_BOHR3_TO_GPA
            axes[1].plot(rs, pressure, color=color)
        for panel, title, unit in zip(axes, ("$T$ of isentropes", "$P$ of isentropes"), ("K", "GPa"), strict=True):
            panel.set_title(title)
            panel.set_ylabel(unit)
            panel.set_xlabel(AXIS_LABELS["rs"])
        figure.legend(loc="outside right upper")
        figure.suptitle(_title(system, fit), x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_hugoniot(of_surface: pd.DataFrame, of_points: pd.DataFrame, system: Mapping[str, Any]) -> Figure:
    """P against the compression V_0/V: the surface, measured E and P alone, and published points.

    Numbers are temperatures in 1000 K. Hollow marks are beyond the limit of electrons in their ground state: there, E
    and P of the model lack the excitation of electrons.
    """
    published = pd.read_csv(resource_folder("data") / "hugoniot.csv", comment="#")
    with house_style():
        figure, (panel,) = panel_grid(1, 1, (5.4, 3.8))
        for method, (color, marker) in LOOKS.items():
            rows = published[published["method"] == method]
            line = "-" if len(rows) > 1 else ""
            panel.plot(rows["compression"], rows["P"], line, color=color, linewidth=0.9, zorder=1)
            hot = (rows["T_kelvin"] > GROUND_STATE_LIMIT).to_numpy()
            faces = ["white" if beyond else color for beyond in hot]
            panel.scatter(
                rows["compression"], rows["P"], 28, faces, marker=marker, edgecolors=color, label=method, zorder=2
            )
        for table, color, marker, label in (
            (of_surface, BLUE, "o", "surface $F(V,T)$"),
            (of_points, VERMILION, "D", "measured $E$ and $P$"),
        ):
            if table.empty:
                continue
            errors = {"xerr": table["compression_error"], "yerr": table["pressure_gpa_error"]}
            panel.errorbar(table["compression"], table["pressure_gpa"], **errors, fmt="none", ecolor=color, capsize=2)
            faces = [color if cold else "white" for cold in table["ground_state_electrons"]]
            look: dict[str, Any] = {"marker": marker, "edgecolors": color, "label": label, "zorder": 3}
            panel.plot(table["compression"], table["pressure_gpa"], color=color, linewidth=0.9, zorder=2)
            panel.scatter(table["compression"], table["pressure_gpa"], 26, faces, **look)
        of_own = of_surface if of_points.empty else of_points
        theirs = published.rename(columns={"T_kelvin": "temperature_kelvin", "P": "pressure_gpa"})
        _name_temperatures(panel, theirs, GREY, "bottom")
        _name_temperatures(panel, of_own, BLUE if of_points.empty else VERMILION, "top")
        if of_surface.empty and of_points.empty:
            panel.text(0.03, 0.95, "not through the states of the run", transform=panel.transAxes, va="top", color=BLUE)
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("compression $V_0 / V$")
        panel.set_ylabel("$P$ / GPa")
        panel.set_title(
            f"numbers: $T$ / 1000 K; hollow: $T$ > {GROUND_STATE_LIMIT:g} K,\n"
            "where electrons are not in their ground state"
        )
        handles, labels = panel.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
        figure.suptitle(f"{substance(system)},  $N = {system['num_atoms']}$", x=0.01, ha="left", fontsize=10.5)
    return figure


def _name_temperatures(panel: Axes, table: pd.DataFrame, color: Any, side: str) -> None:
    """T in 1000 K beside each point; its bottom or its top is at the height of the point."""
    for row in table.dropna(subset="temperature_kelvin").to_dict("records"):
        place, thousands = (row["compression"], row["pressure_gpa"]), row["temperature_kelvin"] / 1000.0
        look: dict[str, Any] = {"color": color, "fontsize": 7, "ha": "right", "va": side}
        offset = (-4, 2 if side == "bottom" else -2)
        panel.annotate(f"{thousands:g}", place, xytext=offset, textcoords="offset points", **look)


def _draw_points(panel: Axes, x: np.ndarray, rows: pd.DataFrame, name: str, color: Any, label: str) -> None:
    for i, (place, trusted) in enumerate(zip(x, rows["converged"], strict=True)):
        look: dict[str, Any] = {"mfc": color if trusted else "white", "label": label if i == 0 else None}
        values = rows[name].iloc[i], rows[f"{name}_error"].iloc[i]
        panel.errorbar(place, *values, fmt="o", color=color, markersize=4.5, capsize=3, **look)


def _draw_curve(
    panel: Axes, surface: Surface, line: np.ndarray, number: float, axis: str, name: str, color: Any
) -> None:
    """The surface with a band of one standard error."""
    rs, kelvin = (line, number) if axis == "rs" else (number, line)
    place = volume_per_atom(rs), kelvin_to_kT(kelvin)

    def quantity(one: Surface) -> np.ndarray:
        if name == "free_energy_per_atom":
            return one.free_energy(*place)
        return one.pressure(*place) * HARTREE_PER_BOHR3_TO_GPA

    values, errors = quantity(surface), surface.error(quantity)
    panel.plot(line, values, color=color, linewidth=1.0)
    panel.fill_between(line, values - errors, values + errors, color=color, alpha=0.2, linewidth=0)


def _draw_published(
    panel: Axes, table: pd.DataFrame, system: Mapping[str, Any], name: str, axis: str, colors: Mapping[float, Any]
) -> int:
    """Rows of data/literature.csv in and around the range of the states; F holds for hydrogen alone.

    Returns:
        Number of entries in the legend, before those of error bars.
    """
    if name == "free_energy_per_atom" and not is_hydrogen(system):
        return 0
    states = table.index.to_frame()
    rows = literature_table().rename(columns={"T_kelvin": "temperature_kelvin"})
    rows = rows[(rows["temperature_kelvin"] > 0) & rows["P" if name == "pressure_gpa" else "F"].notna()]
    for key, factor in NEAR.items():
        rows = rows[rows[key].between(states[key].min() / factor, states[key].max() * factor)]
    other = "temperature_kelvin" if axis == "rs" else "rs"
    groups = rows.groupby(["method", other])
    for number, ((method, place), own) in enumerate(groups):
        values, label = own["P" if name == "pressure_gpa" else "F"], f"{method}, {math_label(other, place)}"
        color = matplotlib.colors.to_hex(colors.get(place, GREY))
        panel.scatter(own[axis], values, 24, color, marker="sD^v<>ph"[number % 8], label=label, zorder=1)
    return len(groups)


def _colors(count: int) -> Sequence[Any]:
    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(2, count))))[:count]


def _title(system: Mapping[str, Any], fit: Fit) -> str:
    return f"{substance(system)},  $N = {system['num_atoms']}$,  $\\chi^2 = {fit.chi2:.1f}$ for {fit.dof} d.o.f."
