"""Fit a potential without Lightning: the members of a committee, a notebook, a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.training.potential.datamodule import LabelDataModule
from lightning_vfe.training.potential.loss import PotentialLoss, predict, set_start
from lightning_vfe.training.potential.metrics import PotentialErrors
from lightning_vfe.training.potential.module import ema_rate, follow, frozen_copy
from lightning_vfe.training.supervised.labelled import BatchOrder, LabelledSet
from lightning_vfe.training.supervised.optimizers import CosineAdamW


def fit_potential(
    potential: Potential,
    train: Sequence[LabelledSet],
    validation: Sequence[LabelledSet] = (),
    steps: int = 1000,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    loss: PotentialLoss | None = None,
    ema_decay: float = 0.99,
    seed: int = 0,
) -> dict[str, float]:
    """Fit on labelled sets with AdamW and a rate that falls along half a cosine; the potential ends as its average.

    Args:
        potential: fitted in place, by the loss of `PotentialModule`.
        train: training sets.
        validation: sets to measure the errors on.
        steps: optimizer steps.
        batch_size: configurations of a batch.
        learning_rate: the first rate.
        loss: weights of energies, forces and pressures.
        ema_decay: of the moving average of the parameters.
        seed: of the order of the batches.

    Returns:
        Errors on the validation sets, empty without them: Ha per atom, Ha/bohr per component, GPa.

    Raises:
        ValueError: steps or batch_size is not positive, or the potential has no parameters.
    """
    if steps < 1 or batch_size < 1:
        raise SettingError("steps", steps, f"and batch_size = {batch_size} must be at least 1")
    loss = loss or PotentialLoss()
    set_start(potential, train, loss)
    average = frozen_copy(potential)
    trained = [parameter for parameter in potential.parameters() if parameter.requires_grad]
    settings = CosineAdamW(learning_rate).configure(trained, steps)
    optimizer, scheduler = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    order, step = BatchOrder([len(part) for part in train], batch_size, seed), 0
    while step < steps:
        for number, index in order:
            batch = train[number].select(index)
            optimizer.zero_grad()
            loss(predict(potential, batch, create_graph=True), batch).backward()
            optimizer.step()
            scheduler.step()
            step += 1
            follow(average, potential, ema_rate(step, ema_decay))
            if step == steps:
                break
    potential.load_state_dict(average.state_dict())
    errors = PotentialErrors()
    for part in validation:
        errors.update(predict(potential, part), part)
    return errors.compute()


class CommitteeTrainer:
    """Trains potentials that differ in their seed: call it with (path of the database, seed).

    Args:
        make_potential: builds an untrained potential.
        steps: optimizer steps of each.
        batch_size: configurations of a batch.
        learning_rate: the first rate.
    """

    def __init__(
        self,
        make_potential: Callable[[], Potential],
        steps: int = 600,
        batch_size: int = 8,
        learning_rate: float = 3e-3,
    ) -> None:
        self.make_potential = make_potential
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate

    def __call__(self, database: str, seed: int) -> Potential:
        """A potential whose parameters, split and order come from the seed; the generators of others stay untouched."""
        data = LabelDataModule(database, self.batch_size, seed=seed)
        data.read()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            potential = self.make_potential()
        train, validation = data.sets["train"], data.sets["validation"]
        fit_potential(potential, train, validation, self.steps, self.batch_size, self.learning_rate, seed=seed)
        return potential.eval()
