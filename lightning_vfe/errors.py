"""What a user can put right: one line that names the setting, its value, what is wrong with it, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class CommandError(Exception):
    """Bad input. Its message is one line; the exit code of a command that meets it is 2."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())  # a value may have line breaks


class RunError(Exception):
    """What ends a run whose settings are right, such as a full disk. One line; the exit code of the command is 1."""


class SettingError(CommandError, ValueError):
    """A setting whose value cannot be used.

    Parts of the package name the argument of their constructor; the command line names the key of the config that
    the argument comes from (`workflows.keys.locate`).

    Attributes:
        key: name of the argument, or dotted key of the config.
        value: what was given.
        reason: what is wrong with it, such as "must be positive".
        remedy: what to do, such as "1.25 is usual"; may be empty.
    """

    def __init__(self, key: str, value: Any, reason: str, remedy: str = "") -> None:
        super().__init__(key, value, reason, remedy)
        self.key, self.value, self.reason, self.remedy = key, value, reason, remedy

    def __str__(self) -> str:
        shown = "null" if self.value is None else str(self.value) or "''"
        space = "" if self.reason.startswith((":", ",", ";")) else " "
        text = f"{self.key} = {shown}{space}{self.reason}" + (f"; {self.remedy}" if self.remedy else "")
        return " ".join(text.split())

    def at(self, key: str) -> SettingError:
        """The same error with another key."""
        return type(self)(key, self.value, self.reason, self.remedy)


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(word: str, choices: Iterable[str]) -> str:
    """The phrase `; did you mean 'x'?`, or nothing where no choice resembles the word.

    A key given by its last part alone (`rs`) is matched with the whole one (`system.rs`), a beginning with the whole
    word. The words of Hydra, such as `_target_`, are never meant.
    """
    choices = [choice for choice in choices if not choice.rpartition(".")[2].startswith("_")]
    last_parts: dict[str, str] = {}
    for choice in choices:
        last_parts.setdefault(choice.rpartition(".")[2], choice)
    tail = word.rpartition(".")[2]
    found = [last_parts[tail]] if tail in last_parts else difflib.get_close_matches(word, choices, n=1)
    found = found or [choice for choice in choices if len(word) > 1 and choice.startswith(word)]
    found = found or [last_parts[part] for part in difflib.get_close_matches(tail, last_parts, n=1)]
    return f"; did you mean '{found[0]}'?" if found else ""
