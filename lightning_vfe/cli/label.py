"""The verb `label`: labels of proton configurations, in a database."""

import sys
from collections.abc import Sequence

from lightning_vfe.cli.exit_codes import FAILED, STOPPED
from lightning_vfe.workflows.verbs import label


def run(words: Sequence[str]) -> int:
    """Label, and print what there is; returns the exit code."""
    found = label(*words, say=print)
    if found.failure:
        print(f"error: {found.failure}", file=sys.stderr)
        return FAILED
    print(f"{found.database}: {found.done} labels, {found.failed} failed, {found.pending} still to do")
    if found.signal:
        print("interrupted; the same command continues with what is left")
        return STOPPED + found.signal
    return 0
