r"""Weak scaling, measured with one and two processes and modelled for many GPUs; a step of a large cell on one GPU.

    python benchmarks/scaling.py measure
    python benchmarks/bench_step.py --num-atoms 54 --proton-walkers 2 --electron-moves 2 --budget 1 \
        --phases "electron sweep" "direct protons" "kinetic energy" Ewald scores \
        --csv benchmarks/results/step_xeon_54.csv
    python benchmarks/scaling.py model --table benchmarks/results/step_xeon_54.csv --moves 2 --figure docs/scaling.png
    python benchmarks/scaling.py cell --num-atoms 54

`measure` times steps of `lightning-vfe fit` with as many walkers per process each time; the rest of a run is taken out
by the difference of a long and a short one. `model` takes the flops and bytes of one step at N = 54 from a table of
bench_step.py, adds those of the natural gradient and its messages (optim/cost.py), and divides by the rates below. It
knows nothing of latency and of processes that wait for each other. `cell` predicts the seconds and the memory of one
step with 64 twists x 4 x 4 walkers on one GPU, see cell.py.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from cell import predict
from measure import start_on_one_thread

from lightning_vfe.optim.cost import update_cost

# One GPU: half of what an H100 is sold with, in float64 (67 TFLOP/s with tensor cores, 3.35 TB/s); 50 GB/s of network.
PRODUCTS, MEMORY, NETWORK = 0.5 * 67e12, 0.5 * 3.35e12, 50e9
WALKERS, ELECTRON_WALKERS, MOVES = 16, 8, 200
"""Per GPU: proton walkers, electron walkers of each, electron moves of a step."""
PARAMETERS = {"wavefunction": 32_800, "flow": 2_516}
SHORT, LONG = 3, 13
"""Steps of the two measured runs."""


def measure() -> None:
    """Seconds per step with one and two processes, eight proton walkers each."""
    words = ["sampler.num_electron_walkers=4", "datamodule.equilibration_steps=1", "logger=csv"]
    seconds = {}
    for ranks in (1, 2):
        spent = {
            steps: _run([*words, f"sampler.num_proton_walkers={8 * ranks}"], ranks, steps) for steps in (SHORT, LONG)
        }
        seconds[ranks] = (spent[LONG] - spent[SHORT]) / (LONG - SHORT)
        print(f"{ranks} processes: {seconds[ranks]:.2f} s per step")
    print(f"weak-scaling efficiency {seconds[1] / seconds[2]:.2f}")


def _run(words: list[str], ranks: int, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lightning_vfe", "fit", *words, f"trainer.max_steps={steps}"]
        command += [
            f"trainer.devices={ranks}",
            "trainer.strategy=ddp",
            "trainer.accelerator=cpu",
            f"run_dir={folder}/run",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def model(table: Path, moves: int, figure: Path | None) -> None:
    """Seconds per step of 8 to 512 GPUs at N = 54, 64 twists, by part."""
    work = _local_work(pd.read_csv(table, comment="#"), moves)
    print("| GPUs | proton walkers | sampling and derivatives | Fisher and solve | messages | sum, s | efficiency |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for ranks in (8, 16, 32, 64, 128, 256, 512):
        solve = messages = 0.0
        for name, parameters in PARAMETERS.items():
            samples, components = (
                (ranks * WALKERS * ELECTRON_WALKERS, 2) if name == "wavefunction" else (ranks * WALKERS, 1)
            )
            cost = update_cost(samples, components, parameters, ranks, "auto")
            other = parameters if cost.space == "sample" else samples * components
            solve += (2.0 * cost.size**2 * other / ranks + cost.size**3 / 3.0) / PRODUCTS
            messages += cost.sent / NETWORK
        rows.append((ranks, ranks * WALKERS, work, solve, messages, work + solve + messages))
        print("| " + " | ".join(f"{value:.3g}" for value in rows[-1]) + f" | {rows[0][-1] / rows[-1][-1]:.2f} |")
    if figure is not None:
        _draw(rows, figure)


def _local_work(table: pd.DataFrame, moves: int) -> float:
    """Seconds of one GPU for its own walkers: the larger of what products and memory allow, phase by phase."""
    table = table[table.num_atoms == 54].set_index("phase")
    walkers = float(table.num_proton_walkers.iloc[0])
    seconds = 0.0
    for phase, times in (
        ("electron sweep", MOVES / moves),
        ("direct protons", 1.0),
        ("kinetic energy", 1.0),
        ("Ewald", 1.0),
        ("scores", 1.0),
    ):
        row = table.loc[phase]
        seconds += times * WALKERS / walkers * max(row.flops / PRODUCTS, row.bytes / MEMORY)
    return seconds


def _draw(rows: list[tuple[float, ...]], figure: Path) -> None:
    ranks = [row[0] for row in rows]
    names = ("sampling and derivatives", "Fisher matrix and solve", "messages")
    _, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axis.stackplot(ranks, *([row[i] for row in rows] for i in (2, 3, 4)), labels=names)
    axis.set(
        xscale="log", xlabel=f"GPUs, {WALKERS} x {ELECTRON_WALKERS} walkers each", ylabel="modelled seconds per step"
    )
    axis.set_xticks(ranks, [str(rank) for rank in ranks])
    axis.legend(loc="upper left")
    figure.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(figure, dpi=150)
    print(f"figure: {figure}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("measure", help="one and two processes on this machine")
    modelled = commands.add_parser("model", help="8 to 512 GPUs")
    modelled.add_argument("--table", type=Path, required=True)
    modelled.add_argument("--moves", type=int, default=100, help="electron moves in the table's sweep")
    modelled.add_argument("--figure", type=Path)
    cell = commands.add_parser("cell", help="one GPU, 64 twists")
    cell.add_argument("--num-atoms", type=int, default=54)
    given = parser.parse_args()
    if given.command == "measure":
        measure()
    elif given.command == "model":
        model(given.table, given.moves, given.figure)
    else:
        start_on_one_thread()
        predict(given.num_atoms, PRODUCTS, MEMORY)


if __name__ == "__main__":
    main()
