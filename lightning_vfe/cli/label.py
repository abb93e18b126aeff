"""The verb `label`: labels of proton configurations, in a database."""

import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from lightning_vfe.cli.banner import Watch
from lightning_vfe.cli.exit_codes import FAILED, STOPPED
from lightning_vfe.workflows.verbs import label


def run(words: Sequence[str], is_dry_run: bool = False) -> int:
    """Label, and print what there is; returns the exit code."""
    watch = Watch("label", is_dry_run)
    with closing(watch):
        found = label(*words, say=partial(print, flush=True), progress=watch.progress, begin=watch.begin)
    if found.failure:
        print(f"error: {found.failure}", file=sys.stderr)
        return FAILED
    print(f"{found.database}: {found.done} labels, {found.failed} failed, {found.pending} still to do")
    if found.signal:
        print("interrupted; the same command continues with what is left")
        return STOPPED + found.signal
    return 0
