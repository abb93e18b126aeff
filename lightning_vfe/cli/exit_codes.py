"""Exit codes of the command; 0 is success."""

FAILED = 1
"""The numbers of a run are not finite, its result is not to be trusted, or the machine ended it (a full disk)."""
USAGE_ERROR = 2
"""Bad input."""
NOT_CONVERGED = 3
"""`test --require-converged`: the sampling or the training has not converged, or nothing is known of the training."""
STOPPED = 128
"""A signal stopped the work: this plus its number, so 130 after Ctrl-C."""
