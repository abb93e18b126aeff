"""How several processes of one command report an error once."""

import os
import sys
import time

from lightning_vfe.workflows.processes import is_first_process

GRACE_SECONDS = 10.0
"""So long a further process waits for the first one to end the run for the same reason."""


def print_error(message: str) -> None:
    """One line on stderr, once for all processes.

    All of them meet most errors, and the first one's end ends the others. A further process that is alone with its
    error, such as a file that its node lacks, outlives that wait and names itself.
    """
    if is_first_process():
        print(f"error: {message}", file=sys.stderr)
        return
    time.sleep(GRACE_SECONDS)
    rank = next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), "?")
    print(f"error: {message} (process {rank} on {os.uname().nodename})", file=sys.stderr)
