"""n(k) of the electrons that `test` measured."""

from __future__ import annotations

from matplotlib.figure import Figure

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.state_lines import Look, StateLooks
from lightning_vfe.analysis.style import BLUE, GREY, heading, house_style, panel_grid
from lightning_vfe.physics.electron_gas import fermi_wavenumber


def draw_momentum_distribution(run: RunFolder) -> Figure:
    """n(k) with one standard error against k / k_F; dashed: free electrons of an infinite cell.

    With several states each has a line of its own.

    Raises:
        FileNotFoundError: `test` has not run, or did not measure n(k).
        ValueError: momentum_distribution.csv lacks a state.
    """
    views = run.views
    looks = StateLooks(run.states) if len(views) > 1 else None
    with house_style():
        figure, (panel,) = panel_grid(1, 1, (5.2, 3.2))
        free = panel.plot([0.0, 1.0, 1.0, 3.0], [1.0, 1.0, 0.0, 0.0], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        panel.legend(free, ["free electrons, infinite cell"], loc="upper right")
        for view in views:
            table, look = view.momentum_distribution, looks.of(view.states[0]) if looks else Look(BLUE)
            k = table.index / fermi_wavenumber(view.states[0].rs)
            panel.plot(k, table["n"], color=look.color, linestyle=look.dashes, linewidth=1.0, alpha=0.4)
            panel.errorbar(k, table["n"], table["n_error"], color=look.color, fmt="o", markersize=2.8, elinewidth=0.8)
        panel.set_xlim(0.0, 3.0)
        panel.set_xlabel(r"wavenumber $k / k_\mathrm{F}$")
        panel.set_ylabel("$n(k)$")
        if looks:
            looks.add_key(figure, [panel])
        figure.suptitle(heading(run), x=0.01, ha="left", fontsize=10.5)
    return figure
