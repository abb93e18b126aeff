"""Exit codes of the command; 0 is success."""

FAILED = 1
"""The numbers of a run broke down, or its result is not to be trusted."""
USAGE_ERROR = 2
"""Bad input."""
STOPPED = 128
"""A signal stopped the run: this plus its number."""
INTERRUPTED = STOPPED + 2
"""Ctrl-C."""
