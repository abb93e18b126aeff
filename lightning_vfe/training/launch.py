"""Run one verb of Lightning's Trainer."""

import logging
import warnings

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_vfe.training.run_folder import StopOnInterrupt

__all__ = ["MisconfigurationException", "launch", "quiet"]


def quiet(seed: int) -> None:
    """Seed all generators, and silence the advice of Lightning that does not fit data made by Markov chains."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # SchNetPack imports the package of Lightning's old name, which sets its level and takes over the messages
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for advice in (
        ".*does not have many workers.*",
        ".*has `__len__` defined.*",
        ".*Total length of .* is zero.*",  # fit has no validation batches
        ".*your dataloader is not resumable.*",  # the datamodule's state holds the walkers
        ".*in eval mode at the start of training.*",  # averages of the parameters are there to be looked at only
        ".*treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", advice)
    L.seed_everything(seed, verbose=False)


def launch(
    trainer: L.Trainer, verb: str, module: L.LightningModule, datamodule: L.LightningDataModule, ckpt_path: str | None
) -> bool:
    """Run `fit`, `validate` or `test`; True when it was interrupted.

    Raises:
        AttributeError: unknown verb.
    """
    try:
        getattr(trainer, verb)(module, datamodule=datamodule, ckpt_path=ckpt_path)
    except SystemExit:
        # Lightning leaves through sys.exit(1) after Ctrl-C
        if trainer.interrupted:
            return True
        raise
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(callback, StopOnInterrupt) and callback.interrupted for callback in callbacks)
