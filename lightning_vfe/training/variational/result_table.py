"""What `validate` and `test` show: tables for rich."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lightning_vfe.analysis.bracket import bracket_lines, short_line
from lightning_vfe.analysis.published import published_lines
from lightning_vfe.analysis.terms import TERMS, value_in_brackets
from lightning_vfe.analysis.training_verdict import training_line
from lightning_vfe.physics.system import NO_PROTONS
from lightning_vfe.training.variational.diagnostics import diagnostics_with_limits
from lightning_vfe.training.variational.error_budget import CAUSES
from lightning_vfe.training.variational.summary import TestResult

ROWS = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")
"""What stands in the table of several state points."""


def result_tables(result: TestResult) -> list[RenderableType]:
    """The table, the exact F from above and below, published values beside it, the diagnostics and the verdict."""
    return [
        _of_one_state(result) if len(result.states) == 1 else _of_states(result),
        *(Text(line) for line in _bracket_of(result)),
        *map(Text, _error_lines(result)),
        *(Text(line) for state in result.states for line in published_lines(state.published)),
        _diagnostics(result),
        *(Text(f"note: {note}") for note in result.notes),
        *_verdicts(result),
    ]


def _diagnostics(result: TestResult) -> Table:
    """Each number with its unit, its limit and a word."""
    shown = Table(title="diagnostics")
    for heading in ("what", "value", "unit", "limit", ""):
        shown.add_column(heading, justify="right" if heading == "value" else "left")
    only = result.states[0] if len(result.states) == 1 else None
    values = result.diagnostics | (only.diagnostics if only else {})
    steps = None if result.measurement is None else result.measurement.steps
    is_direct = all(state.is_direct or state.is_ceimc for state in result.states)
    for row in diagnostics_with_limits(values, is_direct, steps):
        style = "bold red" if row.word == "look" else ""
        value = f"{row.value:.0f}" if abs(row.value) >= 1e4 else f"{row.value:.4g}"
        shown.add_row(row.name, value, row.unit, row.limit, Text(row.word, style=style))
    return shown


def _verdicts(result: TestResult) -> list[Text]:
    """Whether the training is finished, and whether the averages can be trusted."""
    lines, training = [], result.training
    if training is not None and training["ok"] is False:
        lines += [Text(f"training NOT CONVERGED: {reason}", style="bold red") for reason in training["reasons"]]
    elif training is not None:
        lines.append(Text(training_line(training)))
    sampling = [Text(f"sampling NOT CONVERGED: {reason}", style="bold red") for reason in result.reasons]
    return lines + (sampling or [Text("sampling: converged")])


def _bracket_of(result: TestResult) -> list[str]:
    """Lines of the exact F: one for each part, or one for each state where there are several."""
    if len(result.states) > 1:
        return [
            f"{state.point}: {short_line(content)}" for state in result.states for content in state.bracket().values()
        ]
    (only,) = result.states
    is_fixed = only.gaps is not None and only.gaps.flow is None
    return [line for content in only.bracket().values() for line in bracket_lines(content, is_fixed)]


def _error_lines(result: TestResult) -> list[str]:
    """How it was measured, what the error of F consists of, and what it does not contain."""
    lines, how = [], result.measurement
    if how is not None:
        wanted = ", ".join(f"{TERMS[name].plain_symbol} {error:g}" for name, error in how.target_error.items())
        end = f"; ended by {how.ended_by}" + (f" (target error: {wanted})" if wanted else "")
        lines.append(f"{how.steps} measured steps, seed {how.seed}{end}")
    has_free_energy = len(result.states) == 1 and not result.is_ceimc
    budget = result.states[0].budget.get("free_energy_per_atom", {}) if has_free_energy else {}
    parts = [f"{part:.5f} {CAUSES[cause]}" for cause, part in budget.items() if part or cause == "statistical"]
    if parts:
        lines.append(f"error of F: {', '.join(parts)}")
    return [*lines, "one training: the errors do not contain the scatter between trainings"]


def _of_one_state(result: TestResult) -> Table:
    """Every term with its error, a row each."""
    content, is_jellium = result.as_dict(), result.system.get("protons") == NO_PROTONS
    caption = "no finite-size corrections: the cell is too small for them"
    if result.states[0].finite_size:
        caption = (
            "Finite-size corrections are estimates, and are in no other row. Their errors are those of S(k) alone."
        )
    table = Table(title=f"after {result.step} steps; errors are one standard error", caption=caption)
    for heading, side in (("quantity", "left"), ("value", "right"), ("error", "right"), ("unit", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for name, term in TERMS.items():
        if name in content and not (is_jellium and name == "free_energy_per_atom"):
            value, error = content[name]["value"], content[name]["error"]
            digits = 2 if term.unit == "GPa" else 5
            cells = ["-" if x is None else "0" if x == 0 else f"{x:.{digits}f}" for x in (value, error)]
            unit = term.unit.replace("atom", "electron") if is_jellium else term.unit
            table.add_row(term.plain_title, *cells, unit)
    return table


def _of_states(result: TestResult) -> Table:
    """F, E, S and P with their errors, a row for each state point."""
    title = f"after {result.step} steps; one standard error of the last digits in brackets"
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    has_temperature = any(state.point.temperature_kelvin for state in result.states)
    units = [f"{TERMS[name].plain_symbol}, {TERMS[name].unit}" for name in ROWS]
    for heading in ("rs", *(["T, K"] if has_temperature else []), *units, "conv."):
        table.add_column(heading, justify="right")
    for state, content in zip(result.states, result.as_dict()["states"], strict=True):
        cells = [value_in_brackets(*(_number(content[name][part]) for part in ("value", "error"))) for name in ROWS]
        point = [f"{state.point.rs:g}", *([f"{state.point.temperature_kelvin:g}"] if has_temperature else [])]
        table.add_row(*point, *cells, "yes" if content["converged"] else "NO")
    return table


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
