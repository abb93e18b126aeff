"""The processes of one run: which of them speaks and makes folders."""

import os

from lightning_vfe.errors import SettingError

TASKS = "SLURM_NTASKS"
"""Environment variable with the number of processes of a SLURM step."""
RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables by which launchers number processes."""


def is_first_process() -> bool:
    """Whether this process prints and makes folders."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def started_together() -> bool:
    """Whether torchrun or srun started this process beside others: they decide on their own, and must agree.

    Raises:
        SettingError: the number of tasks of SLURM is no number.
    """
    tasks = os.environ.get(TASKS) or "1"
    if not tasks.isdecimal():
        reason = "in the environment must be a whole number"
        raise SettingError(TASKS, tasks, reason, f"outside of a job of SLURM: unset {TASKS}")
    return "TORCHELASTIC_RUN_ID" in os.environ or int(tasks) > 1


def forget_stale_ranks() -> None:
    """Drop what another job or a container has left in the environment: the only process of a command is the first one.

    To be called before Lightning is imported, which reads the same variables.
    """
    if not started_together():
        for name in RANKS:
            os.environ.pop(name, None)
        if not os.environ.get(TASKS):  # empty: Lightning would read a number from it
            os.environ.pop(TASKS, None)
