"""Do the error bars of `test` hold? Repeat a short measurement beside a long one, or whole trainings with other seeds.

    python benchmarks/coverage.py runs/n2_exact --case "N = 2, uniform base" --repeats 50 --steps 20 --long 1000
    python benchmarks/coverage.py experiment=n2_mol_rs2 --trainings 8 --steps 100 --case "N = 2 molecule, trainings"
    python benchmarks/coverage.py --table

The first command measures the last checkpoint of a run: once with --long steps, and --repeats times with --steps steps
and a seed of its own. The folder of each measurement is kept below RUN/coverage: the same command continues where it
was stopped. It counts how often a short result lies within one and two errors of the long one; the error is that of
the difference, of which the long measurement contributes little. Of g(r), each bin counts in which the long measurement
has at least 0.1.

The second command trains 8 times, with seeds from 1 on, and measures each training for --steps steps. The words are
settings of `fit`. Each result is compared with the mean of the others. The folders are runs/coverage/CASE/seed-1, and
so on.

The row goes to benchmarks/results/coverage.csv, and --table puts all rows into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import lightning_vfe as lv

HERE = Path(__file__).parent
ROWS = HERE / "results" / "coverage.csv"
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- table of benchmarks/coverage.py -->", "<!-- end of the table of benchmarks/coverage.py -->"
TERMS = {"F": "free_energy_per_atom", "E": "energy_per_atom", "S": "entropy_per_atom", "P": "pressure_gpa"}
COLUMNS = ("case", "quantity", "repeats", "steps", "long_steps", "counts", "within_one", "within_two")
FIRST_SEED = 1000
"""Seeds of the repeats begin here; the long measurement has the one before."""
LEAST_G = 0.1
HOME = Path("runs") / "coverage"
"""Of the folders of whole trainings, by case."""


def measure(run: Path, folder: Path, seed: int, steps: int, more: list[str]) -> Path:
    """One measurement in its own folder, unless it is there."""
    if not (folder / "summary.json").is_file():
        checkpoint = run / "checkpoints" / "last.ckpt"
        settings = f"seed={seed}", f"datamodule.test_steps={steps}", *more
        if lv.test(*settings, ckpt_path=checkpoint, run_dir=folder).signal:
            raise SystemExit("stopped; the same command continues")
    return folder


def pulls(short: Path, long: Path) -> dict[str, np.ndarray]:
    """(short - long) / error of the difference, by quantity; g(r) has one for each bin of all kinds of pairs."""
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (short, long))
    found = {}
    for symbol, name in TERMS.items():
        values, errors = ([each[name][part] for each in (one, other)] for part in ("value", "error"))
        if None not in values:
            found[symbol] = np.array([(values[0] - values[1]) / math.hypot(*errors)])
    near, far = (pd.read_csv(folder / "pair_correlation.csv") for folder in (short, long))
    bins = []
    for kind in (name.removesuffix("_error") for name in near if name.endswith("_error")):
        counted = (far[kind] >= LEAST_G).to_numpy()
        # a bin without a pair has no error: the long measurement has pairs there, so that it is missed
        error = np.hypot(near[f"{kind}_error"].fillna(0.0), far[f"{kind}_error"])
        bins.append(((near[kind] - far[kind]) / error).to_numpy()[counted])
    return found | {"g(r)": np.concatenate(bins)}


def count(case: str, run: Path, repeats: int, steps: int, long_steps: int, more: list[str]) -> list[dict[str, object]]:
    """Measure, and a row for each quantity."""
    home = run / "coverage"
    long = measure(run, home / f"long-{long_steps}", FIRST_SEED - 1, long_steps, more)
    found: dict[str, list[np.ndarray]] = {}
    for number in range(repeats):
        seed = FIRST_SEED + number
        for name, values in pulls(measure(run, home / f"steps-{steps}-seed-{seed}", seed, steps, more), long).items():
            found.setdefault(name, []).append(values)
        print(f"{case}: {number + 1} of {repeats}", flush=True)
    return rows_of(found, {"case": case, "repeats": repeats, "steps": steps, "long_steps": long_steps})


def count_trainings(case: str, number: int, steps: int, more: list[str]) -> list[dict[str, object]]:
    """Train and measure several times, compare each result with the mean of the others, and a row for each quantity."""
    home, results = HOME / case, []
    for seed in range(1, number + 1):
        folder = home / f"seed-{seed}"
        if not (folder / "summary.json").is_file():
            fitted = lv.fit(*more, f"seed={seed}", run_dir=folder, ckpt_path="auto")
            if fitted.signal or lv.test(f"datamodule.test_steps={steps}", run_dir=folder).signal:
                raise SystemExit("stopped; the same command continues")
        results.append(json.loads((folder / "summary.json").read_text()))
        print(f"{case}: {seed} of {number}", flush=True)
    found: dict[str, list[np.ndarray]] = {}
    for symbol, name in TERMS.items():
        if all(name in result and result[name]["error"] for result in results):
            value, error = (np.array([result[name][part] for result in results]) for part in ("value", "error"))
            others = (value.sum() - value) / (number - 1)
            others_error = np.sqrt((error**2).sum() - error**2) / (number - 1)
            found[symbol] = [(value - others) / np.hypot(error, others_error)]
    return rows_of(found, {"case": case, "repeats": number, "steps": steps, "long_steps": 0})


def rows_of(found: dict[str, list[np.ndarray]], head: dict[str, object]) -> list[dict[str, object]]:
    """How often the deviations are below one and two errors, a row for each quantity."""
    rows = []
    for name, values in found.items():
        size = np.abs(np.concatenate(values))
        row = head | {"quantity": name, "counts": len(size)}
        rows.append(row | {"within_one": round(np.mean(size < 1), 4), "within_two": round(np.mean(size < 2), 4)})
    return rows


def write_rows(rows: list[dict[str, object]]) -> None:
    """Put the rows of a case in place of its former ones."""
    before = list(csv.DictReader(ROWS.open())) if ROWS.exists() else []
    kept = [row for row in before if row["case"] != rows[0]["case"]]
    with ROWS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def table() -> str:
    """A line for each case: the share within one and two errors, in percent, of each quantity."""
    names = [*TERMS, "g(r)"]
    lines = [f"| case | repeats | steps | {' | '.join(names)} |", f"| --- | --- | --- |{' --- |' * len(names)}"]
    rows = list(csv.DictReader(ROWS.open()))
    for case in dict.fromkeys(row["case"] for row in rows):
        own = {row["quantity"]: row for row in rows if row["case"] == case}
        first = next(iter(own.values()))
        cells = [percent(own[name]) if name in own else "" for name in names]
        lines.append(f"| {case} | {first['repeats']} | {first['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(row: dict[str, str]) -> str:
    return ", ".join(f"{100 * float(row[part]):.0f}" for part in ("within_one", "within_two"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="folder of a run, or the first setting of `fit`")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of `test`, or of `fit`")
    parser.add_argument("--case", help="name of the row; by default that of the folder")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20, help="steps of a short measurement")
    parser.add_argument("--long", type=int, default=1000, help="steps of the long measurement")
    parser.add_argument("--trainings", type=int, default=0, help="whole trainings with other seeds, three or more")
    parser.add_argument("--table", action="store_true", help="write the table of docs/benchmarks.md")
    given = parser.parse_intermixed_args()
    if given.trainings:
        if given.trainings < 3 or not given.case:
            parser.error("--trainings needs at least 3, and --case NAME")
        words = [str(given.run), *given.settings] if given.run is not None else []
        write_rows(count_trainings(given.case, given.trainings, given.steps, words))
        print(table())
    elif given.run is not None:
        case = given.case or given.run.name
        write_rows(count(case, given.run, given.repeats, given.steps, given.long, given.settings))
        print(table())
    if given.table:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
