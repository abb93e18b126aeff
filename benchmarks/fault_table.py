"""The table of `faults.py`: a line for each kind of fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fault_commands import Outcome

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
BEGIN, END = "<!-- table of benchmarks/faults.py -->", "<!-- end of the table of benchmarks/faults.py -->"
HEADER = "| fault | exit codes | what is lost | answered well |\n| --- | --- | --- | --- |"
WIDTH = 119
"""Longest line of a page."""


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        fault: its name.
        tries: how often it was tried.
        codes: exit codes that were met.
        lines: what the user saw.
        lost: what was lost at worst.
        wrong: what was answered badly.
    """

    fault: str
    tries: int = 0
    codes: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    lost: str = "nothing"
    wrong: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome, wrong: str = "", lost: str = "") -> None:
        """Count a try; `wrong` says what was bad about it."""
        self.tries += 1
        self.codes.add("still at work" if outcome.code is None else str(outcome.code))
        if outcome.line:
            self.lines.append(outcome.line)
        self.lost = lost or self.lost
        if wrong:
            self.wrong.append(wrong)

    def __str__(self) -> str:
        """A line of the table."""
        well = f"{self.tries - len(self.wrong)} of {self.tries}"
        return f"| {self.fault} | {', '.join(sorted(self.codes))} | {self.lost} | {well} |"

    @property
    def seen(self) -> str:
        """What the user sees, for example, in a line of a list."""
        errors = [line for line in self.lines if line.startswith("error: ")]
        text = max(errors or self.lines, key=len, default="")
        space = WIDTH - len(self.fault) - len("- : ``...")
        shown = f"`{text[:space]}{'...' if len(text) > space else ''}`" if text else "nothing"
        return f"- {self.fault}: {shown}"


def write_table(given: Iterable[Row]) -> None:
    """Put the rows into the page, and an example of what the user sees for each."""
    before, rest = PAGE.read_text().split(BEGIN)
    rows = list(given)
    intro = "Examples of what the user sees (`...` marks a line that is cut here):"
    table = "\n".join([HEADER, *map(str, rows), "", intro, "", *(row.seen for row in rows)])
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")
