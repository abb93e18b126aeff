"""S(k) that `test` measured."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_lines import Look, StateLooks
from lightning_vfe.analysis.state_measurements import draw_pairs
from lightning_vfe.analysis.states import GROUND_STATES
from lightning_vfe.analysis.style import BLUE, GREY, VERMILION, heading, house_style, panel_grid
from lightning_vfe.physics.electron_gas import plasma_frequency

PANELS = {
    "proton_proton": ("protons", 1.0),
    "electron_electron": ("electrons", 1.0),
    "electron_proton": ("electrons with protons", 0.0),
    "charge_charge": ("charge", 2.0),
    "electron_fluctuation": ("electrons at given protons", 1.0),
}
"""Title, and the value without any correlation."""


def draw_structure_factor(run: RunFolder) -> Figure:
    """S(k) with one standard error on the shells of the reciprocal lattice; dashed: without correlation.

    The red line is k^2 / (2 omega_p), the small-k limit for plasmons. With several states each has a line of its own.
    S(k) of the protons is left out where they are fixed.

    Raises:
        FileNotFoundError: `test` has not run.
        ValueError: structure_factor.csv has no kind, or lacks a state.
    """
    is_fixed, views = run.system.get("protons") in GROUND_STATES, run.views
    looks = StateLooks(run.states) if len(views) > 1 else None
    tables = [view.structure_factor for view in views]
    names = [name for name in PANELS if name in tables[0] and not (is_fixed and name == "proton_proton")]
    if not names:
        raise ValueError(f"{run.folder / 'structure_factor.csv'} has no S(k); run lightning-vfe test again")
    with house_style():
        figure, axes = panel_grid(len(names), 3, (3.7, 2.6))
        for panel, name in zip(axes, names, strict=True):
            title, without = PANELS[name]
            panel.axhline(without, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
            for view, table in zip(views, tables, strict=True):
                look = looks.of(view.states[0]) if looks else Look(BLUE)
                draw_pairs(panel, table, name, look)
                panel.plot(table.index, table[name], "o", color=look.color, markersize=3.0)
            bottom, top = panel.get_ylim()
            if name == "electron_fluctuation" and not looks and "rs" in run.system:
                s = np.linspace(0.0, 1.0, 50) ** 2
                k = np.sqrt(2.0 * plasma_frequency(run.system["rs"]) * s)
                line = panel.plot(k, s, color=VERMILION, linewidth=1.0)
                panel.legend(line, [r"plasmons, $k^2 / (2 \omega_\mathrm{p})$"], loc="lower right")
            panel.set_ylim(min(0.0, bottom), max(top, 1.1 * without))
            panel.set_xlim(0.0, 1.03 * max(table.index[-1] for table in tables))
            panel.set_title(title)
            panel.set_xlabel("wavenumber $k$ / bohr$^{-1}$")
            panel.set_ylabel("$S(k)$")
        if looks:
            looks.add_key(figure, axes)
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
    return figure
