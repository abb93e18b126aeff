"""Trainers for tests: on the CPU, without files and output."""

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


def quiet_trainer(max_steps: int, *callbacks: L.Callback, **settings) -> L.Trainer:
    """A trainer of so many steps that writes and prints nothing but what its callbacks do."""
    return L.Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
        callbacks=list(callbacks),
        **settings,
    )
