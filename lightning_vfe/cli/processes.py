"""How the processes and threads of one command share a machine, and report an error once."""

import os
import sys
import time

from lightning_vfe.workflows.processes import is_first_process

GRACE_SECONDS = 5.0
"""So long a further process waits for the first one to end the run for the same reason."""

WAIT_POLICY = "OMP_WAIT_POLICY"


def wait_passively() -> None:
    """Let threads sleep while they wait for each other, unless the user has chosen otherwise.

    OpenMP's threads spin by default. As soon as anything else runs on the machine, they take its time and lose their
    own. OpenMP reads the variable when torch is loaded, and so do the processes that are started from here.
    """
    os.environ.setdefault(WAIT_POLICY, "passive")


def draw_into_files() -> None:
    """Choose the backend of matplotlib that needs no window, whatever the environment names, such as in a notebook."""
    os.environ["MPLBACKEND"] = "agg"


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
