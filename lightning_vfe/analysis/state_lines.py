"""How a figure tells states apart: colours, dashes, what stands in its legend, and the axis along the states."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.states import State
from lightning_vfe.analysis.style import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
"""One for each line; more lines than these take their colours from a map."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
AXIS_LABELS = {"rs": "$r_s$ / bohr", "temperature_kelvin": "$T$ / K"}


class Look(NamedTuple):
    """How a line is drawn."""

    color: str
    dashes: Any = "-"


class StateLooks:
    """The look of each state's line.

    Up to five states differ by colour. More take the colour of their density, and the dashes of their temperature where
    several share a density.

    If there are more than four temperatures but at most four densities, colour and dashes change places. With more than
    four of both, all lines are solid and the colour tells the density alone.

    Args:
        states: of the figure.
    """

    def __init__(self, states: Sequence[State]) -> None:
        self.states = states
        self.coordinate = state_axis(states)
        numbers = {key: sorted({getattr(state, key) for state in states}) for key in AXIS_LABELS}
        if len(numbers["temperature_kelvin"]) > len(DASHES) >= len(numbers["rs"]):
            self.coordinate = "temperature_kelvin"
        self.has_bar = len(states) > len(COLORS)
        self._dashed = _other(self.coordinate)
        self._numbers = numbers[self._dashed]
        is_unique = len(numbers[self.coordinate]) == len(states)
        self._has_dashes = self.has_bar and not is_unique and 1 < len(self._numbers) <= len(DASHES)
        self._map = ColorScale(numbers[self.coordinate])

    def of(self, state: State) -> Look:
        """The look of a state's line."""
        if not self.has_bar:
            return Look(COLORS[list(self.states).index(state)])
        dashes = DASHES[self._numbers.index(getattr(state, self._dashed))] if self._has_dashes else "-"
        return Look(self._map.color(getattr(state, self.coordinate)), dashes)

    def add_key(self, figure: Figure, axes: Sequence[Axes], handles: Sequence[Any] = ()) -> None:
        """Legend or colour bar of the states right of the panels; further handles stand below them."""
        rows = [list(handles), []]
        if self.has_bar:
            self._map.add_bar(figure, axes, AXIS_LABELS[self.coordinate])
            for dashes, number in zip(DASHES, self._numbers if self._has_dashes else (), strict=False):
                label = math_label(self._dashed, number)
                rows[1].append(Line2D([], [], color="#333333", linestyle=dashes, label=label))
        else:
            lines = [Line2D([], [], color=self.of(state).color, label=self.label(state)) for state in self.states]
            figure.legend(handles=lines, loc="outside right center")
        if any(rows):
            # matplotlib fills columns first; a blank keeps the rows apart
            rows = [row for row in rows if row]
            blank = Line2D([], [], linestyle="", label=" ")
            below = [handle for column in zip_longest(*rows, fillvalue=blank) for handle in column]
            figure.legend(handles=below, loc="outside lower center", ncols=max(map(len, rows)))

    def label(self, state: State) -> str:
        """What tells a state from the others, in matplotlib's math notation."""
        differ = [key for key in AXIS_LABELS if len({getattr(other, key) for other in self.states}) > 1]
        return ", ".join(math_label(key, getattr(state, key)) for key in differ or ["rs"])


class ColorScale:
    """Colours of numbers that lie close together or far apart.

    They run from dark blue through green to a yellow that shows on white.

    Args:
        numbers: to be coloured.
    """

    def __init__(self, numbers: Sequence[float]) -> None:
        viridis = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, 256))
        self._numbers = sorted(set(numbers))
        self._scale = Normalize(self._numbers[0], self._numbers[-1])
        self._map = LinearSegmentedColormap.from_list("states", [to_hex(color) for color in viridis])

    def color(self, number: float) -> str:
        """Its colour."""
        return to_hex(self._map(float(self._scale(number))))

    def add_bar(self, figure: Figure, axes: Sequence[Axes], label: str) -> None:
        """The colour bar, right of the panels, with a tick at each number unless they are many or crowded."""
        bar = figure.colorbar(ScalarMappable(self._scale, self._map), ax=list(axes), label=label, aspect=40, pad=0.02)
        if are_apart(self._numbers, 12, 0.05):
            bar.set_ticks(self._numbers, labels=[f"{number:g}" for number in self._numbers])


def state_axis(states: Sequence[State]) -> str:
    """The coordinate along which the states are drawn: `rs`, or `temperature_kelvin` where all have one density."""
    return "rs" if len({state.rs for state in states}) > 1 else "temperature_kelvin"


def are_apart(numbers: Sequence[float], most: int, gap: float) -> bool:
    """Whether an axis has room for a tick at each number.

    Args:
        numbers: rising.
        most: number of ticks.
        gap: least distance of two as a part of the whole.
    """
    return 1 < len(numbers) <= most and bool(np.diff(numbers).min() >= gap * (numbers[-1] - numbers[0]))


def math_label(key: str, number: float) -> str:
    """A density or a temperature in matplotlib's math notation."""
    return f"$r_s = {number:g}$" if key == "rs" else f"$T = {number:g}$ K"


class StateGroups:
    """The lines along a coordinate of the states: at each value of the other coordinate those states that have it.

    Where no two states share it, as along an isentrope, all of them are one line (`is_path`).

    Args:
        states: of the figure.
    """

    def __init__(self, states: Sequence[State]) -> None:
        self.states = states
        self.coordinate = state_axis(states)
        self.other = _other(self.coordinate)
        numbers = [getattr(state, self.other) for state in states]
        self.numbers = sorted(set(numbers))
        order = sorted(range(len(states)), key=lambda place: getattr(states[place], self.coordinate))
        self.places = {number: [place for place in order if numbers[place] == number] for number in self.numbers}
        self.is_path = 1 < len(self.numbers) == len(states)
        self.path = order
        self._scale = ColorScale(self.numbers) if len(self.numbers) > len(COLORS) else None

    def color(self, number: float) -> str:
        """Colour of the line at a value of the other coordinate."""
        return self._scale.color(number) if self._scale else COLORS[self.numbers.index(number)]

    def draw(
        self,
        panel: Axes,
        values: Sequence[float],
        errors: Sequence[float],
        trusted: Sequence[bool],
        look: Look | None = None,
    ) -> None:
        """Marks with error bars, joined by thin lines; hollow where the run does not trust the number.

        Args:
            panel: drawn into.
            values: one for each state; nan is left out.
            errors: one standard error each.
            trusted: whether a number is converged.
            look: of all lines alike, with the dashes of each; None takes the colour of each.
        """
        x = [getattr(state, self.coordinate) for state in self.states]
        if self.is_path:
            known = [place for place in self.path if np.isfinite(values[place])]
            line = Look(GREY) if look is None else look
            panel.plot([x[i] for i in known], [values[i] for i in known], color=line.color, linewidth=0.9)
        for number, places in self.places.items():
            color = look.color if look else self.color(number)
            known = [place for place in places if np.isfinite(values[place])]
            dashes = self.dashes(number) if look else "-"
            panel.plot([x[i] for i in known], [values[i] for i in known], color=color, linestyle=dashes, linewidth=0.9)
            for i in known:
                error, fill = float(np.nan_to_num(errors[i])), color if trusted[i] else "white"
                panel.errorbar(x[i], values[i], error, fmt="o", color=color, mfc=fill, markersize=4.5, capsize=3)
        self.set_axis(panel)

    def dashes(self, number: float) -> Any:
        """Dashes of the line at a value of the other coordinate, where colours tell something else; up to four."""
        return DASHES[self.numbers.index(number)] if len(self.numbers) <= len(DASHES) else "-"

    def add_key(self, figure: Figure, axes: Sequence[Axes], handles: Sequence[Any] = ()) -> None:
        """Legend or colour bar of the lines, where there are several; further handles join the legend."""
        lines = list(handles)
        if self._scale:
            self._scale.add_bar(figure, axes, AXIS_LABELS[self.other])
        elif len(self.numbers) > 1:
            look: dict[str, Any] = {"marker": "o", "markersize": 4, "linestyle": "" if self.is_path else "-"}
            labels = [(self.color(number), math_label(self.other, number)) for number in self.numbers]
            lines = [Line2D([], [], color=color, label=label, **look) for color, label in labels] + lines
        if lines:
            figure.legend(handles=lines, loc="outside lower center" if self._scale else "outside right center")

    def set_axis(self, panel: Axes) -> None:
        """Label and ticks of the coordinate: its values where they stand far enough apart."""
        values = sorted({getattr(state, self.coordinate) for state in self.states})
        panel.set_xlabel(AXIS_LABELS[self.coordinate])
        panel.margins(x=0.08)
        if are_apart(values, 6, 0.12):
            panel.set_xticks(values, [f"{value:g}" for value in values])
        else:
            panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def is_trusted(run: RunFolder) -> bool:
    """Whether `test` calls its result converged."""
    return bool(run.summary.get("converged", False))


HOLLOW = Line2D([], [], color="#333333", marker="o", mfc="white", linestyle="", markersize=4.5, label="not converged")
"""Legend of the hollow marks."""


def _other(coordinate: str) -> str:
    return "temperature_kelvin" if coordinate == "rs" else "rs"
