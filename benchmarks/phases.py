"""The phases of an optimisation step of one system, each as a function without arguments."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.chain_density import chain_log_prob
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.conditional import conditional_log_prob
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction, log_psi_of_walkers
from lightning_vfe.optim.exchange import Exchange
from lightning_vfe.optim.natural_gradient import chosen_space
from lightning_vfe.optim.solve import (
    Direction,
    Preconditioner,
    ScoreBlock,
    fisher_and_force,
    in_parameter_space,
    in_sample_space,
)
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import kinetic_energies
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.proposals import GaussianProposal
from lightning_vfe.sampling.proton_moves import ProtonLaw, move_protons
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.state import Walkers, initial_electrons
from lightning_vfe.training.proton_law import proton_law

SUMMED = ("electron sweep", "proton sweep", "kinetic energy", "Ewald")
"""The four phases whose sum is compared with the baseline."""
SCORE_CHUNK = 256
"""Samples whose derivatives are taken at once, as in the default optimizer."""
READOUT = 0.3
"""Spread of the flow's last layer: displacements of some hundredths of rs, as after a training."""


@dataclass(frozen=True)
class Setting:
    """Sizes of the system, of the networks and of the chains."""

    num_atoms: int
    rs: float = 1.25
    temperature_kelvin: float = 6000.0
    num_proton_walkers: int = 16
    num_electron_walkers: int = 8
    num_electron_moves: int = 100
    num_proton_moves: int = 10
    num_layers: int = 4
    single_width: int = 32
    pair_width: int = 16
    num_plane_waves: int = 57
    chain_dtype: torch.dtype | None = None
    """Numbers in the moves of electrons and protons; None for those of all else."""
    compile: bool = False
    """Whether to time a sweep with torch.compile, too."""


class System:
    """Networks and walkers of a setting, on a device and in torch's default type."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        torch.manual_seed(0)
        self.setting = setting
        self.cell = PeriodicCell(setting.num_atoms, setting.rs)
        waves = max(setting.num_plane_waves, setting.num_atoms // 2)
        sizes = (setting.num_layers, setting.single_width, setting.pair_width, waves)
        self.wavefunction = GeminalWavefunction(self.cell, 1, *sizes).to(device)
        flow = EquivariantFlow(self.cell)
        with torch.no_grad():
            for name, parameter in flow.named_parameters():
                if name.endswith("readout"):
                    parameter.normal_(std=READOUT)
        self.density = ProtonDensity(UniformBase(self.cell, setting.temperature_kelvin), flow).to(device)
        self.ewald = Ewald(self.cell)
        random = WalkerRandom([0], 0, device)
        shape = (setting.num_proton_walkers, setting.num_atoms, 3)
        protons = self.cell.length * random.uniform(shape, torch.get_default_dtype())
        self.walkers = Walkers(
            protons=protons,
            electrons=initial_electrons(protons, setting.num_electron_walkers, random, self.cell),
            twists=torch.full_like(protons[:, 0], 0.25),
            proton_log_width=protons.new_tensor(0.05).log(),
            electron_log_width=protons.new_tensor(0.15).log(),
            random=random,
        )

    def phases(self) -> dict[str, Callable[[], object]]:
        """Name and work of every phase, in the order of a step."""
        compiled = {"compiled sweep": self.compiled_sweep} if self.setting.compile else {}
        return {
            "electron sweep": self.electron_sweep,
            **compiled,
            "proton sweep": self.proton_sweep,
            "delayed protons": self.delayed_protons,
            "direct protons": self.direct_protons,
            "kinetic energy": self.kinetic_energy,
            "Ewald": self.ewald_energies,
            "gradients": self.gradients,
            "scores": self.scores,
            "solve": self.solve,
        }

    def electron_sweep(self) -> Tensor:
        """Metropolis moves of all electrons on |psi|^2."""
        return self._sweep(self.wavefunction, self.setting.chain_dtype)

    def compiled_sweep(self) -> Tensor:
        """The same, where torch.compile has made one piece of the streams; they are real and need no derivatives."""
        return self._sweep(self._compiled, None)

    @functools.cached_property
    def _compiled(self) -> GeminalWavefunction:
        compiled = copy.deepcopy(self.wavefunction)
        compiled.backbone.compile()  # at its first call
        return compiled

    def _sweep(self, wavefunction: GeminalWavefunction, dtype: torch.dtype | None) -> Tensor:
        walkers, rule = self.walkers, GaussianProposal()
        log_prob = conditional_log_prob(wavefunction, walkers.protons, walkers.twists, dtype)
        start = rule.evaluate(log_prob, walkers.electrons)
        width, count = walkers.electron_log_width.exp(), self.setting.num_electron_moves
        return metropolis(log_prob, start, rule, width, count, walkers.random, self.cell.wrap)[0].positions

    def proton_sweep(self) -> Tensor:
        """Metropolis moves of the protons on p(x)."""
        walkers, rule = self.walkers, GaussianProposal()
        log_prob = chain_log_prob(self.density, self.setting.chain_dtype)
        with torch.no_grad():
            start = rule.evaluate(log_prob, walkers.protons)
        width, count = walkers.proton_log_width.exp(), self.setting.num_proton_moves
        return metropolis(log_prob, start, rule, width, count, walkers.random, self.cell.wrap)[0].positions

    @torch.no_grad()
    def delayed_protons(self) -> Tensor:
        """As many moves on the cheaper density, and one decision by p(x)."""
        density = proton_law(self.density, "delayed", self.setting.chain_dtype)
        return self._moved(density, self.setting.num_proton_moves)

    @torch.no_grad()
    def direct_protons(self) -> Tensor:
        """Independent protons: base protons drawn anew, and the map inverted."""
        return self._moved(proton_law(self.density, "direct"), 1)

    def _moved(self, density: ProtonLaw, num_moves: int) -> Tensor:
        """Where a sweep takes the protons."""
        width = self.walkers.proton_log_width.exp()
        return move_protons(self.walkers_copy(), density, GaussianProposal(), width, num_moves, self.cell).protons

    def walkers_copy(self) -> Walkers:
        """The walkers, to be moved without moving those of the other phases."""
        return Walkers(**{name: getattr(self.walkers, name) for name in Walkers.__dataclass_fields__})

    def kinetic_energy(self) -> Tensor:
        """Gradient and Laplacian of ln psi."""
        walkers = self.walkers
        return kinetic_energies(self.wavefunction.log_psi, walkers.protons, walkers.electrons, walkers.twists)

    @torch.no_grad()
    def ewald_energies(self) -> Tensor:
        """All Coulomb energies."""
        return self.ewald.energies(self.walkers.protons.unsqueeze(1), self.walkers.electrons).v_pe

    def gradients(self) -> None:
        """Derivatives of a weighted sum of ln psi and ln p by all parameters: what a step of Adam takes."""
        self.wavefunction.zero_grad()
        self.density.zero_grad()
        walkers = self.walkers
        log_psi = log_psi_of_walkers(self.wavefunction, walkers.protons, walkers.electrons, walkers.twists)
        total = log_psi.real.mean() + log_psi.imag.mean() + self.density.log_prob(walkers.protons).mean()
        total.backward()

    def scores(self) -> tuple[Tensor, Tensor]:
        """Derivatives of ln psi and of ln p by all parameters, sample by sample."""
        walkers = self.walkers
        of_electrons = wavefunction_scores(
            self.wavefunction, walkers.protons, walkers.electrons, walkers.twists, SCORE_CHUNK
        )
        return of_electrons, self.density.scores(walkers.protons, SCORE_CHUNK)[1]

    def solve(self) -> list[Direction]:
        """A step of the natural gradient from given scores, in the smaller space, for both networks."""
        found = []
        for block in self._blocks():
            last = block.scores.new_zeros(block.scores.shape[-1])
            settings = Preconditioner(damping=1e-3, momentum=0.9)
            if chosen_space("auto", block.residuals.numel(), len(last)) == "sample":
                found.append(in_sample_space(block, last, settings, Exchange()))
            else:
                found.append(in_parameter_space(*fisher_and_force(block, Exchange()), last.double(), settings))
        return found

    @functools.cache  # noqa: B019  (a system lives as long as the run)
    def _blocks(self) -> list[ScoreBlock]:
        of_electrons, of_protons = self.scores()
        num_walkers, num_electrons = of_electrons.shape[:2]
        walker = torch.arange(num_walkers, device=of_protons.device)
        blocks = []
        for scores, groups in (
            (of_electrons.flatten(0, 1), walker.repeat_interleave(num_electrons)),
            (of_protons.unsqueeze(1), torch.zeros_like(walker)),
        ):
            residuals = torch.randn(scores.shape[:2], dtype=scores.dtype, device=scores.device)
            blocks.append(ScoreBlock(scores, residuals, groups))
        return blocks
