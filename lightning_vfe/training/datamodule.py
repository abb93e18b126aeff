"""Batches made by Markov chains on the fly, with the current parameters of the module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_vfe.models.wavefunction.conditional import conditional_log_prob
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.structures import make_structure
from lightning_vfe.physics.twists import fractional_twists
from lightning_vfe.sampling.electron_moves import ElectronDensity
from lightning_vfe.sampling.nested import NestedSampler, SweepReport
from lightning_vfe.sampling.proton_moves import ProtonLaw
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.state import Walkers, merge_walker_states, twist_index
from lightning_vfe.training.batch import Batch
from lightning_vfe.training.module import VariationalFreeEnergy
from lightning_vfe.training.proton_law import proton_law

CHAIN_PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


class MCMCDataModule(L.LightningDataModule):
    """Owns the walkers: W proton walkers with B electron walkers each, moved by one sweep for every batch.

    Counts are those of the whole run; each process owns whole walker groups, which carry their own random numbers, so
    that the trajectories do not depend on the number of processes. `fit` adapts the widths of the moves, `validate`
    and `test` freeze them. The state (walkers, generators, widths) is part of the checkpoint.

    Args:
        cell: the periodic cell.
        sampler: how walkers move.
        num_proton_walkers: W, a multiple of the number of twists and of num_groups. With fixed protons they are copies
            of one structure, each with B electron walkers of its own.
        num_electron_walkers: B.
        num_groups: walker groups with a random stream each; a multiple of the number of processes.
        twists: a grid [n1, n2, n3] or a list of fractional vectors.
        structure: where the protons start (or stay): a name of physics/structures.py or a file that ASE reads.
        protons: "sampled" or "fixed".
        seed: of all chains.
        equilibration_steps: sweeps before the first batch of `fit`, and afresh before `validate` and `test`.
        steps_per_epoch: batches between two ends of an epoch of `fit`.
        validation_steps: batches of `validate`.
        test_steps: batches of `test`.
        chain_precision: type of numbers of ln|psi|^2 in the electrons' moves, and of ln p(x) in Metropolis moves of the
            protons, "float32" or "float64"; None keeps that of the parameters. Energies, gradients and every reported
            number are not affected (see models/wavefunction/conditional.py and models/chain_density.py).

    Raises:
        ValueError: a setting is out of its range, or counts do not divide.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        sampler: NestedSampler,
        num_proton_walkers: int = 64,
        num_electron_walkers: int = 8,
        num_groups: int = 8,
        twists: Sequence[int] | Sequence[Sequence[float]] = (1, 1, 1),
        structure: str = "random",
        protons: str = "sampled",
        seed: int = 42,
        equilibration_steps: int = 100,
        steps_per_epoch: int = 50,
        validation_steps: int = 50,
        test_steps: int = 200,
        chain_precision: str | None = None,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.sampler = sampler
        self.twists = fractional_twists(twists)
        counts = {
            "sampler.num_proton_walkers": num_proton_walkers,
            "sampler.num_electron_walkers": num_electron_walkers,
            "sampler.num_groups": num_groups,
            "datamodule.equilibration_steps": equilibration_steps,
            "datamodule.steps_per_epoch": steps_per_epoch,
            "datamodule.validation_steps": validation_steps,
            "datamodule.test_steps": test_steps,
        }
        for key, value in counts.items():
            if value < 1:
                raise ValueError(f"{key} = {value} must be at least 1")
        if protons not in ("sampled", "fixed"):
            raise ValueError(f"system.protons = {protons!r} is unknown; choose sampled or fixed")
        if protons == "sampled" and num_electron_walkers < 2:
            raise ValueError(
                f"sampler.num_electron_walkers = {num_electron_walkers} must be at least 2: "
                "the gradient compares electron walkers that share their protons"
            )
        if chain_precision not in (None, *CHAIN_PRECISIONS):
            raise ValueError(
                f"sampler.chain_precision = {chain_precision!r} is unknown; choose {' or '.join(CHAIN_PRECISIONS)}"
            )
        if protons == "sampled" and num_proton_walkers < 2:
            raise ValueError(
                f"sampler.num_proton_walkers = {num_proton_walkers} must be at least 2: the gradient compares them"
            )
        if protons == "fixed" and num_proton_walkers * num_electron_walkers < 2 * len(self.twists):
            raise ValueError(
                f"sampler.num_electron_walkers = {num_electron_walkers} must be at least 2: the gradient compares "
                "electron walkers with the same protons and twist"
            )
        if num_proton_walkers % num_groups:
            raise ValueError(
                f"sampler.num_proton_walkers = {num_proton_walkers} must be a multiple of "
                f"sampler.num_groups = {num_groups}"
            )
        # Raises where the walkers are not a multiple of the twists.
        twist_index(len(self.twists), num_proton_walkers, range(num_groups), num_groups)
        self.num_proton_walkers = num_proton_walkers
        self.num_electron_walkers = num_electron_walkers
        self.num_groups = num_groups
        self.chain_dtype = None if chain_precision is None else CHAIN_PRECISIONS[chain_precision]
        self.structure = structure
        self.protons = protons
        self.seed = seed
        self.equilibration_steps = equilibration_steps
        self.steps = {"fit": steps_per_epoch, "validate": validation_steps, "test": test_steps}
        self.walkers: Walkers | None = None
        self.restored = False
        self._strata: torch.Tensor | None = None

    # --- walkers ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Place this process's walkers, unless they exist already."""
        if self.walkers is not None:
            return
        assert self.trainer is not None
        rank, num_ranks = self.trainer.global_rank, self.trainer.world_size
        if self.num_groups % num_ranks:
            raise ValueError(
                f"sampler.num_groups = {self.num_groups} must be a multiple of the number of processes, {num_ranks} "
                f"(trainer.devices times trainer.num_nodes); set sampler.num_groups to {num_ranks} times a whole number"
            )
        share = self.num_groups // num_ranks
        groups = range(rank * share, (rank + 1) * share)
        device = self.trainer.strategy.root_device
        random = WalkerRandom(groups, self.seed, device)
        num_walkers = self.num_proton_walkers // num_ranks

        def place(generator: torch.Generator, count: int) -> torch.Tensor:
            return make_structure(self.structure, self.cell, count, generator)

        protons = random.per_group(place, num_walkers).to(device=device, dtype=torch.get_default_dtype())
        self.walkers = self.sampler.start(protons, self.twists, self.num_electron_walkers, random, self.num_groups)
        self._strata = twist_index(len(self.twists), num_walkers, groups, self.num_groups).to(device)

    def advance(self, adapt: bool) -> SweepReport:
        """One sweep of all walkers with the module's current parameters."""
        assert self.trainer is not None and self.walkers is not None
        module = self.trainer.lightning_module
        if not isinstance(module, VariationalFreeEnergy):
            raise TypeError(f"MCMCDataModule samples for VariationalFreeEnergy, not for {type(module).__name__}")
        twists, wavefunction = self.walkers.twists, module.wavefunction
        protons: ProtonLaw | None = None
        if self.protons == "sampled":
            assert module.proton_density is not None
            protons = proton_law(module.proton_density, self.sampler.proton_sampling, self.chain_dtype)
        return self.sampler.step(
            self.walkers,
            protons,
            ElectronDensity(lambda protons: conditional_log_prob(wavefunction, protons, twists, self.chain_dtype)),
            adapt,
            self._sum_over_processes,
        )

    def _sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        assert self.trainer is not None
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.clone(), reduce_op="sum")

    def batch(self, adapt: bool) -> Batch:
        """Advance the chains and show where they stand."""
        report = self.advance(adapt)
        assert self.walkers is not None and self._strata is not None
        return Batch(self.walkers.protons, self.walkers.electrons, self.walkers.twists, self._strata, report)

    # --- loaders ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one epoch of `fit`."""
        return self._loader("fit")

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Batches of `validate`; none during `fit`, whose chains are not to be disturbed."""
        assert self.trainer is not None
        return [] if self.trainer.state.fn == "fit" else self._loader("validate")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of `test`."""
        return self._loader("test")

    def _loader(self, stage: str) -> DataLoader[Batch]:
        return DataLoader(_Sweeps(self, self.steps[stage], adapt=stage == "fit"), batch_size=None, num_workers=0)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The walkers live on the device already."""
        return batch

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Walkers of all processes, as plain tensors and numbers; called on all of them, but only the first one, which
        writes the checkpoint, gets them."""
        assert self.trainer is not None
        if self.walkers is None:
            return {}
        own = self.walkers.state_dict()
        if self.trainer.world_size == 1:
            return own
        # a tensor of another process's GPU would be unpacked onto that GPU
        own = {name: value.cpu() if isinstance(value, torch.Tensor) else value for name, value in own.items()}
        states: list[Any] | None = [None] * self.trainer.world_size if self.trainer.is_global_zero else None
        torch.distributed.gather_object(own, states)
        return {} if states is None else merge_walker_states(states)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the chains of a checkpoint."""
        assert self.walkers is not None, "Lightning calls setup() before it restores a checkpoint"
        self.walkers.load_state_dict(state_dict)
        self.restored = True


class _Sweeps(IterableDataset[Batch]):
    """Each item is one sweep. It has a length so that the loader does not draw a batch before the step that uses it."""

    def __init__(self, datamodule: MCMCDataModule, num_steps: int, adapt: bool) -> None:
        self.datamodule = datamodule
        self.num_steps = num_steps
        self.adapt = adapt

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.num_steps):
            yield self.datamodule.batch(self.adapt)
