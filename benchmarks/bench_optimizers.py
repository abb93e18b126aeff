"""Steps and CPU seconds that two optimizers need for the same energy.

    python benchmarks/bench_optimizers.py run n2_mol_rs1p31 adam optimizer.wavefunction_learning_rate=6e-3 --steps 1000
    python benchmarks/bench_optimizers.py run n2_mol_rs1p31 natural_gradient --steps 200
    python benchmarks/bench_optimizers.py report n2_mol_rs1p31 --figure docs/optimizers_n2_mol_rs1p31.png

`run` trains with the walkers of the experiment (`default`: those of `lightning-vfe fit`) and writes F per atom, the
variance of the local energy and the CPU seconds of every step to
benchmarks/results/optimizers/EXPERIMENT/OPTIMIZER.csv. `report` prints tables and draws the curves. A level is what the
slower optimizer has reached in the last fifth of its steps. It counts as reached where the mean of the last 20 steps is
there within the error of a run's last fifth. Close to the ground state the variance tells more than a noisy energy.
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
from hydra.utils import instantiate

from lightning_vfe.resources import resource_folder
from lightning_vfe.training.run.launch import configure_logging_and_seed
from lightning_vfe.training.variational.nan_guard import NaNGuard
from lightning_vfe.workflows.tasks import VariationalTask

RESULTS = Path(__file__).parent / "results" / "optimizers"
QUANTITIES = {"free_energy_per_atom": "F in Ha per atom", "local_energy_variance": "variance of E_loc in Ha$^2$"}
WINDOW = 20
"""Steps of the running mean."""


class Recorder(L.Callback):
    """Free energy and CPU seconds of every step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.spent, self.start = 0.0, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.spent += time.process_time() - self.start
        row = {"step": trainer.global_step, "cpu_seconds": self.spent}
        self.rows.append(row | {name: float(trainer.callback_metrics[name]) for name in QUANTITIES})
        self.start = time.process_time()


def train(experiment: str, optimizer: str, steps: int, overrides: list[str]) -> None:
    """Train one experiment with one optimizer and write its curve."""
    words = [] if experiment == "default" else [f"experiment={experiment}"]
    words += [f"optimizer={optimizer}", "run_dir=none", *overrides]
    with initialize_config_dir(str(resource_folder("configs").resolve()), version_base=None):
        config = compose("config", overrides=words)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    configure_logging_and_seed(config.seed)
    (module, datamodule), recorder = VariationalTask().build(config), Recorder()
    module.state.equilibrate(datamodule.equilibration_steps)
    trainer = instantiate(
        config.trainer,
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[NaNGuard(), recorder],
    )
    trainer.fit(module, datamodule)
    (RESULTS / experiment).mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(recorder.rows)
    table.to_csv(file := RESULTS / experiment / f"{optimizer}.csv", index=False, float_format="%.6f")
    print(f"{file}: {len(table)} steps, {recorder.spent / len(table):.2f} CPU s each")


def report(experiment: str, figure: Path | None) -> None:
    """Table and figure of all curves of an experiment."""
    tables = {file.stem: pd.read_csv(file) for file in sorted((RESULTS / experiment).glob("*.csv"))}
    for quantity, label in QUANTITIES.items():
        level = max(_last_fifth(table[quantity]) for table in tables.values())[0]
        print(f"{experiment}: {label}, level {level:.4f}")
        print("| optimizer | steps | CPU s | CPU s per step | last fifth |\n|---|---|---|---|---|")
        for name, table in tables.items():
            value, error = _last_fifth(table[quantity])
            reached = table[quantity].rolling(WINDOW).mean() <= level + error
            row = table[reached].iloc[0] if reached.any() else None
            steps, seconds = ("-", "-") if row is None else (f"{row.step:.0f}", f"{row.cpu_seconds:.0f}")
            each = table.cpu_seconds.iloc[-1] / len(table)
            print(f"| {name} | {steps} | {seconds} | {each:.2f} | {value:.4f}({error:.4f}) |")
    if figure is not None:
        _draw(experiment, tables, figure)


def _last_fifth(values: pd.Series) -> tuple[float, float]:
    """Mean of the last fifth of the steps, and its error from the scatter of the steps."""
    last = values[-len(values) // 5 :]
    return float(last.mean()), float(last.std()) / len(last) ** 0.5


def _draw(experiment: str, tables: dict[str, pd.DataFrame], figure: Path) -> None:
    _, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", sharey="row", layout="constrained")
    for row, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        for axis, column in zip(row, ("step", "cpu_seconds"), strict=True):
            for name, table in tables.items():
                axis.plot(table[column], table[quantity].rolling(WINDOW).mean(), label=name.replace("_", " "))
        row[0].set(ylabel=label)
    axes[1, 0].set(yscale="log", xlabel="step")
    axes[1, 1].set(xlabel="CPU seconds, one core")
    axes[0, 0].set(title=f"{experiment}: means of {WINDOW} steps")
    axes[0, 1].legend()
    figure.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(figure, dpi=110)
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
