"""Processes of one run, as a launcher starts them, without the seconds that each would take to import everything."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

PRELOAD = [
    "lightning_vfe.cli.run",
    "lightning_vfe.training.variational.module",
    "lightning_vfe.training.variational.callbacks",
    __name__,
]
LIMIT_SECONDS = 300

Launcher = Callable[[int, int], dict[str, object]]
"""Environment variables by rank and number of ranks."""


def by_hand(rank: int, num_ranks: int) -> dict[str, object]:
    """What Lightning looks for where the user starts the processes of one machine."""
    return {"MASTER_ADDR": "127.0.0.1", "NODE_RANK": 0, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks}


def by_torchrun(rank: int, num_ranks: int) -> dict[str, object]:
    """What torchrun sets on several nodes with one process each."""
    node = {"RANK": rank, "GROUP_RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": 1}
    return node | {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "False"}


def by_srun(rank: int, num_ranks: int) -> dict[str, object]:
    """What srun sets on several nodes with one process each."""
    node = {"SLURM_PROCID": rank, "SLURM_NODEID": rank, "SLURM_LOCALID": 0, "SLURM_NTASKS": num_ranks}
    job = {"SLURM_JOB_ID": 17, "SLURM_JOB_NAME": "vfe", "SLURM_NNODES": num_ranks, "SLURM_NTASKS_PER_NODE": 1}
    return node | job | {"SLURM_NODELIST": "127.0.0.1"}


def run_ranks(words: Sequence[str], num_ranks: int, folder: Path, launcher: Launcher = by_hand) -> list[str]:
    """Run `lightning-vfe WORDS` in num_ranks processes on the CPU, in a folder; what each of them printed.

    Asserts that all of them succeed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = {"MASTER_PORT": probe.getsockname()[1]}
    size = "trainer.devices" if launcher is by_hand else "trainer.num_nodes"
    words = [*words, "trainer.accelerator=cpu", f"{size}={num_ranks}"]
    words += ["trainer.strategy=ddp"] if num_ranks > 1 else []
    settings = [launcher(rank, num_ranks) | port if num_ranks > 1 else {} for rank in range(num_ranks)]
    logs = [folder / f"output-{rank}.txt" for rank in range(num_ranks)]
    ranks = [context.Process(target=_run, args=(words, *each)) for each in zip(settings, logs, strict=True)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(LIMIT_SECONDS)
        process.kill()
    printed = [log.read_text() for log in logs]
    assert [process.exitcode for process in ranks] == [0] * num_ranks, "\n".join(text[-2000:] for text in printed)
    return printed


def fit_table(words: Sequence[str], num_ranks: int, folder: Path, launcher: Launcher = by_hand) -> pd.DataFrame:
    """metrics.csv of `fit` on num_ranks processes, in the run folder `folder`, without the checksums of its rows."""
    run_ranks(["fit", *words, f"run_dir={folder}"], num_ranks, folder.parent, launcher)
    return pd.read_csv(folder / "metrics.csv").drop(columns="checksum")


def assert_same_tables(first: pd.DataFrame, second: pd.DataFrame, tolerance: float = 1e-10) -> None:
    """Equal columns and rows, and numbers up to the order of sums."""
    assert list(first.columns) == list(second.columns)
    assert len(first) == len(second)
    largest = (first - second).abs().max().max()
    assert largest < tolerance, f"largest difference {largest:.1e}"


def _run(words: list[str], settings: dict[str, object], log: Path) -> None:
    from lightning_vfe.cli import main

    torch.set_num_threads(1)
    os.chdir(log.parent)
    os.environ.update({name: str(value) for name, value in settings.items()})
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    try:
        sys.exit(main(words))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
