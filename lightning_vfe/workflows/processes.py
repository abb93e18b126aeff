"""The processes of one run: which of them speaks and makes folders."""

import os


def is_first_process() -> bool:
    """Whether this process prints and makes folders."""
    names = ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def started_together() -> bool:
    """Whether torchrun or srun started this process beside others: they decide on their own, and must agree."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS") or "1") > 1
