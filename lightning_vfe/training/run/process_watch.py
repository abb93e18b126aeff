"""The processes of a run end together: when one dies, the others say so in one line and end, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from lightning_vfe.errors import one_line

PERIOD_SECONDS = 0.5
"""Between two looks at the other processes."""
FAILED = 1
"""Exit code of the processes that are left."""
BROKEN_CONNECTION = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
"""What the errors of torch.distributed have in common, in lower case."""


def has_lost_process(error: BaseException) -> bool:
    """Whether an error means that another process cannot be reached any more."""
    text = one_line(error).lower()
    is_named = isinstance(error, RuntimeError) and any(word in text for word in BROKEN_CONNECTION)
    return is_named or isinstance(error, torch.distributed.DistError)


def lost_process(trainer: L.Trainer) -> str:
    """One line about the process that has died."""
    deadline = time.monotonic() + 2.0 * PERIOD_SECONDS
    processes = _started(trainer)
    while processes and time.monotonic() < deadline:
        for number, process in enumerate(processes, start=1):
            if process.poll():
                return _epitaph(f"process {number}", process.returncode)
        time.sleep(0.1)
    return _epitaph("another process", None)


class ProcessWatch(Callback):
    """Looks after the processes of a run on this machine, while they compute and while they wait for each other.

    The first process looks at those that Lightning has started, and they look at it. Processes of torchrun and srun
    are looked after by these.
    """

    def __init__(self) -> None:
        self._ends = threading.Event()

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to look."""
        self._ends.clear()
        processes, parent = _started(trainer), os.getppid()
        look = (lambda: _look_at(processes)) if processes else (lambda: _look_at_parent(parent))
        if processes or _is_started_by_lightning(trainer):
            threading.Thread(target=self._watch, args=(look,), daemon=True).start()

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """From here on processes may end."""
        self._ends.set()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """The same; but a further process that has lost the first one still ends here."""
        if _started(trainer) or not has_lost_process(exception):
            self._ends.set()

    def _watch(self, look: Any) -> None:
        while not self._ends.wait(PERIOD_SECONDS):
            look()


def _started(trainer: L.Trainer) -> list[subprocess.Popen[bytes]]:
    """The further processes, in the one that Lightning has started them from."""
    return getattr(trainer.strategy.launcher, "procs", [])


def _is_started_by_lightning(trainer: L.Trainer) -> bool:
    launcher = trainer.strategy.launcher
    return hasattr(launcher, "procs") and trainer.local_rank > 0


def _look_at(processes: list[subprocess.Popen[bytes]]) -> None:
    for number, process in enumerate(processes, start=1):
        if process.poll():
            has_spoken = process.returncode > 0
            _end("" if has_spoken else _epitaph(f"process {number}", process.returncode), processes)


def _look_at_parent(parent: int) -> None:
    if os.getppid() != parent:
        is_speaker = os.environ.get("LOCAL_RANK") == "1"
        _end(_epitaph("the first process", None) if is_speaker else "", [])


def _epitaph(who: str, code: int | None) -> str:
    how = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else ""
    return f"{who} of the run has died{how}, and the others end; resume with ckpt_path=last and the run_dir of the run"


def _end(line: str, processes: list[subprocess.Popen[bytes]]) -> None:
    """End this process, wherever its main thread is; files are whole at any time."""
    if line:
        print(f"error: {line}", file=sys.stderr, flush=True)
    for process in processes:
        process.kill()
    os._exit(FAILED)
