"""The headline numbers: each record can be run, and the table in the docs is that of the stored rows."""

from pathlib import Path
from types import ModuleType

import pytest

from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse
from tests.helpers.scripts import load_script

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def records() -> ModuleType:
    return load_script(PROJECT / "benchmarks" / "records.py")


def test_settings_of_all_records_compose(records: ModuleType) -> None:
    for record in records.RECORDS.values():
        assert compose_config(parse(record["settings"])).system.num_atoms >= 2
        assert record["quantity"] in records.SYMBOLS


def test_table_of_the_docs_is_that_of_the_rows(records: ModuleType) -> None:
    page = records.PAGE.read_text()
    assert page.split(records.BEGIN)[1].split(records.END)[0].strip() == records.table()


def test_difference_has_both_errors(records: ModuleType) -> None:
    row = {"value": "-0.97898", "error": "0.00012", "steps": 150, "cpu_minutes": 5, "converged": True, "device": "CPU"}
    (line,) = records.lines("n2_exact", row)
    assert line.split(" | ")[2:6] == ["-0.97898(12)", "exact", "-0.97908(5)", "0.10(13)"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(-0.489336, 0.000026, "-0.48934(3)"), (1.0, 0.0199, "1.00(2)"), (1.0, 0.00195, "1.000(2)"), (3.0, None, "3")],
)
def test_bracket(records: ModuleType, value: float, error: float | None, text: str) -> None:
    assert records.bracket(value, error) == text
