"""Run one verb of Lightning's Trainer."""

import logging
import os
import signal
import warnings
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import ProgressBar

from lightning_vfe.errors import RunError, SettingError
from lightning_vfe.signals import signal_of
from lightning_vfe.training.run.interrupt import StopOnInterrupt
from lightning_vfe.training.run.process_watch import has_lost_process, lost_process

__all__ = [
    "cluster_plugins",
    "configure_logging",
    "configure_logging_and_seed",
    "is_progress_bar",
    "launch",
]


def configure_logging_and_seed(seed: int) -> None:
    """Seed all generators, and silence Lightning as `configure_logging` does."""
    configure_logging()
    L.seed_everything(seed, verbose=False)


def configure_logging() -> None:
    """Silence the advice of Lightning that does not fit data made by Markov chains."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # SchNetPack imports the package of Lightning's old name, which sets its level and takes over the messages
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for advice in (
        ".*does not have many workers.*",
        ".*`srun` command is available.*",  # one process needs none; the banner tells how many there are
        ".*has `__len__` defined.*",
        ".*Total length of .* is zero.*",  # fit has no validation batches
        ".*your dataloader is not resumable.*",  # the datamodule's state holds the walkers
        ".*in eval mode at the start of training.*",  # averages of the parameters are there to be looked at only
        ".*treespec, LeafSpec.*",
        ".*functional.all_gather is deprecated.*",  # Lightning's affair
        ".*Grad strides do not match bucket view strides.*",  # small matrices: nothing to gain
    ):
        warnings.filterwarnings("ignore", advice)
    if "SLURM_JOB_ID" not in os.environ:  # on a login node or a desktop, no job is meant
        warnings.filterwarnings("ignore", ".*`srun` command is available.*")


def is_progress_bar(callback: object) -> bool:
    """Whether a callback shows how far a run is."""
    return isinstance(callback, ProgressBar)


def cluster_plugins() -> dict[str, Any]:
    """Arguments of Lightning's Trainer that fit the cluster of this process; it finds torchrun and srun by itself.

    Under SLURM Lightning would save in the middle of a step when the time runs out, each process where it stands, and
    put the job into the queue again. StopOnInterrupt ends the step on all processes first; the job's script looks at
    the exit code.

    Raises:
        SettingError: SLURM has several tasks, and Lightning cannot tell how many of them run on each node.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return {}
    try:
        return {"plugins": [SLURMEnvironment(auto_requeue=False)]}
    except RuntimeError as error:  # Lightning numbers the tasks of each node by --ntasks-per-node
        reason = "in the environment is not enough for a job of several processes"
        remedy = "submit with --ntasks-per-node in place of --ntasks; for one process, unset SLURM_NTASKS"
        raise SettingError("SLURM_NTASKS", os.environ.get("SLURM_NTASKS"), reason, remedy) from error


def launch(
    trainer: L.Trainer, verb: str, module: L.LightningModule, datamodule: L.LightningDataModule, ckpt_path: str | None
) -> int:
    """Run `fit`, `validate` or `test`; returns the number of the signal that stopped it, 0 where none did.

    Raises:
        AttributeError: unknown verb.
        FloatingPointError: the numbers of the run are not finite.
        RunError: another process of the run has died.
    """
    try:
        getattr(trainer, verb)(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
    except SystemExit as left:
        # Lightning leaves through sys.exit(1) after Ctrl-C
        if trainer.interrupted:
            return signal_of(left.__context__)
        raise
    except Exception as error:
        line = lost_process(trainer) if has_lost_process(error) else ""
        # met by all processes alike, or by this one alone: the first one reports it
        if trainer.is_global_zero and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        if line:
            raise RunError(line) from error
        raise
    return _received(trainer)


def _received(trainer: L.Trainer) -> int:
    """Number of the signal that stopped the run, or 0."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return max([0, *(callback.received for callback in callbacks if isinstance(callback, StopOnInterrupt))])
