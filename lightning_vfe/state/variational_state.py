"""The variational state: networks, moves and walkers, and everything that is computed with all three."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_vfe.errors import SettingError
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.screening import check_accuracy
from lightning_vfe.physics.statistics import Estimate
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.structures import MIXED, starts_of
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import check_temperature
from lightning_vfe.sampling.electron_moves import ElectronTarget
from lightning_vfe.sampling.nested import SweepReport
from lightning_vfe.sampling.proton_moves import ProtonTarget
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.sampler import Sampler
from lightning_vfe.sampling.walkers import CONSTANT, Walkers, merge_walker_states
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.energies import batch_energies
from lightning_vfe.state.settings import WalkerCounts, chain_dtype, check_energy_moves, check_tempered_base
from lightning_vfe.state.start import starting_protons
from lightning_vfe.state.targets import WalkerTargets

Track = Callable[[Iterable[int]], Iterable[int]]
"""Wraps the numbers of the sweeps, to show each when it is through."""


class VariationalState:
    """p(x), psi_x(r) and the walkers that sample them.

    W proton walkers with B electron walkers each move by one sweep at a time, always with the parameters that the
    networks have. Counts are those of the whole run; each process owns whole walker groups, which carry their own
    random numbers. The chains therefore do not depend on the number of processes. Walkers are placed when they are
    first needed, and equilibrated before they are first used.

    Args:
        system: the particles.
        strata: state points and twists.
        wavefunction: psi_x(r).
        proton_density: p(x); None keeps the protons fixed, and jellium has none.
        sampler: how walkers move.
        num_proton_walkers: W of the whole run, see `WalkerCounts`.
        num_electron_walkers: B for each proton walker.
        num_groups: walker groups, each with its own random numbers.
        structure: where the protons start (or stay): a name of physics/structures.py, a file that ASE reads, or the
            positions at each state point in units of rs  # (S, N, 3); "mixed" takes its two structures in turn.
        seed: of all chains.
        equilibration_sweeps: sweeps before walkers are used.
        chain_precision: precision of ln|psi|^2 in the electrons' moves, and of ln p(x) in Metropolis moves of the
            protons, "float32" or "float64"; None keeps that of the parameters. Energies, gradients and every reported
            number are not affected.
        ewald_accuracy: relative accuracy of the Coulomb energies.

    Attributes:
        walkers: the walkers of this process; None until they are placed.

    Raises:
        ValueError: a setting is out of its range, or counts do not divide.
    """

    def __init__(
        self,
        system: System,
        strata: Strata,
        wavefunction: nn.Module,
        proton_density: ProtonDensity | None,
        sampler: Sampler,
        num_proton_walkers: int = 64,
        num_electron_walkers: int = 8,
        num_groups: int = 8,
        structure: str | Tensor = "random",
        seed: int = 42,
        equilibration_sweeps: int = 100,
        chain_precision: str | None = None,
        ewald_accuracy: float = 1e-8,
    ) -> None:
        check_accuracy(ewald_accuracy, "ewald_accuracy")
        if equilibration_sweeps < 1:
            raise SettingError("equilibration_sweeps", equilibration_sweeps, "must be at least 1")
        for point in strata.points if proton_density is not None else ():
            check_temperature(point.temperature_kelvin, "for T = 0 fix the protons with proton_density=None")
        self.counts = WalkerCounts(num_proton_walkers, num_electron_walkers, num_groups)
        self.counts.check(strata, sampled=proton_density is not None)
        if proton_density is not None:
            check_energy_moves(sampler, strata)
        check_tempered_base(sampler, proton_density)
        if isinstance(structure, str) and structure == MIXED:
            self.counts.check_mixed_starts(strata, sampled=proton_density is not None)
        self.system, self.strata = system, strata
        self.wavefunction, self.proton_density = wavefunction, proton_density
        self.sampler, self.structure, self.seed = sampler, structure, seed
        self.equilibration_sweeps = equilibration_sweeps
        self.ewald = Ewald(system.cell, relative_accuracy=ewald_accuracy)
        self.walkers: Walkers | None = None
        self._chain_dtype = chain_dtype(chain_precision)
        self._made_targets: WalkerTargets | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether no proton moves: the protons are fixed, or there are none."""
        return self.proton_density is None

    # --- walkers ----------------------------------------------------------------------------------------------------

    def place(self, device: torch.device | str | None = None, rank: int = 0, num_ranks: int = 1) -> Walkers:
        """Place this process's walkers at the start; those that are on the device already stay.

        Args:
            device: where the walkers live; None takes that of walkers that are there, or else that of the wavefunction.
            rank: number of this process.
            num_ranks: number of processes.

        Raises:
            ValueError: groups do not divide into the processes, or the structure does not fit.
        """
        if self.walkers is not None and (
            device is None or self.walkers.protons.device.type == torch.device(device).type
        ):
            return self.walkers
        device = next(self.wavefunction.parameters()).device if device is None else device
        self._made_targets = None
        share = self.counts.share(num_ranks)
        groups = range(rank * share, (rank + 1) * share)
        random = WalkerRandom(groups, self.seed, device)
        num_walkers = self.counts.num_proton_walkers // num_ranks
        stratum = self.strata.deal(num_walkers, groups, self.counts.num_groups)
        names = starts_of(self.structure) if isinstance(self.structure, str) else ("",)
        start = self.strata.deal_starts(num_walkers, groups, len(names))
        given = self.system, self.strata, self.structure, self.seed, self.is_fixed
        protons = starting_protons(*given, random, stratum, start)
        walkers = self.put(protons.to(device=device, dtype=torch.get_default_dtype()), stratum, random)
        if len(names) > 1:
            walkers["start"] = start.to(walkers.protons.device)
        return walkers

    def put(self, protons: Tensor, stratum: Tensor, random: WalkerRandom) -> Walkers:
        """Replace the walkers by new ones at given protons.

        Args:
            protons: in units of rs.  # (W, N, 3)
            stratum: number of the stratum of each walker.  # (W,)
            random: streams of the walker groups.
        """
        states = self.strata.walker_states(stratum, like=protons)
        moves = {"twist"} if self.strata.twists.is_random else set()
        constant = tuple(name for name in CONSTANT if name not in moves)
        self.walkers = self.sampler.start(
            protons, states, stratum.to(protons.device), self.counts.num_electron_walkers, random, constant
        )
        return self.walkers

    def equilibrate(
        self, num_sweeps: int | None = None, adapt: bool | None = None, progress: Track | None = None
    ) -> None:
        """Make sweeps that are discarded, until the walkers forget their start.

        Args:
            num_sweeps: at least one; None takes `equilibration_sweeps`.
            adapt: adapt the widths of the moves; None adapts those of new walkers only.
            progress: shows the progress.
        """
        walkers = self.place()
        adapt = not walkers.equilibrated if adapt is None else adapt
        count = self.equilibration_sweeps if num_sweeps is None else num_sweeps
        if count < 1:
            raise SettingError("num_sweeps", count, "must be at least 1")
        sweeps: Iterable[int] = range(count)
        for _ in sweeps if progress is None else progress(sweeps):
            self._sweep(adapt)
        walkers.equilibrated = True

    def sweep(self, adapt: bool = False) -> SweepReport:
        """Move all walkers once with the current parameters; new walkers are equilibrated first.

        Args:
            adapt: adapt the widths of the moves afterwards; they must stay as they are while averages are taken.
        """
        if not self.place().equilibrated:
            self.equilibrate()
        return self._sweep(adapt)

    def _sweep(self, adapt: bool) -> SweepReport:
        walkers = self.place()
        if self.strata.twists.is_random:
            walkers["twist"] = 0.5 - walkers.random.uniform(walkers["twist"].shape, dtype=walkers["twist"].dtype)
        return self.sampler.step(walkers, self.proton_target(), self.electron_target(), adapt, Collectives().sum)

    def electron_target(self) -> ElectronTarget:
        """|psi_x(r)|^2 as the sampler takes it, with the parameters that the network has now."""
        return self._targets().electrons()

    def proton_target(self) -> ProtonTarget | None:
        """p(x), or exp(-E(x)/kT), of the walkers as the sampler takes it, with the parameters that the networks have.

        None for fixed protons.
        """
        return self._targets().protons(self.place().states)

    def _targets(self) -> WalkerTargets:
        if self._made_targets is None:
            models = self.wavefunction, self.proton_density, self.ewald
            sampling = self.sampler.proton_sampling
            self._made_targets = WalkerTargets(*models, sampling, self.strata.twists, self._chain_dtype)
        return self._made_targets

    def batch(self, adapt: bool = False) -> Batch:
        """Move all walkers once and return them."""
        report = self.sweep(adapt)
        return self.current(report)

    def current(self, report: SweepReport | None = None) -> Batch:
        """The walkers at their present positions, in bohr."""
        walkers = self.place()
        states, rs = walkers.states, walkers["rs"][:, None, None]
        protons, electrons = walkers.protons * rs, walkers.electrons * rs.unsqueeze(1)
        return Batch(protons, electrons, states, walkers["stratum"], report or {})

    # --- measurements -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def energies(self, batch: Batch | None = None) -> Sample:
        """All energies of a batch, or of the walkers after a sweep."""
        batch = self.batch() if batch is None else batch
        return batch_energies(self.system, self.ewald, self.wavefunction, self.proton_density, batch)

    @torch.no_grad()
    def expect(self, observable: Callable[[Batch], Tensor], num_sweeps: int = 100) -> list[Estimate]:
        """The mean of an observable over p(x) |psi_x(r)|^2 with its error, for each state point.

        Args:
            observable: a real number for each proton walker (W,), or for each electron walker (W, B), which may be
                flattened (W B,) where the protons are fixed.
            num_sweeps: sweeps to average over.
        """
        series, collectives = [], Collectives()
        for _ in range(num_sweeps):
            batch = self.batch()
            values = observable(batch)
            if values.ndim == 2:
                values = values.flatten() if self.is_fixed else values.mean(1)
            series.append(collectives.gather(values).double().cpu())
        stratum = batch.stratum if len(values) == len(batch.stratum) else self.independent_strata(batch)
        return self.strata.estimate(torch.stack(series), collectives.gather(stratum).cpu())

    def independent_strata(self, batch: Batch) -> Tensor:
        """Stratum of each independent sample: proton walkers (W,), or electron walkers (W B,) of fixed protons."""
        return batch.stratum.repeat_interleave(batch.electrons.shape[1]) if self.is_fixed else batch.stratum

    def scores(self, batch: Batch, chunk_size: int | None = None) -> dict[str, Tensor]:
        """Derivatives of ln psi  # (W, B, 2, P) and, where the protons move, of ln p  # (W, P')."""
        found = {
            "wavefunction": wavefunction_scores(
                self.wavefunction, batch.protons, batch.electrons, batch.states, chunk_size
            )
        }
        if self.proton_density is not None:
            found["flow"] = self.proton_density.scores(batch.protons, batch.states, chunk_size)[1]
        return found

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Walkers of all processes, as plain tensors and numbers; only the first process gets them."""
        if self.walkers is None:
            return {}
        collectives, own = Collectives(), self.walkers.state_dict()
        if collectives.size == 1:
            return own
        # a tensor of another process's GPU would be unpacked onto that GPU
        own["fields"] = {name: value.cpu() for name, value in own["fields"].items()}
        own["log_widths"] = {name: value.cpu() for name, value in own["log_widths"].items()}
        states = collectives.gather_objects(own)
        return {} if states is None else merge_walker_states(states)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the chains of a checkpoint; the walkers must have been placed."""
        assert self.walkers is not None, "place() the walkers before a checkpoint is restored"
        self.walkers.load_state_dict(state)
