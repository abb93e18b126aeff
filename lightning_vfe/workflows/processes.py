"""The processes of one run: which of them speaks and makes folders."""

import os

RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables by which launchers number processes."""


def is_first_process() -> bool:
    """Whether this process prints and makes folders."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def started_together() -> bool:
    """Whether torchrun or srun started this process beside others: they decide on their own, and must agree."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS") or "1") > 1


def forget_stale_ranks() -> None:
    """Drop what another job or a container has left in the environment: the only process of a command is the first one.

    To be called before Lightning is imported, which reads the same variables.
    """
    if not started_together():
        for name in RANKS:
            os.environ.pop(name, None)
