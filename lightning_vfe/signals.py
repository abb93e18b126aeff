"""Signals that ask a process to end: Ctrl-C, and those of clusters and closing terminals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What is answered: the work ends, and what can be saved is saved."""

Handler = Callable[[int, FrameType | None], None]


class Stopped(KeyboardInterrupt):
    """One of the signals has arrived. Whoever expects Ctrl-C meets it alike.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """A handler that ends the work at once.

    Raises:
        Stopped: always.
    """
    raise Stopped(number)


def signal_of(error: BaseException | None) -> int:
    """Number of the signal behind a KeyboardInterrupt."""
    return int(getattr(error, "number", signal.SIGINT))


def take_signals(handler: Handler) -> dict[int, Any]:
    """Let a handler answer all signals of STOPPING; only the main thread of a process can.

    A SIGHUP that is ignored stays so: `nohup` asks for it.

    Returns:
        The handlers before, by number.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    return {number: signal.signal(number, handler) for number in STOPPING if number not in kept}


@contextmanager
def signals_to(handler: Handler) -> Iterator[None]:
    """Inside it, a handler answers all signals of STOPPING."""
    before = take_signals(handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
