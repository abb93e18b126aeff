"""How far a piece of work is: one live line on a terminal, and elsewhere a line with a time stamp now and then."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lightning_vfe.errors import SettingError

Progress = Callable[[str, int, int], None]
"""Hears what is done, how many parts of it are through, and how many there are."""
Begin = Callable[[Any, Mapping[str, Any]], None]
"""Hears the config of a command, and what its work is about, before it begins."""

RATE_WINDOW = 64
"""Parts over which the speed is averaged."""
REFRESH_SECONDS = 0.1
BAR_WIDTHS = (6, 20)
"""The least and the largest width of the bar, which takes what the numbers leave."""


def unheard(_what: str, _done: int, _total: int) -> None:
    """A Progress that nobody hears."""


class ProgressLine:
    """Shows one kind of work after the other; the last state of each stays.

    On a terminal the line is as wide as the terminal, and the first values stay where not all of them fit. In a pipe or
    a file every line is whole, begins with the time and is written at once; there are no carriage returns.

    Args:
        progress_seconds: between two lines where nobody watches a terminal.

    Raises:
        SettingError: progress_seconds is not positive.
    """

    def __init__(self, progress_seconds: float = 30.0) -> None:
        if not progress_seconds > 0:
            raise SettingError("progress_seconds", progress_seconds, "must be positive", "30 is the usual choice")
        self.progress_seconds = progress_seconds
        self._what, self._live = "", None  # type: tuple[str, Live | None]
        self._done, self._total, self._values = 0, None, {}  # type: tuple[int, int | None, Mapping[str, str]]
        self._began = self._shown = 0.0
        self._times: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)

    def show(self, what: str, done: int, total: int | None = None, values: Mapping[str, str] | None = None) -> None:
        """Show a state.

        Args:
            what: the kind of work.
            done: parts that are through.
            total: all parts; None where their number is not known.
            values: what stands behind it, the most important first.
        """
        now = time.monotonic()
        if what != self._what or total != self._total or done < self._done:
            self.close()
            self._what, self._began, self._shown = what, now, 0.0
            self._times.clear()
        self._done, self._total, self._values = done, total, dict(values or {})
        self._times.append((now, done))
        on_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        if not self._shown or now - self._shown >= (REFRESH_SECONDS if on_terminal else self.progress_seconds):
            self._shown = now
            self._draw() if on_terminal else self._print()

    def say(self, text: str) -> None:
        """Print a line of its own, above the live line of a terminal."""
        if self._live is None:
            print(f"{_stamp()}  {text}", flush=True)
        else:
            self._live.console.print(text, highlight=False, soft_wrap=True)

    @property
    def what(self) -> str:
        """The kind of work that is shown; empty for none."""
        return self._what

    def track(self, what: str, parts: Iterable[int], total: int) -> Iterator[int]:
        """The parts, one after the other, each shown when it is through."""
        self.show(what, 0, total)
        for number, part in enumerate(parts, 1):
            yield part
            self.show(what, number, total)
        self.close()

    def close(self) -> None:
        """Leave the last state as it stands."""
        if self._live is not None:
            self._draw()
            self._live.stop()
        elif self._what and self._shown != self._times[-1][0]:
            self._print()
        self._what, self._live, self._done, self._total = "", None, 0, None

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(console=Console(file=sys.stdout), auto_refresh=False)
            self._live.start()
        text = fitted_line(self._head(), self._values, self._fraction(), self._live.console.width - 1)
        self._live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

    def _print(self) -> None:
        print(f"{_stamp()}  {'  '.join([*self._head(), *_pairs(self._values)])}", flush=True)

    def _fraction(self) -> float | None:
        return self._done / self._total if self._total else None

    def _head(self) -> tuple[str, str]:
        """The count, and the time that is left or was taken."""
        (first, before), (last, _) = self._times[0], self._times[-1]
        if self._total is None:
            return f"{self._what} {self._done}", f"after {duration(last - self._began)}"
        count = f"{self._what} {self._done}/{self._total}"
        if self._done >= self._total:
            return count, f"in {duration(last - self._began)}"
        if self._done == before:
            return count, "-:-- left"
        return count, f"{duration((last - first) / (self._done - before) * (self._total - self._done))} left"


def fitted_line(head: tuple[str, str], values: Mapping[str, str], fraction: float | None, width: int) -> str:
    """Head and values in one line: the first values that fit, and a bar where there is room.

    Args:
        head: the count, and the time.
        values: the most important first.
        fraction: that is done, for the bar; None for no bar.
        width: of the line in characters.
    """
    tail = head[1]
    for pair in _pairs(values):
        if len(head[0]) + len(tail) + len(pair) + 2 > width:
            break
        tail += f" {pair}"
    room = min(BAR_WIDTHS[1], width - len(head[0]) - len(tail) - 2)
    if fraction is None or room < BAR_WIDTHS[0]:
        return f"{head[0]} {tail}"
    filled = round(room * min(1.0, fraction))
    return f"{head[0]} {'█' * filled}{'░' * (room - filled)} {tail}"


def duration(seconds: float) -> str:
    """A time as m:ss, h:mm:ss, or days and hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def words(seconds: float) -> str:
    """A time in words, as 40 s, 21 min 54 s, 2 h 5 min, or days and hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _stamp() -> str:
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]
