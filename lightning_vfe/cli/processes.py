"""The processes of one command: which of them speaks, and how the others keep quiet."""

import os
import sys
import time

GRACE_SECONDS = 10.0
"""So long a further process waits for the first one to end the run for the same reason."""


def is_first_process() -> bool:
    """Whether this process prints and makes folders."""
    names = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def started_together() -> bool:
    """Whether torchrun or srun started this process beside others: they decide on their own, and must agree."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


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
