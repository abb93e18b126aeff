"""Compute the headline numbers of docs/benchmarks.md: train, measure, and write a row for each.

    python benchmarks/records.py --list
    python benchmarks/records.py n2_exact n4_rand_rs1p31
    python benchmarks/records.py bcc16 --minutes 60 trainer.devices=2 trainer.strategy=ddp
    python benchmarks/records.py --table

A record is a training and a `test` in runs/records/NAME, with the settings that records.yaml gives and those of the
command line after them. After --minutes it saves and stops. The same command resumes it, as often as wanted.
A finished record writes its row to benchmarks/results/records.csv, in place of its former one, and --table updates
the table of docs/benchmarks.md from these rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from lightning_vfe import __version__

HERE = Path(__file__).parent
RECORDS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "records.yaml").read_text())
ROWS = HERE / "results" / "records.csv"
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- table of benchmarks/records.py -->", "<!-- end of the table -->"
COLUMNS = ("record", "value", "error", "steps", "cpu_minutes", "converged", "device", "version", "date")
SYMBOLS = {"free_energy": "F", "energy": "E"}


def run(verb: str, words: list[str], deadline: float) -> tuple[int, float]:
    """Exit code and processor seconds of a verb, which gets the signal to save and stop at the deadline."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, "-m", "lightning_vfe", verb, *words])
    try:
        code = process.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    except KeyboardInterrupt:
        code = process.wait()  # it has received the signal as well
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compute(name: str, more: list[str], deadline: float) -> bool:
    """Train and measure a record as far as the time allows; whether it is finished."""
    record, folder = RECORDS[name], Path("runs/records") / name
    place = [f"run_dir={folder}"]
    spent = folder / "cpu_seconds.json"
    for verb, words in (("fit", [*record["settings"], *place, "ckpt_path=auto", *more]), ("test", [*place, *more])):
        code, seconds = run(verb, words, deadline)
        if folder.exists():
            seconds += json.loads(spent.read_text()) if spent.exists() else 0.0
            spent.write_text(json.dumps(seconds))
        if code:
            print(f"{name}: {verb} ended with code {code}; the same command resumes it")
            return False
    write_row(name, json.loads((folder / "summary.json").read_text()), json.loads(spent.read_text()))
    return True


def write_row(name: str, summary: dict[str, Any], cpu_seconds: float) -> None:
    """Put the result of `test` in place of the record's former row, and print it."""
    result = summary[f"{RECORDS[name]['quantity']}_per_atom"]
    row = {"record": name, "value": f"{result['value']:.6f}", "error": f"{result['error']:.6f}"}
    row |= {"steps": summary["step"], "cpu_minutes": round(cpu_seconds / 60), "converged": summary["converged"]}
    row |= {"device": device(), "version": __version__, "date": date.today().isoformat()}
    rows = {each["record"]: each for each in read_rows()} | {name: row}
    with ROWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[each] for each in RECORDS if each in rows)
    print("\n".join([*table_head(), *lines(name, row)]))


def device() -> str:
    """What the runs of this process would compute on."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def read_rows() -> list[dict[str, Any]]:
    """The rows so far."""
    if not ROWS.exists():
        return []
    with ROWS.open() as file:
        return list(csv.DictReader(file))


def table_head() -> list[str]:
    """Titles of the columns."""
    return [
        "| record | quantity | this package | compared with | value | difference in mHa | steps | cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]


def lines(name: str, row: dict[str, Any]) -> list[str]:
    """The table's lines of a record: one for each value that it is compared with."""
    record, value, error = RECORDS[name], float(row["value"]), float(row["error"])
    own = f"{bracket(value, error)}" + ("" if str(row["converged"]) == "True" else " (not converged)")
    head = f"| `{name}` | {SYMBOLS[record['quantity']]} | {own} |"
    tail = f"{row['steps']} | {row['cpu_minutes']} min, {row['device']} |"
    found = []
    for other in record["compare"]:
        both = (error**2 + other.get("error", 0.0) ** 2) ** 0.5
        theirs = bracket(other["value"], other.get("error"))
        found.append(
            f"{head} {other['source']} | {theirs} | {bracket(1e3 * (value - other['value']), 1e3 * both)} | {tail}"
        )
    return found or [f"{head} | | | {tail}"]


def bracket(value: float, error: float | None) -> str:
    """A number with its error in brackets, in units of the last digit: -0.9791(12)."""
    if not error:
        return f"{value:.10g}"
    digits = next(n for n in range(12) if error * 10**n >= 1.95) if error < 1.95 else 0
    return f"{value:.{digits}f}({round(error * 10**digits)})"


def table() -> str:
    """The table of all rows."""
    rows = {row["record"]: row for row in read_rows()}
    return "\n".join([*table_head(), *(line for name in RECORDS if name in rows for line in lines(name, rows[name]))])


def write_table() -> None:
    """Put the table into docs/benchmarks.md."""
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")
    print(f"table: {PAGE}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="NAME or key=value", help="records, and settings for all of them")
    parser.add_argument("--minutes", type=float, default=1e6, help="time after which it saves and stops")
    parser.add_argument("--list", action="store_true", help="name all records")
    parser.add_argument("--table", action="store_true", help="write the table of docs/benchmarks.md")
    given = parser.parse_args()
    names = [word for word in given.words if "=" not in word]
    unknown = [name for name in names if name not in RECORDS]
    if unknown:
        parser.error(f"unknown record {unknown[0]}; the records are {', '.join(RECORDS)}")
    if given.list:
        for name, record in RECORDS.items():
            print(f"{name:<18} {record['system']:<40} lightning-vfe fit {' '.join(record['settings'])}")
    deadline = time.monotonic() + 60 * given.minutes
    more = [word for word in given.words if "=" in word]
    finished = [compute(name, more, deadline) for name in names]
    if given.table:
        write_table()
    return 0 if all(finished) else 1


if __name__ == "__main__":
    sys.exit(main())
