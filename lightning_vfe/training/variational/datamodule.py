"""Batches made by Markov chains on the fly, with the current parameters of the networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.state.batch import Batch
from lightning_vfe.state.settling import Settling, settle
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.run.step_bar import tracked
from lightning_vfe.training.variational.ending import wanted_errors
from lightning_vfe.training.variational.state_result import NEEDS_INVERTIBLE_MAP


class MCMCDataModule(L.LightningDataModule):
    """One sweep of the walkers for every batch.

    New walkers are equilibrated before the first batch of `fit`, and all walkers again before those of `validate` and
    `test`. `fit` adapts the widths of the moves, `validate` and `test` freeze them. A resumed `fit` continues with the
    walkers of the checkpoint as they are.

    Args:
        state: networks and walkers.
        equilibration_steps: sweeps before the first batch of `fit`, and again before `validate` and `test`. These two
            add more while the walkers drift.
        steps_per_epoch: batches in an epoch of `fit`.
        validation_steps: batches of `validate`.
        test_steps: batches of `test`; with a target_error the smallest number.
        target_error: error of F per atom in Ha at which `test` ends, at all state points; or the errors of several
            terms by their names in summary.json, {"free_energy_per_atom": 0.0005, "pressure_gpa": 2.0}. None measures
            test_steps.
        max_test_steps: with a target_error the largest number of batches of `test`.

    Attributes:
        settling: how the equilibration before `validate` or `test` ended; None before.

    Raises:
        ValueError: a number is below one, max_test_steps is below test_steps, or the target_error cannot be used.
    """

    def __init__(
        self,
        state: VariationalState,
        equilibration_steps: int = 100,
        steps_per_epoch: int = 50,
        validation_steps: int = 50,
        test_steps: int = 200,
        target_error: float | dict[str, float] | None = None,
        max_test_steps: int = 10_000,
    ) -> None:
        super().__init__()
        counts = {"equilibration_steps": equilibration_steps, "steps_per_epoch": steps_per_epoch}
        counts |= {"validation_steps": validation_steps, "test_steps": test_steps, "max_test_steps": max_test_steps}
        for name, value in counts.items():
            if value < 1:
                raise SettingError(name, value, "must be at least 1")
        self.wanted_errors, self.test_steps = wanted_errors(target_error), test_steps
        if self.wanted_errors and max_test_steps < test_steps:
            reason = f"is below datamodule.test_steps = {test_steps}, the least number"
            raise SettingError("max_test_steps", max_test_steps, reason, "lower that, or raise this")
        if not state.is_fixed and state.sampler.proton_sampling == "ceimc":
            for name in NEEDS_INVERTIBLE_MAP:
                if name in self.wanted_errors:
                    reason = f"is that of {name}, which the chains of sampler.proton_sampling=ceimc do not give"
                    remedy = "give target_error={energy_per_atom: 0.001}"
                    raise SettingError("target_error", self.wanted_errors[name], reason, remedy)
        self.state, self.equilibration_steps = state, equilibration_steps
        self.settling: Settling | None = None
        most = max_test_steps if self.wanted_errors else test_steps
        self.steps = {"fit": steps_per_epoch, "validate": validation_steps, "test": most}

    @override
    def setup(self, stage: str) -> None:
        """Place this process's walkers, unless they exist already."""
        assert self.trainer is not None
        if stage == "fit":
            self.check_fit()
        self.state.place(self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size)

    def check_fit(self) -> None:
        """Refuse to train on protons that are not those of p(x).

        Raises:
            ValueError: the protons are moved by the energies of psi_x.
        """
        if not self.state.is_fixed and self.state.sampler.proton_sampling == "ceimc":
            reason = "is for validate and test: its protons are not those of p(x), so that fit finds no gradient"
            raise SettingError("proton_sampling", "ceimc", reason, "train with sampler.proton_sampling=direct")

    # --- loaders ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one epoch of `fit`."""
        return self._loader("fit")

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of `validate`; none during `fit`, since they would move its chains."""
        assert self.trainer is not None
        return [] if self.trainer.state.fn == "fit" else self._loader("validate")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of `test`."""
        return self._loader("test")

    def _loader(self, stage: str) -> DataLoader[Batch]:
        return DataLoader(_Sweeps(self, stage, self.steps[stage]), batch_size=None, num_workers=0)

    def equilibrate(self, stage: str) -> None:
        """Equilibrate the walkers before the first batch of a stage."""
        walkers = self.state.walkers
        assert walkers is not None, "Lightning calls setup() first"
        if stage != "fit":
            self.settling = settle(self.state, self.equilibration_steps, self._progress)
        elif not walkers.equilibrated:
            self.state.equilibrate(self.equilibration_steps, progress=self._progress)

    def _progress(self, sweeps: Iterable[int]) -> Iterable[int]:
        sweeps = list(sweeps)
        return tracked(self.trainer, "equilibrate", sweeps, len(sweeps))

    @override
    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch: the walkers are on the device already."""
        return batch


class _Sweeps(IterableDataset[Batch]):
    """Each item is one sweep. It has a length so that the loader does not draw a batch before the step that uses it."""

    def __init__(self, datamodule: MCMCDataModule, stage: str, num_steps: int) -> None:
        self.datamodule, self.stage, self.num_steps = datamodule, stage, num_steps

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Batch]:
        self.datamodule.equilibrate(self.stage)
        trainer = self.datamodule.trainer
        for _ in range(self.num_steps):
            if self.stage == "test" and trainer is not None and trainer.should_stop:
                return
            yield self.datamodule.state.batch(adapt=self.stage == "fit")
