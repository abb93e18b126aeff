"""Time every phase of an optimisation step: the seconds, what they are spent on, and how they grow.

    python benchmarks/bench_step.py
    python benchmarks/bench_step.py --num-atoms 14 --dtype float32 --json step.json
    python benchmarks/bench_step.py --num-atoms 14 --chain-dtype float32 --compile
    python benchmarks/bench_step.py --device cuda --csv benchmarks/results/step_h100.csv

Columns: processor seconds on one thread (on an accelerator, seconds of the clock), the best of a few repetitions;
flops, values of functions such as tanh, and bytes moved; each of them over what the machine would reach in that time
with a matrix product, a tanh, a copy of memory (measured at the start); peak memory; how many times faster than the
baseline. Then the exponents of the growth with the atoms and with the walkers.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Cost, Machine, add_device, describe, measure, measure_machine, seconds_of
from phases import SUMMED, Phases, Setting

from lightning_vfe.physics.chunking import keep_freed_memory

BASELINE = Path(__file__).parent / "baselines" / "jax_2023.csv"
ELECTRON_SWEEPS = ("electron sweep", "compiled sweep")
LARGEST_WHOLE, MOVES_OF_LARGER = 16, 10
"""Atoms up to which all moves of a sweep are made, and how many are made and multiplied for more atoms."""
HEADER = (
    f"{'phase':<16}{'s':>9}{'Gflop':>9}{'Mfunc':>8}{'GB':>8}{'product':>9}{'tanh':>7}{'copy':>7}{'MiB':>8}{'ratio':>8}"
)


def read_baseline(path: Path, num_atoms: int, dtype: str) -> dict[str, float]:
    """Seconds of the phases of a stored run with these atoms and this type of numbers."""
    with path.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    chosen = [row for row in rows if int(row["num_atoms"]) == num_atoms and row["dtype"] == dtype]
    return {row["phase"]: float(row["seconds"]) for row in chosen}


def row_of(phase: str, cost: Cost, machine: Machine, baseline: float | None) -> dict[str, Any]:
    """All columns of a phase."""
    return {
        "phase": phase,
        **cost._asdict(),
        "product_share": cost.flops / cost.seconds / machine.product_flops,
        "function_share": cost.functions / cost.seconds / machine.functions,
        "copy_share": cost.bytes / cost.seconds / machine.copy_bytes,
        "speedup": math.nan if baseline is None else baseline / cost.seconds,
    }


def print_row(row: dict[str, Any]) -> None:
    shares = f"{row['product_share']:>9.1%}{row['function_share']:>7.1%}{row['copy_share']:>7.0%}"
    work = f"{row['flops'] / 1e9:>9.2f}{row['functions'] / 1e6:>8.1f}{row['bytes'] / 1e9:>8.2f}"
    ratio = "" if math.isnan(row["speedup"]) else f"{row['speedup']:.1f}x"
    print(
        f"{row['phase']:<16}{row['seconds']:>9.3f}{work}{shares}{row['peak_bytes'] / 2**20:>8.0f}{ratio:>8}", flush=True
    )


def bench(setting: Setting, arguments: argparse.Namespace, machine: Machine) -> list[dict[str, Any]]:
    """Measure and print the phases of one system."""
    device, phases = torch.device(arguments.device), Phases(setting, torch.device(arguments.device))
    baseline = {}
    if arguments.baseline.exists() and replace(setting, chain_dtype=None, compile=False) == Setting(setting.num_atoms):
        baseline = read_baseline(arguments.baseline, setting.num_atoms, arguments.dtype)
    share = arguments.electron_moves / setting.num_electron_moves
    print(f"\nN = {setting.num_atoms}, {setting.num_proton_walkers} x {setting.num_electron_walkers} walkers")
    print(
        f"{HEADER}"
        if share == 1
        else f"sweeps of electrons: {setting.num_electron_moves} moves, times {share:g}\n{HEADER}"
    )
    rows = []
    for phase, work in phases.all().items():
        if arguments.phases and phase not in arguments.phases:
            continue
        cost = measure(work, device, arguments.budget)
        cost = cost.times(share) if phase in ELECTRON_SWEEPS else cost
        row = row_of(phase, cost, machine, baseline.get(phase))
        print_row(row)
        rows.append({"num_atoms": setting.num_atoms, "num_proton_walkers": setting.num_proton_walkers} | row)
    summed = [row for row in rows if row["phase"] in SUMMED]
    if len(summed) == len(SUMMED):
        total = sum(row["seconds"] for row in summed)
        ratio = f", {sum(baseline[name] for name in SUMMED) / total:.1f}x the baseline" if baseline else ""
        print(f"{' + '.join(SUMMED)}: {total:.2f} s{ratio}")
    return rows


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of ln seconds over ln size."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def growth(rows: list[dict[str, Any]], setting: Setting, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Exponents of every phase in the atoms of this run, and in the proton walkers of its smallest system."""
    device, walkers = torch.device(arguments.device), [setting.num_proton_walkers // share for share in (4, 2, 1)]
    found = []
    phases = [Phases(replace(setting, num_proton_walkers=max(1, count)), device) for count in walkers]
    for phase in dict.fromkeys(row["phase"] for row in rows):
        own = [row for row in rows if row["phase"] == phase]
        by_atoms = [row["num_atoms"] for row in own]
        in_atoms = exponent(by_atoms, [row["seconds"] for row in own]) if len(own) > 1 else math.nan
        times = [seconds_of(each.all()[phase], device, arguments.budget / 4) for each in phases]
        in_walkers = exponent(walkers, times) if walkers[0] > 0 else math.nan
        found.append({"phase": phase, "exponent_in_atoms": in_atoms, "exponent_in_walkers": in_walkers})
    return found


def write(rows: list[dict[str, Any]], record: dict[str, Any], arguments: argparse.Namespace) -> None:
    """The same as the table, as JSON and as CSV."""
    if arguments.json:
        arguments.json.write_text(json.dumps(record | {"rows": rows}, indent=1) + "\n")
    if arguments.csv:
        about = record["about"] | {f"peak_{name}": f"{value:.4g}" for name, value in record["peaks"].items()}
        with arguments.csv.open("w", newline="") as file:
            file.writelines(f"# {name}: {value}\n" for name, value in about.items())
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-atoms", type=int, nargs="+", default=[8, 14, 16, 32, 54])
    add_device(parser)
    parser.add_argument("--chain-dtype", choices=["float32", "float64"], help="of the moves, if another one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--proton-walkers", type=int, default=16)
    parser.add_argument("--electron-walkers", type=int, default=8)
    parser.add_argument("--electron-moves", type=int, default=100, help="in a sweep")
    parser.add_argument("--compile", action="store_true", help="time a sweep with torch.compile, too (a C++ compiler)")
    parser.add_argument("--phases", nargs="+", help="names as in the table; all where left out")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="CSV of seconds to compare with")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--csv", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    keep_freed_memory()  # as the command does
    torch.set_num_threads(arguments.threads)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    device = torch.device(arguments.device)
    machine = measure_machine(device, torch.get_default_dtype())
    about = describe(device) | {"device": arguments.device, "dtype": arguments.dtype}
    print(", ".join(about.values()))
    print(
        f"at best: product {machine.product_flops / 1e9:.0f} Gflop/s, tanh {machine.functions / 1e6:.0f} M/s, "
        f"copy {machine.copy_bytes / 1e9:.1f} GB/s"
    )
    sizes: dict[str, Any] = {
        "num_proton_walkers": arguments.proton_walkers,
        "num_electron_walkers": arguments.electron_walkers,
        "compile": arguments.compile,
        "chain_dtype": arguments.chain_dtype and getattr(torch, arguments.chain_dtype),
    }
    rows: list[dict[str, Any]] = []
    for num_atoms in arguments.num_atoms:
        moves = arguments.electron_moves
        moves = moves if num_atoms <= LARGEST_WHOLE else math.gcd(moves, MOVES_OF_LARGER)
        rows += bench(Setting(num_atoms, num_electron_moves=moves, **sizes), arguments, machine)
    smallest = Setting(min(arguments.num_atoms), num_electron_moves=arguments.electron_moves, **sizes)
    found = growth(rows, smallest, arguments)
    print(f"\n{'phase':<16}{'N^':>8}{'walkers^':>10}")
    for each in found:
        print(f"{each['phase']:<16}{each['exponent_in_atoms']:>8.2f}{each['exponent_in_walkers']:>10.2f}")
    write(rows, {"about": about, "peaks": machine._asdict(), "growth": found}, arguments)


if __name__ == "__main__":
    main()
