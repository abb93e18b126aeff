"""What the sampler is given of the models: densities of positions in units of rs.

Here, and only here, the walkers' positions become bohr.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_vfe.models.chain_density import chain_log_prob
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.twin import Twin
from lightning_vfe.models.wavefunction.conditional import electron_density, plain_log_prob
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.twists import TwistGrid
from lightning_vfe.sampling.coupled import CoupledDensity
from lightning_vfe.sampling.delayed import DelayedDensity
from lightning_vfe.sampling.direct import TransportedDensity
from lightning_vfe.sampling.electron_moves import ElectronTarget
from lightning_vfe.sampling.proposals import LogProb
from lightning_vfe.sampling.proton_moves import ProtonTarget
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.walkers import Walkers


def in_units_of_rs(log_prob: LogProb, rs: Tensor) -> LogProb:
    """A density of positions in bohr as one of positions in units of rs, up to its constant.

    Args:
        log_prob: (W, ..., N, 3) -> (W, ...).
        rs: # (W,)
    """
    return lambda positions: log_prob(positions * rs.view(-1, *(1,) * (positions.ndim - 1)))


class ProtonTargets:
    """p(x) for each way of sampling it, with the parameters that it has at the time.

    Args:
        density: p(x).
        proton_sampling: "metropolis", "direct", "delayed" or "ceimc". The last one gives the surrogate density alone.
        dtype: precision of chains on p(x), or on the density that stands in for it; None keeps that of p(x). The exact
            decisions of "delayed", and all of "direct", are not affected.
    """

    def __init__(self, density: ProtonDensity, proton_sampling: str, dtype: torch.dtype | None = None) -> None:
        self._density, self._proton_sampling = density, proton_sampling
        own = next((parameter.dtype for parameter in density.flow.parameters()), dtype)
        needs_twin = dtype not in (None, own) and proton_sampling != "direct"
        self._twin = Twin(density, dtype) if needs_twin and dtype is not None else None

    def at(self, states: WalkerStates) -> ProtonTarget:
        """p(x) of walkers at their state points; to be made again for every sweep."""
        if self._proton_sampling == "direct":
            return base_density(self._density, states)
        twin = None if self._twin is None else self._twin.module()
        coarse = self._proton_sampling in ("delayed", "ceimc")
        chain = in_units_of_rs(chain_log_prob(self._density, states, twin, coarse), states.rs)
        if self._proton_sampling != "delayed":
            return chain
        return DelayedDensity(in_units_of_rs(lambda x: self._density.log_prob(x, states), states.rs), chain)


def base_density(density: ProtonDensity, states: WalkerStates) -> TransportedDensity:
    """p(x) by its base density and map, for chains on the base protons."""
    base, flow, rs = density.base, density.flow, states.rs[:, None, None]
    sample = getattr(base, "sample", None)

    def from_base(z: Tensor) -> tuple[Tensor, Tensor]:
        found = flow.from_base(z * rs, states)
        return found.x / rs, found.converged

    def draw(random: WalkerRandom) -> Tensor:
        assert sample is not None
        protons: Tensor = sample(states, random)
        return protons / rs

    def log_prob(z: Tensor) -> Tensor:
        return base.log_prob(z, states if z.ndim == 3 else states.unsqueeze(1))

    return TransportedDensity(
        log_prob=in_units_of_rs(log_prob, states.rs),
        to_base=lambda x: x + flow.displacement(x * rs, states) / rs,
        from_base=from_base,
        sample=None if sample is None else draw,
    )


def electron_target(wavefunction: nn.Module, twin: Twin[nn.Module] | None) -> ElectronTarget:
    """|psi_x(r)|^2 with the parameters that the wavefunction has now.

    Args:
        wavefunction: psi_x(r).
        twin: the wavefunction in the precision of the chains; None keeps its own precision.
    """

    def prepare(walkers: Walkers) -> LogProb:
        states = walkers.states
        protons = walkers.protons * states.rs[:, None, None]
        density = electron_density(wavefunction, protons, states, None if twin is None else twin.dtype)
        if density is not None:
            return density.for_walkers(walkers.electrons.shape[1])
        chain = None if twin is None else twin.module()
        return in_units_of_rs(plain_log_prob(wavefunction, protons, states, chain), states.rs)

    return prepare


def walker_energies(ewald: Ewald, wavefunction: nn.Module) -> Callable[[Walkers], Tensor]:
    """Real part of E_loc of the electrons of walkers, whole cell, Ha.  # (W, B)"""

    def energies(walkers: Walkers) -> Tensor:
        rs = walkers["rs"][:, None, None]
        protons, electrons = walkers.protons * rs, walkers.electrons * rs.unsqueeze(1)
        return local_energy(ewald, wavefunction, protons, electrons, walkers.states).total.real

    return energies


class WalkerTargets:
    """What the sampler is given for a sweep, with the parameters that the networks have at the time.

    Args:
        wavefunction: psi_x(r).
        proton_density: p(x); None for fixed protons.
        ewald: Coulomb energies of the cell.
        proton_sampling: see `ProtonTargets`; with "ceimc" the protons' target is exp(-E(x)/kT).
        twists: of the run.
        dtype: precision of the chains; None keeps that of the networks.
    """

    def __init__(
        self,
        wavefunction: nn.Module,
        proton_density: ProtonDensity | None,
        ewald: Ewald,
        proton_sampling: str,
        twists: TwistGrid,
        dtype: torch.dtype | None,
    ) -> None:
        self._wavefunction, self._ewald, self._twists = wavefunction, ewald, twists
        own = next((parameter.dtype for parameter in wavefunction.parameters()), dtype)
        self._twin = None if dtype is None or dtype == own else Twin(wavefunction, dtype)
        self._protons = None if proton_density is None else ProtonTargets(proton_density, proton_sampling, dtype)
        self._is_coupled = proton_sampling == "ceimc"

    def electrons(self) -> ElectronTarget:
        """|psi_x(r)|^2."""
        return electron_target(self._wavefunction, self._twin)

    def protons(self, states: WalkerStates) -> ProtonTarget | None:
        """p(x), or exp(-E(x)/kT), of walkers at their state points; None for fixed protons."""
        if self._protons is None:
            return None
        target = self._protons.at(states)
        if not self._is_coupled:
            return target
        assert callable(target)
        energies, twists = walker_energies(self._ewald, self._wavefunction), self._twists
        return CoupledDensity(target, self.electrons(), energies, twists.fractions, twists.weights)
