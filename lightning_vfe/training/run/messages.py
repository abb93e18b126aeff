"""What callbacks have to tell at the end of a run; whoever started the run prints it."""

from __future__ import annotations

from lightning.pytorch.callbacks import Callback
from rich.console import RenderableType


class Reporter(Callback):
    """A callback that collects tables and lines instead of printing them.

    Attributes:
        messages: what rich can print, in its order.
    """

    def __init__(self) -> None:
        self.messages: list[RenderableType] = []
