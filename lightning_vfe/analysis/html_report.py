"""Runs side by side as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from lightning_vfe.analysis.compare import COMPARED
from lightning_vfe.analysis.measurements import draw_terms
from lightning_vfe.analysis.parity import PANELS, Predictions, draw_parities, root_mean_square_error
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.style import house_style, substance
from lightning_vfe.analysis.terms import TERMS, value_in_brackets
from lightning_vfe.analysis.training_comparison import draw_training_comparison
from lightning_vfe.analysis.training_verdict import training_note

TEMPLATE = "report.html.j2"
STORED = {
    "overlap.png": ("overlap of the windows of ln Z", "The band beside the diagonal must not break."),
}
"""Figures that commands leave in the folder of a run, with title and caption."""
PUBLISHED_COLUMNS = dict(zip(COMPARED, ("F", "E", "S", "P"), strict=True))
NOTE = (
    "Errors are one standard error of the Monte Carlo averages. Converged sampling means that the averages can be "
    "trusted. It does not mean that the training is finished."
)


@dataclass(frozen=True)
class Verdict:
    """Whether the numbers of a run can be trusted, in words, with the reasons against it."""

    name: str
    good: bool
    text: str
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """Cells of a table; `published` marks values that are not of a run."""

    cells: Sequence[str]
    published: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    title: str
    head: Sequence[str]
    rows: Sequence[Row]
    note: str = ""


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page; the source holds the image itself."""

    title: str
    source: str
    caption: str = ""
    small: bool = field(default=False)


def html_report(
    runs: Mapping[str, RunFolder],
    comparison: Figure,
    provenance: Mapping[str, str],
    lines: Sequence[str] = (),
    potentials: Mapping[str, Predictions] | None = None,
) -> str:
    """The page: verdicts, results beside published values, figures, provenance.

    Args:
        runs: by the names that the page shows; each has been measured.
        comparison: the figure of `report`.
        provenance: version, command and date of the page.
        lines: further lines below the results.
        potentials: predictions of fitted potentials, by the names that the page shows.

    Returns:
        HTML with all images inside.
    """
    first = next(iter(runs.values()))
    title = f"{substance(first.system)}, N = {_sizes(runs)}: {len(runs)} run{'s' * (len(runs) > 1)}"
    tables = _result_tables(runs, " ".join([NOTE, *lines]))
    figures = _figures(runs, comparison)
    if potentials:
        tables.append(_potential_table(potentials))
        caption = "Prediction against label. Energies are per atom. Potentials share the limits of the axes."
        figures.append(PageFigure("Parity of the potentials", _svg(draw_parities(potentials)), caption))
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    return environment.get_template(TEMPLATE).render(
        title=title,
        verdicts=[_verdict(name, run) for name, run in runs.items()],
        tables=tables,
        figures=figures,
        provenance=PageTable("", ["run", "N", "step", "last checkpoint", "seed", "version", "folder"], _origins(runs)),
        footer=", ".join(f"{name} {value}" for name, value in provenance.items()),
    )


def last_saved_step(run: RunFolder) -> int | None:
    """Step of the newest checkpoint of a run; None where it has none."""
    found = (re.fullmatch(r"step-(\d+)\.ckpt", file.name) for file in (run.folder / "checkpoints").glob("step-*.ckpt"))
    return max((int(match[1]) for match in found if match), default=None)


def step_note(run: RunFolder) -> str:
    """Where the result belongs to another step than the last checkpoint: which; else nothing."""
    measured, saved = run.summary.get("step"), last_saved_step(run)
    if measured is None or saved is None or measured == saved:
        return ""
    return f"measured at step {measured}, the last checkpoint is of step {saved}: run lightning-vfe test again"


def _verdict(name: str, run: RunFolder) -> Verdict:
    doubtful = [view for view in run.views if not view.summary.get("converged", False)]
    reasons = [str(reason) for reason in run.summary.get("reasons") or []]
    note = step_note(run)
    reasons += [line for line in (note, training_note(run)) if line]
    training = (run.summary.get("verdicts") or {}).get("training") or {}
    text = "sampling and training converged" if training.get("ok") else "sampling converged"
    if doubtful and len(run.views) > 1:
        text = f"NOT CONVERGED at {len(doubtful)} of {len(run.views)} states"
    elif doubtful:
        text = "NOT CONVERGED"
    return Verdict(name, not reasons and not doubtful, text + (", but of an older step" if note else ""), reasons)


def _result_tables(runs: Mapping[str, RunFolder], note: str) -> list[PageTable]:
    """A table for each state of the first run, with the run at other N at the same place."""
    tables = []
    for number in range(max(1, len(next(iter(runs.values())).states))):
        views = {name: run.views[min(number, len(run.views) - 1)] for name, run in runs.items()}
        place = next(iter(views.values()))
        if len(next(iter(runs.values())).states) > 1:
            views = {name: _same_state(run, place) for name, run in runs.items()}
        head = [
            "",
            "N",
            *(f"{TERMS[name].plain_symbol}, {TERMS[name].unit}" for name in COMPARED),
            "sampling converged",
        ]
        rows = [_result_row(name, view, bool(step_note(runs[name]))) for name, view in views.items()]
        for view in views.values():
            rows += [row for row in map(_published_row, view.summary.get("published") or []) if row not in rows]
        tables.append(PageTable(f"Results{_place(place)}", head, rows, note))
    return tables


def _same_state(run: RunFolder, place: RunFolder) -> RunFolder:
    return next(view for view in run.views if view.states[0].suffix == place.states[0].suffix)


def _result_row(name: str, view: RunFolder, is_old: bool) -> Row:
    cells = [value_in_brackets(*view.result(term)) for term in COMPARED]
    verdict = "yes" if view.summary.get("converged", False) else "NO"
    if is_old:
        verdict += f", step {view.summary['step']}"
    return Row([name, str(view.system.get("num_atoms", "-")), *cells, verdict])


def _published_row(row: Mapping[str, Any]) -> Row:
    digits = {"F": 4, "E": 4, "S": 2, "P": 0}
    cells = [f"{row[key]:.{digits[key]}f}" if row.get(key) is not None else "-" for key in PUBLISHED_COLUMNS.values()]
    differs = [{"T_kelvin": "T"}.get(name, name) for name in row.get("differs") or []]
    other = f" (other {' and '.join(differs)})" if differs else ""
    return Row([f"published: {row['method']}{other}", str(row["N"] or "infinite"), *cells, ""], published=True)


def _potential_table(potentials: Mapping[str, Predictions]) -> PageTable:
    """Errors of fitted potentials on their test configurations."""
    names = [name for name in PANELS if any(name in each for each in potentials.values())]
    head = ["", *(f"{PANELS[name][0]}, {PANELS[name][2]}" for name in names)]
    rows = []
    for label, each in potentials.items():
        errors = [root_mean_square_error(each[name]) * PANELS[name][3] if name in each else None for name in names]
        rows.append(Row([label, *("-" if error is None else f"{error:.3g}" for error in errors)]))
    return PageTable("Potentials", head, rows, "Root mean square errors on the test configurations of each fit.")


def _place(view: RunFolder) -> str:
    system = view.system
    parts = [f"rs = {system['rs']:g}"] if isinstance(system.get("rs"), (int, float)) else []
    if isinstance(system.get("temperature_kelvin"), (int, float)) and system["temperature_kelvin"]:
        parts.append(f"T = {system['temperature_kelvin']:g} K")
    return f" at {', '.join(parts)}" if parts else ""


def _figures(runs: Mapping[str, RunFolder], comparison: Figure) -> list[PageFigure]:
    found = [PageFigure("Comparison", _svg(comparison), "A hollow mark is a result that is not converged.")]
    fitted = {name: run for name, run in runs.items() if run.fitted}
    if fitted:
        caption = "Running means of the training steps. A mark at the end is the result of test."
        found.append(PageFigure("Training", _svg(draw_training_comparison(fitted)), caption))
    for name, run in runs.items():
        caption = "How the terms add up to F. Grey bars are totals." if len(run.views) == 1 else "Terms at all states."
        found.append(PageFigure(f"Terms of F: {name}", _svg(draw_terms(run)), caption, small=len(run.views) == 1))
        for file, (title, note) in STORED.items():
            image = run.folder / "figures" / file
            if image.is_file():
                source = f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
                found.append(PageFigure(f"{name}: {title}", source, note, small=True))
    return found


def _svg(figure: Figure) -> str:
    stream = io.BytesIO()
    with house_style():
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _origins(runs: Mapping[str, RunFolder]) -> list[Row]:
    rows = []
    for name, run in runs.items():
        config = run.config if (run.folder / "config.yaml").is_file() else {}
        measured = (run.summary.get("measurement") or {}).get("seed")
        seed = f"{config.get('seed', '-')}" + (f", test {measured}" if measured is not None else "")
        step, saved = run.summary.get("step"), last_saved_step(run)
        cells = [name, run.system.get("num_atoms"), step, saved, seed, config.get("version"), run.folder]
        rows.append(Row(["-" if cell is None else str(cell) for cell in cells]))
    return rows


def _sizes(runs: Mapping[str, RunFolder]) -> str:
    return ", ".join(str(size) for size in sorted({run.system.get("num_atoms", 0) for run in runs.values()}))
