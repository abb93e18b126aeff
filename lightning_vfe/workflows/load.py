"""A run's folder as objects: its networks and walkers where training left them, its tables and its figures."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from lightning_vfe import __version__
from lightning_vfe.analysis.bracket import bracket_table
from lightning_vfe.analysis.figures import (
    draw_momentum_distribution,
    draw_pair_correlation,
    draw_structure_factor,
    draw_terms,
    draw_training,
)
from lightning_vfe.analysis.run import RunFolder, literature, results_table
from lightning_vfe.errors import SettingError
from lightning_vfe.models.wavefunction.paired import log_psi_of_walkers
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.progress import Progress
from lightning_vfe.resources import data_folder
from lightning_vfe.state.batch import Batch, Sample
from lightning_vfe.state.variational_state import VariationalState
from lightning_vfe.training.variational.module import VariationalFreeEnergy
from lightning_vfe.workflows.build import resume_structure
from lightning_vfe.workflows.checkpoints import load_checkpoint
from lightning_vfe.workflows.energy_surface import EnergySurfaceCalculator
from lightning_vfe.workflows.eos import EquationOfState, eos
from lightning_vfe.workflows.guards import default_dtype, key_errors, memory_bound
from lightning_vfe.workflows.restore import restore
from lightning_vfe.workflows.run_config import CONFIG_FILE, check_readable, embedded_config, read_config
from lightning_vfe.workflows.sample import SampleSettings, sample_state
from lightning_vfe.workflows.samples import Samples
from lightning_vfe.workflows.tasks import task_of


class LoadedRun:
    """A run of `fit` with its networks and walkers.

    Attributes:
        config: the settings of the run.
        module: the LightningModule.
        state: networks, moves and walkers; `state.sweep()` and `state.expect(...)` continue the chains.
        step: optimizer steps of the parameters.

    Args:
        folder: the run folder.
        checkpoint: file of the checkpoint; None takes checkpoints/last.ckpt.

    Raises:
        CommandError: no checkpoint, a damaged one, or one of another version.
    """

    def __init__(self, folder: str | Path, checkpoint: str | Path | None = None) -> None:
        self.folder = data_folder(folder)
        file = self.folder / "checkpoints" / "last.ckpt" if checkpoint is None else Path(checkpoint)
        content = load_checkpoint(file, key="run")
        config = embedded_config(content)
        if config is None and (self.folder / CONFIG_FILE).is_file():
            config = read_config(self.folder)
        if config is None or "state" not in config:
            raise SettingError("run", self.folder, "is no run of the variational free energy", "give one that fit made")
        check_readable(config, self.folder)
        self.config: DictConfig = config
        with default_dtype(config.dtype), key_errors(config), memory_bound(config):
            self.module: VariationalFreeEnergy = task_of(config).build(config)[0]
            restore(self.module, content, "", "run", file)
            self.state: VariationalState = self.module.state
            resume_structure(config, self.state, content)
            self.state.place()
            if content.get("walkers"):
                self.state.load_state_dict(content["walkers"])
        self.step = int(self.module.trained_steps)

    # --- networks at own points -------------------------------------------------------------------------------------

    def at(self, number: int = 0, count: int = 1, twist: int = 0) -> WalkerStates:
        """State point and twist of `count` configurations: the argument `states` of the methods below.

        Args:
            number: of the state point.
            count: W.
            twist: number of the twist.
        """
        strata = self.state.strata
        stratum = torch.full((count,), number * len(strata.twists) + twist)
        return strata.walker_states(stratum, like=next(self.state.wavefunction.parameters()).detach())

    @torch.no_grad()
    def log_psi(self, protons: Tensor, electrons: Tensor, states: WalkerStates | None = None) -> Tensor:
        """ln psi_x(r), complex  # (W, B), of protons (W, N, 3) and electrons (W, B, N, 3) in bohr."""
        return log_psi_of_walkers(self.state.wavefunction, protons, electrons, self._given(states, len(protons)))

    @torch.no_grad()
    def log_prob(self, protons: Tensor, states: WalkerStates | None = None) -> Tensor:
        """ln p(x) in bohr^(-3N)  # (W,), of protons (W, N, 3) in bohr.

        Raises:
            ValueError: the run has fixed protons.
        """
        density = self.state.proton_density
        if density is None:
            raise ValueError("system.protons = fixed: this run has no p(x)")
        return density.log_prob(protons, self._given(states, len(protons)))

    def energies(self, protons: Tensor, electrons: Tensor, states: WalkerStates | None = None) -> Sample:
        """All energies of protons (W, N, 3) with electrons (W, B, N, 3), in bohr."""
        states = self._given(states, len(protons))
        stratum = torch.zeros(len(protons), dtype=torch.int64, device=protons.device)
        return self.state.energies(Batch(protons, electrons, states, stratum, {}))

    def _given(self, states: WalkerStates | None, count: int) -> WalkerStates:
        """The given states, or those of the only state point and twist of the run.

        Raises:
            ValueError: none is given, and the run has several.
        """
        strata = self.state.strata
        if states is None and (len(strata) > 1 or strata.twists.is_random):
            twists = "random twists" if strata.twists.is_random else f"{len(strata.twists)} twists"
            raise ValueError(
                f"states = None: this run has {strata.num_states} state points and {twists}; give states=run.at(...)"
            )
        return self.at(count=count) if states is None else states

    def sample(self, num_samples: int = 100, progress: Progress | None = None, **settings: Any) -> Samples:
        """Independent proton configurations of p(x) with E_psi, E_ML and weights; the walkers of the run do not move.

        Args:
            num_samples: of each state point.
            progress: called with the name of the work, the number of finished parts, and the number of all parts.
            settings: other fields of `SampleSettings`, such as forces=True.

        Raises:
            SettingError: the run has fixed protons, or a setting is out of its range.
        """
        chosen = SampleSettings(num_samples, **settings)
        provenance = {"run": str(self.folder), "step": self.step, "code_version": __version__}
        with default_dtype(self.config.dtype), memory_bound(self.config):
            return sample_state(self.state, chosen, provenance | {"settings": asdict(chosen)}, progress)

    def calculator(self, state: int = 0, **settings: Any) -> EnergySurfaceCalculator:
        """E_psi(x) of the run as a calculator of ASE, with its error and Hellmann-Feynman forces.

        Args:
            state: number of the state point.
            settings: of `EnergySurfaceCalculator`, such as num_sweeps=200.
        """
        return EnergySurfaceCalculator(self.state, state, **settings)

    # --- tables and figures -----------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> RunFolder:
        """What the files of the folder hold."""
        return RunFolder(self.folder)

    @property
    def metrics(self) -> pd.DataFrame:
        """Each training step, by `step`."""
        return self.files.metrics

    @property
    def results(self) -> pd.DataFrame:
        """The results of `test`: quantity, value, error and unit of each term."""
        return results_table(self.files)

    @property
    def bracket(self) -> pd.DataFrame:
        """Upper bound, gaps and the estimate of the exact F from `test`, see `analysis.bracket.bracket_table`."""
        return bracket_table(self.files)

    @property
    def pair_correlation(self) -> pd.DataFrame:
        """g(r) of all kinds of pairs with errors, from `test`."""
        return self.files.pair_correlation

    @property
    def structure_factor(self) -> pd.DataFrame:
        """S(k) of protons, electrons and charge with errors, from `test`."""
        return self.files.structure_factor

    @property
    def momentum_distribution(self) -> pd.DataFrame:
        """n(k) of the electrons with errors, from `test`."""
        return self.files.momentum_distribution

    @property
    def literature(self) -> pd.DataFrame:
        """Published values at the state points of the run."""
        return literature(self.files.system)

    def eos(self) -> EquationOfState:
        """The equation of state of the states of the run, as of `lightning-vfe eos`; writes nothing.

        Raises:
            CommandError: the run is not tested, or has a single state.
        """
        return eos([self.folder])

    def plot_training(self, **settings: Any) -> Figure:
        """The terms of F along the training, see `analysis.figures.draw_training`."""
        return draw_training(self.files, **settings)

    def plot_terms(self) -> Figure:
        """How the terms add up to F; with several state points F, E, S and P."""
        return draw_terms(self.files)

    def plot_pair_correlation(self) -> Figure:
        """g(r)."""
        return draw_pair_correlation(self.files)

    def plot_structure_factor(self) -> Figure:
        """S(k)."""
        return draw_structure_factor(self.files)

    def plot_momentum_distribution(self) -> Figure:
        """n(k) of the electrons."""
        return draw_momentum_distribution(self.files)


def load(folder: str | Path, checkpoint: str | Path | None = None) -> LoadedRun:
    """The run in a folder: networks and walkers of the last checkpoint, tables and figures.

    Args:
        folder: the run folder.
        checkpoint: file of another checkpoint; None takes the last one.

    Raises:
        CommandError: no checkpoint, a damaged one, or one of another version.
    """
    return LoadedRun(folder, checkpoint)
