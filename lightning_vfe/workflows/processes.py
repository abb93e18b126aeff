"""The processes of one run: which of them speaks and makes folders."""

import os

from lightning_vfe.errors import SettingError

TASKS = "SLURM_NTASKS"
"""Environment variable with the number of processes of a SLURM step."""
RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")
"""Environment variables by which launchers number processes."""
LAUNCHERS = {
    "WORLD_SIZE": "torchrun",
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}
"""Environment variables with a number of processes, and the launchers that set them."""


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


def check_launcher(num_processes: int) -> None:
    """Compare the number of processes that a launcher has started with that of the command.

    Processes that do not know of each other would all write the same files.

    Args:
        num_processes: of the command.

    Raises:
        SettingError: they differ, or the launcher is mpirun, whose processes PyTorch does not join.
    """
    started = {name: int(text) for name in LAUNCHERS if (text := os.environ.get(name, "")).isdecimal()}
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        started.pop("WORLD_SIZE", None)  # left by another job, or by a container with a meaning of its own
    if "SLURM_STEP_NUM_TASKS" in started:
        started.pop("PMI_SIZE", None)  # which srun sets, too
    for name, count in started.items():
        launcher, wanted = LAUNCHERS[name], f"trainer.devices={count} trainer.strategy=ddp"
        if count > 1 and launcher == "mpirun":
            reason = f"in the environment: mpirun has started {count} processes, which do not know of each other"
            raise SettingError(name, count, reason, f"start one process with {wanted}, or use torchrun or srun")
        if count not in (1, num_processes):
            reason = (
                f"in the environment: {launcher} has started {count} processes, but this command has {num_processes}"
            )
            raise SettingError(name, count, reason, f"give fit or test {wanted}, or start one process")


def forget_stale_ranks() -> None:
    """Drop what another job or a container has left in the environment: the only process of a command is the first one.

    To be called before Lightning is imported, which reads the same variables.
    """
    if not started_together():
        for name in RANKS:
            os.environ.pop(name, None)
        if not os.environ.get(TASKS):  # empty: Lightning would read a number from it
            os.environ.pop(TASKS, None)
