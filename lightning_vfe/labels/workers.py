"""Labelling in parallel processes, each with one thread and a scratch folder for every configuration."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, process, resource_tracker
from typing import Any

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.label import Configuration, Label, ase_label
from lightning_vfe.signals import STOPPING

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
HELD = tuple(number for number in STOPPING if number != signal.SIGTERM)
"""Signals that a process which still imports its modules must not meet; SIGTERM ends it in silence."""
MAX_MESSAGE = 400
"""Characters of a failure's message that are kept."""


@dataclass(frozen=True)
class ProcessLabeller:
    """Runs an ASE calculator in processes of their own.

    A configuration whose calculation fails, or kills its process, gives its message instead of a label; the others go
    on. Closing the iterator ends the processes and what they have started.

    Args:
        make_calculator: builds the ASE calculator; it is pickled into the processes and called once for each label,
            in an empty folder that is removed afterwards.
        num_processes: at least one.

    Raises:
        ValueError: num_processes is not positive.
    """

    make_calculator: Callable[[], Any]
    num_processes: int = 1

    def __post_init__(self) -> None:
        if self.num_processes < 1:
            raise SettingError("num_processes", self.num_processes, "must be at least 1", "one for every core is good")

    def __call__(self, configurations: Sequence[Configuration]) -> Iterator[tuple[int, Label | str]]:
        """(index, label or message) in the order in which they are done."""
        waiting = list(enumerate(configurations))[::-1]
        workers: dict[Any, _Worker] = {}
        try:
            for _ in range(min(self.num_processes, len(waiting))):
                worker = _Worker(self.make_calculator)
                workers[worker.pipe] = worker
                worker.give(*waiting.pop())
            while workers:
                for pipe in connection.wait(list(workers)):
                    worker = workers[pipe]
                    try:
                        result = worker.pipe.recv()
                    except (EOFError, OSError):
                        result = worker.epitaph()
                        del workers[pipe]
                        if waiting:
                            worker = _Worker(self.make_calculator, done=worker.index)
                            workers[worker.pipe] = worker
                    index = worker.index
                    if waiting:
                        worker.give(*waiting.pop())
                    elif pipe in workers:
                        workers.pop(pipe).stop()
                    yield index, result
        finally:
            for worker in workers.values():
                worker.stop()


class _Worker:
    """A process, this end of its pipe, and the number of the configuration that it works at."""

    def __init__(self, make_calculator: Callable[[], Any], done: int = -1) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.index = done
        self.process: process.BaseProcess = context.Process(target=_work, args=(theirs, make_calculator), daemon=True)
        with _one_thread(), _held_signals():
            self.process.start()
        theirs.close()

    def give(self, index: int, configuration: Configuration) -> None:
        self.index = index
        self.pipe.send(configuration)

    def epitaph(self) -> str:
        """Why the process is gone."""
        self.process.join()
        return f"the process of the calculator died with exit code {self.process.exitcode}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


@contextmanager
def _held_signals() -> Iterator[None]:
    """Processes started inside it do not see HELD before they have handlers; this process gets them at the end."""
    resource_tracker.ensure_running()  # its start would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside it, and their children, use one thread each: libraries read this when they load."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(THREADS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Any, make_calculator: Callable[[], Any]) -> None:
    """The process: label what comes through the pipe until it is closed."""
    # Ctrl-C, a closed terminal and SLURM reach all processes; only the first one decides. SystemExit unwinds: a program
    # that the calculator runs is killed and the scratch folder removed.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    while True:
        try:
            pipe.send(_label_in_scratch(make_calculator, pipe.recv()))
        except (EOFError, OSError):
            return  # the first process is gone


def _leave(signal_number: int, _frame: Any) -> None:
    raise SystemExit(128 + signal_number)


def _label_in_scratch(make_calculator: Callable[[], Any], configuration: Configuration) -> Label | str:
    home = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="lightning-vfe-label-") as scratch:
        os.chdir(scratch)
        try:
            return ase_label(make_calculator(), configuration)
        except Exception as error:  # calculators raise whatever they meet
            return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_MESSAGE]
        finally:
            os.chdir(home)
