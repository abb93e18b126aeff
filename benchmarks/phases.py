"""The phases of an optimisation step of one system, each as a function without arguments."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.twin import Twin
from lightning_vfe.models.wavefunction.paired import log_psi_of_walkers
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.optim.collectives import Collectives
from lightning_vfe.optim.natural_gradient import chosen_space
from lightning_vfe.optim.solve import (
    Direction,
    ScoreBlock,
    SolveSettings,
    fisher_and_force,
    minsr_direction,
    sr_direction,
)
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import coulomb_energies, kinetic_energies
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.metropolis import metropolis
from lightning_vfe.sampling.nested import NestedSampler
from lightning_vfe.sampling.proposals import GaussianProposal, LogProb
from lightning_vfe.sampling.proton_moves import ProtonTarget, move_protons
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import Walkers
from lightning_vfe.state.targets import ProtonTargets, electron_target

SUMMED = ("electron sweep", "proton sweep", "kinetic energy", "Ewald")
"""The four phases whose sum is compared with the baseline."""
PROTON_WIDTH, ELECTRON_WIDTH = 0.05, 0.15
"""Widths of the moves in bohr."""
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


class Phases:
    """Networks and walkers of a setting, on a device and in torch's default type, and what a step does with them."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        torch.manual_seed(0)
        self.setting, system = setting, System(setting.num_atoms)
        strata = Strata.of(setting.rs, setting.temperature_kelvin, twists="baldereschi")
        waves = max(setting.num_plane_waves, setting.num_atoms // 2)
        sizes = (setting.num_layers, setting.single_width, setting.pair_width, waves)
        self.wavefunction = GeminalWavefunction(system, strata.reference, 1, *sizes).to(device)
        flow = EquivariantFlow(system, strata.reference)
        with torch.no_grad():
            for name, parameter in flow.named_parameters():
                if name.endswith("readout"):
                    parameter.normal_(std=READOUT)
        self.density = ProtonDensity(UniformBase(system), flow).to(device)
        self.cell, self.ewald = system.cell, Ewald(system.cell)
        widths = {"initial_proton_width": PROTON_WIDTH / setting.rs}
        widths |= {"initial_electron_width": ELECTRON_WIDTH / setting.rs}
        sampler = NestedSampler(system, **widths)
        random, stratum = WalkerRandom([0], 0, device), torch.zeros(setting.num_proton_walkers, dtype=torch.int64)
        shape = (setting.num_proton_walkers, setting.num_atoms, 3)
        protons = system.cell.length * random.uniform(shape, torch.get_default_dtype())
        self.states = strata.walker_states(stratum, like=protons)
        self.walkers = sampler.start(protons, self.states, stratum, setting.num_electron_walkers, random)
        self.protons = self.walkers.protons * setting.rs  # bohr
        self.electrons = self.walkers.electrons * setting.rs

    def all(self) -> dict[str, Callable[[], object]]:
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
        return self._sweep(self.wavefunction, self._twin)

    def compiled_sweep(self) -> Tensor:
        """The same, where torch.compile has made one piece of the streams; they are real and need no derivatives."""
        return self._sweep(self._compiled, None)

    @functools.cached_property
    def _compiled(self) -> GeminalWavefunction:
        compiled = copy.deepcopy(self.wavefunction)
        compiled.backbone.compile()  # at its first call
        return compiled

    @functools.cached_property
    def _twin(self) -> Twin[GeminalWavefunction] | None:
        dtype = self.setting.chain_dtype
        return None if dtype in (None, self.protons.dtype) else Twin(self.wavefunction, dtype)

    def _sweep(self, wavefunction: GeminalWavefunction, twin: Twin[GeminalWavefunction] | None) -> Tensor:
        log_prob = electron_target(wavefunction, twin)(self.walkers)
        return self._moved("electrons", log_prob, self.setting.num_electron_moves)

    def proton_sweep(self) -> Tensor:
        """Metropolis moves of the protons on p(x)."""
        return self._moved("protons", self._targets("metropolis").at(self.states), self.setting.num_proton_moves)

    def _moved(self, kind: str, log_prob: LogProb, num_moves: int) -> Tensor:
        """Positions after Metropolis moves."""
        walkers, rule = self.walkers, GaussianProposal()
        with torch.no_grad():
            start = rule.evaluate(log_prob, walkers[kind])
        width = walkers.log_widths[kind].exp()
        return metropolis(log_prob, start, rule, width, num_moves, walkers.random, self.cell.wrap)[0].positions

    @functools.cache  # noqa: B019  (the phases live as long as the run)
    def _targets(self, proton_sampling: str) -> ProtonTargets:
        return ProtonTargets(self.density, proton_sampling, self.setting.chain_dtype)

    @torch.no_grad()
    def delayed_protons(self) -> Tensor:
        """As many moves on the cheaper density, and one decision by p(x)."""
        return self._swept(self._targets("delayed").at(self.states), self.setting.num_proton_moves)

    @torch.no_grad()
    def direct_protons(self) -> Tensor:
        """Independent protons: base protons drawn anew, and the map inverted."""
        return self._swept(self._targets("direct").at(self.states), 1)

    def _swept(self, density: ProtonTarget, num_moves: int) -> Tensor:
        """Where a sweep takes the protons."""
        width = self.walkers.log_widths["protons"].exp()
        return move_protons(self.walkers_copy(), density, GaussianProposal(), width, num_moves, self.cell).protons

    def walkers_copy(self) -> Walkers:
        """The walkers, to be moved without moving those of the other phases."""
        return Walkers(dict(self.walkers.fields), dict(self.walkers.log_widths), self.walkers.random)

    def kinetic_energy(self) -> Tensor:
        """Gradient and Laplacian of ln psi."""
        return kinetic_energies(self.wavefunction.log_psi, self.protons, self.electrons, self.states)

    @torch.no_grad()
    def ewald_energies(self) -> Tensor:
        """All Coulomb energies."""
        return coulomb_energies(self.ewald, self.protons.unsqueeze(1), self.electrons, self.states.rs.unsqueeze(1)).v_pe

    def gradients(self) -> None:
        """Derivatives of a weighted sum of ln psi and ln p by all parameters: what a step of Adam takes."""
        self.wavefunction.zero_grad()
        self.density.zero_grad()
        log_psi = log_psi_of_walkers(self.wavefunction, self.protons, self.electrons, self.states)
        total = log_psi.real.mean() + log_psi.imag.mean() + self.density.log_prob(self.protons, self.states).mean()
        total.backward()

    def scores(self) -> tuple[Tensor, Tensor]:
        """Derivatives of ln psi and of ln p by all parameters, sample by sample."""
        of_electrons = wavefunction_scores(self.wavefunction, self.protons, self.electrons, self.states)
        return of_electrons, self.density.scores(self.protons, self.states)[1]

    def solve(self) -> list[Direction]:
        """A step of the natural gradient from given scores, in the smaller space, for both networks."""
        found = []
        for block in self._blocks():
            last = block.scores.new_zeros(block.scores.shape[-1])
            settings = SolveSettings(damping=1e-3, momentum=0.9)
            if chosen_space("auto", block.residuals.numel(), len(last)) == "sample":
                found.append(minsr_direction(block, last, settings, Collectives()))
            else:
                found.append(sr_direction(*fisher_and_force(block, Collectives()), last.double(), settings))
        return found

    @functools.cache  # noqa: B019  (the phases live as long as the run)
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
