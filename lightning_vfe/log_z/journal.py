"""What an integration tells of its samples while it runs, so that an interrupted one can resume with the same ones."""

from __future__ import annotations

from typing import Any

PART = 25
"""Sweeps of a part: no more than these are lost."""


class SweepJournal:
    """Takes the samples a part at a time, with where the chains stood after it; this one keeps nothing.

    The integration is a function of its settings and its samples. To resume, it begins anew and reads the parts that
    are there in place of making them.
    """

    def read(self, call: int, part: int, num_sweeps: int) -> dict[str, Any] | None:
        """Samples `reduced` (num_sweeps, K, C, S) and state `chains` of a part; None where there is no whole one."""
        del call, part, num_sweeps
        return None

    def write(self, call: int, part: int, content: dict[str, Any]) -> None:
        """Keep a part."""
