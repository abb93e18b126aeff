"""The one kind of error that a user of the command line can mend."""

import difflib
from collections.abc import Iterable


class CommandError(Exception):
    """Bad input. Its message is one line that names the key, its value and the fix; the exit code is 2."""


def one_line(error: BaseException) -> str:
    """The message of another library's error without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def nearest(word: str, choices: Iterable[str]) -> str:
    """The phrase `; did you mean 'x'?`, or nothing where no choice resembles the word.

    A key given by its last part alone (`rs`) is matched with the whole one (`system.rs`), a beginning with the whole
    word.
    """
    choices = list(choices)
    last_parts: dict[str, str] = {}
    for choice in choices:
        last_parts.setdefault(choice.rpartition(".")[2], choice)
    tail = word.rpartition(".")[2]
    found = [last_parts[tail]] if tail in last_parts else difflib.get_close_matches(word, choices, n=1)
    found = found or [choice for choice in choices if len(word) > 1 and choice.startswith(word)]
    found = found or [last_parts[part] for part in difflib.get_close_matches(tail, last_parts, n=1)]
    return f"; did you mean '{found[0]}'?" if found else ""
