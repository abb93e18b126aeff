"""The table of `faults.py`: a line for each kind of fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fault_commands import Outcome

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
BEGIN, END = "<!-- table of benchmarks/faults.py -->", "<!-- end of the table of benchmarks/faults.py -->"
HEADER = """\
| fault | tries | exit codes | what the user sees, for example | what is lost | answered well |
| --- | --- | --- | --- | --- | --- |"""


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
        known: how often a known limit was met, which docs/faults.md describes.
    """

    fault: str
    tries: int = 0
    codes: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    lost: str = "nothing"
    wrong: list[str] = field(default_factory=list)
    known: int = 0

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
        # the longest line is that of the fault, not of a command that ended before it
        seen = max(
            (line for line in self.lines if "error" in line), key=len, default=max(self.lines, key=len, default="")
        )
        seen = seen.replace("|", "\\|")
        seen = f"`{seen[:160]}{'...' if len(seen) > 160 else ''}`" if seen else "nothing"
        well = f"{self.tries - len(self.wrong) - self.known} of {self.tries}"
        return f"| {self.fault} | {self.tries} | {', '.join(sorted(self.codes))} | {seen} | {self.lost} | {well} |"


def write_table(rows: Iterable[Row]) -> None:
    """Put the rows into the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    table = "\n".join([HEADER, *map(str, rows)])
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")
