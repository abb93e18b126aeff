"""Exit codes of the command; 0 is success."""

FAILED = 1
"""The numbers of a run broke down, its result is not to be trusted, or the machine ended it (a full disk)."""
USAGE_ERROR = 2
"""Bad input."""
STOPPED = 128
"""A signal stopped the work: this plus its number, so 130 after Ctrl-C."""
