"""A labelling run: sample configurations, label them, and again where a committee of potentials disagrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.labels.committee import Committee, CommitteeSettings, TrainPotential
from lightning_vfe.labels.database import DONE, LabelState
from lightning_vfe.labels.force_check import check_forces
from lightning_vfe.labels.label import Configuration, Labeller, LabellingFailed
from lightning_vfe.labels.store import LabelStore
from lightning_vfe.models.potential.potential import Potential
from lightning_vfe.progress import Progress, unheard
from lightning_vfe.sampling.boltzmann import ChainSettings, sample_configurations
from lightning_vfe.sampling.random import group_seed

FORCE_TOLERANCE = 1e-3
"""Deviation of a force from the finite difference in Ha/bohr above which there is a warning."""


@dataclass
class LabelRun:
    """Labels `num_configurations` of every state in round 0 and in each active round, into a database.

    The configurations of a round are stored before they are labelled, so that a run which was interrupted at any
    moment resumes with the same ones.

    Args:
        store: the database.
        labeller: the calculator, in parallel processes or as a batch.
        states: the state points.
        start_potential: round 0 samples its Boltzmann distribution.
        num_configurations: of each state in each round.
        rounds: active rounds after round 0.
        given: the configurations of round 0 where they are not to be sampled.
        train: fits the members of the committee; not needed without active rounds.
        chains: of all samplings.
        committee: how active rounds choose.
        num_force_checks: labels whose forces are checked at the end.
        seed: of all random numbers.
        report: takes the lines that tell the user what happens.
        progress: hears how far sampling, labelling and the check of the forces are.

    Raises:
        ValueError: a number is out of its range, or the database was begun with another one.
    """

    store: LabelStore
    labeller: Labeller
    states: Sequence[LabelState]
    start_potential: Potential
    num_configurations: int
    rounds: int = 0
    given: Mapping[LabelState, Sequence[Configuration]] | None = None
    train: TrainPotential | None = None
    chains: ChainSettings = field(default_factory=ChainSettings)
    committee: CommitteeSettings = field(default_factory=CommitteeSettings)
    num_force_checks: int = 2
    seed: int = 42
    report: Callable[[str], None] = print
    progress: Progress = unheard

    def __post_init__(self) -> None:
        check_counts(self.num_configurations, self.rounds, self.num_force_checks)
        begun = self.store.metadata.get("sampling")
        sampling = {"num_configurations": self.num_configurations, "seed": self.seed}
        for name, value in sampling.items():
            if begun is not None and begun[name] != value:
                key = "seed" if name == "seed" else f"label.{name}"
                raise SettingError(
                    key,
                    value,
                    f"differs from {begun[name]}, with which {self.store.path} was started",
                    "keep it and raise label.rounds for more labels, or give another label.database",
                )
        self.store.update_metadata(sampling=sampling)

    def run(self) -> None:
        """All rounds, then the check of the forces.

        Raises:
            LabellingFailed: every calculation of the run has failed.
        """
        for number in range(self.rounds + 1):
            if self.store.count(round=number) == 0:
                self._add_round(number)
            label_pending(self.store, self.labeller, f"round {number}", self.report, self.progress)
        report_force_checks(
            self.store,
            self.labeller,
            self.num_force_checks,
            self.seed,
            self.report,
            partial(self.progress, "check forces"),
        )

    def _add_round(self, number: int) -> None:
        if number == 0 and self.given is not None:
            self.store.add_pending([*self.given.items()], number, "file")
        else:
            origin = "start_potential" if number == 0 else "committee"
            self.store.add_pending(self._sampled(number), number, origin)

    def _sampled(self, number: int) -> list[tuple[LabelState, list[Configuration]]]:
        """Configurations of all states for a round."""
        members: list[Potential] = []
        if number > 0:
            assert self.train is not None, "active rounds need a function that trains"
            for member in range(self.committee.size):
                self.report(f"round {number}: training potential {member + 1} of {self.committee.size}")
                members.append(self.train(self.store.path, group_seed(self.seed, 1000 * number + member)))
        batches = []
        for index, state in enumerate(self.states):
            seed = group_seed(self.seed, 1000 * number + 500 + index)
            batches.append((state, self._sample_state(state, members, seed, number)))
        return batches

    def _sample_state(self, state: LabelState, members: list[Potential], seed: int, number: int) -> list[Configuration]:
        cell, count = state.cell, self.num_configurations
        committee = Committee(members, cell)

        def start_energy(positions: torch.Tensor) -> torch.Tensor:
            return self.start_potential.energy(positions, cell)

        energy = committee.energy if members else start_energy
        total = count * self.committee.candidates if members else count
        heard = partial(self.progress, f"sample N = {state.num_atoms}, rs = {state.rs:g}")
        samples = sample_configurations(energy, cell, state.temperature_kelvin, total, self.chains, seed, heard)
        positions = samples.positions
        text = f"round {number}, N = {state.num_atoms}, rs = {state.rs:g}"
        if len({each.temperature_kelvin for each in self.states}) > 1:
            text += f", T = {state.temperature_kelvin:g} K"
        text += f": acceptance {samples.acceptance:.2f}"
        text += f", energy correlated over {samples.autocorrelation_steps:.0f} steps"
        if samples.autocorrelation_steps > self.chains.spacing:
            text += f", more than label.chains.spacing = {self.chains.spacing}: the configurations are correlated"
        if members:
            spread = committee.disagreement(positions)
            text += f"; the committee disagrees by {1e3 * spread[0].median():.2g} mHa per atom"
            text += f" and {1e3 * spread[1].median():.2g} mHa/bohr (medians)"
            positions = positions[committee.select(positions, count, self.committee, seed)]
        self.report(text)
        return [Configuration(one, cell.length) for one in positions.double().numpy()]


def check_counts(num_configurations: int, rounds: int, num_force_checks: int) -> None:
    """Refuse numbers of a `LabelRun` that are out of their range.

    Raises:
        SettingError: the first such number.
    """
    for name, value, least in (
        ("num_configurations", num_configurations, 1),
        ("rounds", rounds, 0),
        ("num_force_checks", num_force_checks, 0),
    ):
        if value < least:
            raise SettingError(name, value, f"must be at least {least}")


def label_pending(
    store: LabelStore, labeller: Labeller, what: str, report: Callable[[str], None], progress: Progress
) -> None:
    """Label all rows that wait, each stored as soon as it is done; failures are stored with their message.

    Raises:
        LabellingFailed: every calculation has failed.
    """
    rows = store.pending()
    if not rows:
        return
    num_failed = 0
    results: Any = labeller([configuration for _, _, configuration in rows])
    progress(f"label {what}", 0, len(rows))
    with closing(results):
        for number, (index, result) in enumerate(results, 1):
            store.finish(rows[index][0], result)
            num_failed += isinstance(result, str)
            progress(f"label {what}", number, len(rows))
    if num_failed:
        failures = store.failures()
        report(f"{len(failures)} configurations have no label, for example row {failures[-1][0]}: {failures[-1][1]}")
    if store.count(state=DONE) == 0:
        raise LabellingFailed(f"no configuration could be labelled, for example: {store.failures()[0][1]}")


def report_force_checks(
    store: LabelStore,
    labeller: Labeller,
    count: int,
    seed: int,
    report: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Check forces and say how they compare; a warning where they are off."""
    if count == 0 or len(store.metadata.get("force_checks", [])) >= count:
        return
    for check in check_forces(store, labeller, count, seed, progress):
        text = f"force of row {check.row}: {check.force:.6f} Ha/bohr, by finite differences "
        text += f"{check.finite_difference:.6f}"
        if check.deviation > FORCE_TOLERANCE:
            text = f"warning: {text}; the calculator's forces are not those of its free energy, check its convergence"
        report(text)
