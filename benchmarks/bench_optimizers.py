"""Steps and CPU seconds that two optimizers need for the same energy.

    python benchmarks/bench_optimizers.py run n2_mol_rs1p31 adam optimizer.wavefunction_learning_rate=6e-3 --steps 1000
    python benchmarks/bench_optimizers.py run n2_mol_rs1p31 natural_gradient --steps 200
    python benchmarks/bench_optimizers.py report n2_mol_rs1p31 --figure docs/optimizers_n2_mol_rs1p31.png

`run` trains with the walkers of the experiment (`default`: those of `lightning-vfe fit`) and writes F per atom and CPU
seconds of every step to benchmarks/results/optimizers/EXPERIMENT_OPTIMIZER.csv. `report` prints a table and draws the
curves. The level is what the slower optimizer has reached in the last fifth of its steps. It counts as reached where
the mean of the last 20 steps is there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib.pyplot as plt
import pandas as pd
import torch
from hydra import compose, initialize_config_dir

from lightning_vfe._cli.run import build_datamodule, build_module
from lightning_vfe.resources import resource_folder
from lightning_vfe.training.callbacks import Equilibrate, NaNGuard
from lightning_vfe.training.launch import quiet

RESULTS = Path(__file__).parent / "results" / "optimizers"
WINDOW = 20
"""Steps of the running mean."""


class Recorder(L.Callback):
    """Free energy and CPU seconds of every step; equilibration is not counted."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.spent, self.start = 0.0, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.spent += time.process_time() - self.start
        value = float(trainer.callback_metrics["free_energy_per_atom"])
        self.rows.append({"step": trainer.global_step, "free_energy_per_atom": value, "cpu_seconds": self.spent})
        self.start = time.process_time()


def train(experiment: str, optimizer: str, steps: int, overrides: list[str]) -> None:
    """Train one experiment with one optimizer and write its curve."""
    words = [] if experiment == "default" else [f"experiment={experiment}"]
    words += [f"optimizer={optimizer}", "run_dir=none", *overrides]
    with initialize_config_dir(str(resource_folder("configs").resolve()), version_base=None):
        config = compose("config", overrides=words)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    quiet(config.seed)
    module, datamodule, recorder = build_module(config), build_datamodule(config), Recorder()
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        inference_mode=False,
        callbacks=[Equilibrate(), NaNGuard(), recorder],
    )
    trainer.fit(module, datamodule)
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(recorder.rows)
    table.to_csv(file := RESULTS / f"{experiment}_{optimizer}.csv", index=False, float_format="%.6f")
    print(f"{file}: {len(table)} steps, {recorder.spent / len(table):.2f} CPU s each")


def report(experiment: str, figure: Path | None) -> None:
    """Table and figure of all curves of an experiment."""
    tables = {
        file.stem.removeprefix(f"{experiment}_"): pd.read_csv(file)
        for file in sorted(RESULTS.glob(f"{experiment}_*.csv"))
    }
    means = {name: table.free_energy_per_atom.rolling(WINDOW).mean() for name, table in tables.items()}
    level = max(float(table.free_energy_per_atom[-len(table) // 5 :].mean()) for table in tables.values())
    print(f"{experiment}: level {level:.4f} Ha per atom")
    print("| optimizer | steps | CPU s | CPU s per step | last fifth, Ha per atom |\n|---|---|---|---|---|")
    for name, table in tables.items():
        last = table.free_energy_per_atom[-len(table) // 5 :]
        reached = means[name] <= level
        row = table[reached].iloc[0] if reached.any() else None
        steps, seconds = ("-", "-") if row is None else (f"{row.step:.0f}", f"{row.cpu_seconds:.0f}")
        each = table.cpu_seconds.iloc[-1] / len(table)
        print(f"| {name} | {steps} | {seconds} | {each:.2f} | {last.mean():.4f}({last.std() / len(last) ** 0.5:.4f}) |")
    if figure is None:
        return
    _, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for axis, column, label in zip(axes, ("step", "cpu_seconds"), ("step", "CPU seconds, one core"), strict=True):
        for name, table in tables.items():
            axis.plot(table[column], means[name], label=name.replace("_", " "))
        axis.axhline(level, color="0.5", linewidth=0.8, linestyle="--")
        axis.set(xlabel=label, xscale="log")
    axes[0].set(ylabel=f"F in Ha per atom, mean of {WINDOW} steps", title=experiment)
    axes[1].legend()
    figure.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(figure, dpi=150)
    print(f"figure: {figure}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="train with one optimizer")
    runner.add_argument("experiment")
    runner.add_argument("optimizer")
    runner.add_argument("--steps", type=int, required=True)
    runner.add_argument("overrides", nargs="*", help="further key=value overrides")
    reporter = commands.add_parser("report", help="table and figure of what was run")
    reporter.add_argument("experiment")
    reporter.add_argument("--figure", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        train(given.experiment, given.optimizer, given.steps, given.overrides)
    else:
        report(given.experiment, given.figure)


if __name__ == "__main__":
    main()
