"""How a training shares a machine: threads against processes, alone and beside other work.

    python benchmarks/bench_threads.py
    python benchmarks/bench_threads.py --modes "1 thread" "2 processes" --steps 20

Every mode runs `lightning-vfe fit` of the default with the same walkers. The seconds of a step are the difference of a
long and a short run, so that start and equilibration drop out. The busy rows have one other process for each core that
counts numbers without a pause. `throughput` is how many steps a mode does in the time of one step on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

CORES = len(os.sched_getaffinity(0))
SHORT = 2
"""Steps of the shorter run."""
MODES: dict[str, tuple[dict[str, str], list[str]]] = {
    "1 thread": ({"OMP_NUM_THREADS": "1"}, []),
    f"{CORES} threads": ({"OMP_NUM_THREADS": str(CORES)}, []),
    f"{CORES} processes": ({}, [f"trainer.devices={CORES}", "trainer.strategy=ddp"]),
    "default": ({}, []),
}
"""Environment and settings of every mode."""


@contextlib.contextmanager
def busy(num_processes: int) -> Iterator[None]:
    """Processes that want a core each, all the time."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds_of_run(mode: str, num_steps: int) -> float:
    """Seconds of the clock of a whole run."""
    environment, settings = MODES[mode]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lightning_vfe", "fit", f"run_dir={folder}/run"]
        command += [f"trainer.max_steps={num_steps}", "trainer.accelerator=cpu", "logger=csv"]
        command += ["datamodule.equilibration_steps=1", *settings]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
        return time.perf_counter() - start


def seconds_per_step(mode: str, num_steps: int) -> float:
    """Seconds of one step, without start and equilibration."""
    return (seconds_of_run(mode, SHORT + num_steps) - seconds_of_run(mode, SHORT)) / num_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--steps", type=int, default=12, help="steps between the long and the short run")
    given = parser.parse_args()
    print(f"{CORES} cores; seconds of a step of the default")
    print(f"| mode | alone | throughput | beside {CORES} busy processes | ratio |")
    print("| --- | --- | --- | --- | --- |")
    reference = None
    for mode in given.modes:
        alone = seconds_per_step(mode, given.steps)
        reference = alone if reference is None else reference
        with busy(CORES):
            beside = seconds_per_step(mode, given.steps)
        print(f"| {mode} | {alone:.2f} | {reference / alone:.2f} | {beside:.2f} | {beside / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
