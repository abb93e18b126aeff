"""Chains of protons alone on p(x), and independent configurations from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.physics.statistics import integrated_autocorrelation_time
from lightning_vfe.physics.system import NO_PROTONS
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.state.targets import ProtonTargets
from lightning_vfe.state.variational_state import VariationalState

MIN_TIMES = 20.0
"""Autocorrelation times that the pilot must hold, or the time that it shows may be too short."""


@dataclass(frozen=True)
class ProtonDraws:
    """Configurations of p(x) that are independent of each other.

    Attributes:
        protons: in bohr, of one state point after the other, inside the cell.  # (S n, N, 3)
        state: number of the state point.  # (S n,)
        log_prob: ln p(x) in bohr^(-3N).  # (S n,)
        spacing: sweeps between two configurations of a chain.
        autocorrelation_time: of the slowest of ln p and V_pp, in sweeps.
        reasons: why the configurations may be correlated; empty if they are not.
    """

    protons: Tensor
    state: Tensor
    log_prob: Tensor
    spacing: int
    autocorrelation_time: float
    reasons: tuple[str, ...]


def sampled_density(state: VariationalState) -> ProtonDensity:
    """p(x) of a state whose chains sample it.

    Raises:
        SettingError: the protons are fixed, there are none, or the chains of the state do not sample p(x).
    """
    sampling = state.sampler.proton_sampling
    if state.proton_density is None:
        value = "fixed" if state.system.num_protons else NO_PROTONS
        raise SettingError("system.protons", value, "leaves nothing to sample", "take a run with sampled protons")
    if sampling == "ceimc":
        raise SettingError(
            "sampler.proton_sampling", sampling, "does not sample p(x)", "take a run with metropolis or direct"
        )
    return state.proton_density


class ProtonChains:
    """The proton walkers of a state without electrons. The walkers of the state stay where they are.

    Args:
        state: networks and walkers; the chains start at its protons.
        seed: of the chains.

    Raises:
        SettingError: the protons are fixed, or the chains of the state do not sample p(x).
    """

    def __init__(self, state: VariationalState, seed: int) -> None:
        self.density, sampling = sampled_density(state), state.sampler.proton_sampling
        walkers, self.state = state.place(), state
        random = WalkerRandom(range(state.counts.num_groups), seed, walkers.protons.device)
        states = state.strata.walker_states(walkers["stratum"], like=walkers.protons)
        self.walkers = state.sampler.start(walkers.protons.clone(), states, walkers["stratum"], None, random)
        self.index = state.strata.state_index(walkers["stratum"])
        self._targets = ProtonTargets(self.density, sampling)

    def sweep(self, adapt: bool = False) -> None:
        """Move all protons once."""
        self.state.sampler.step(self.walkers, self._targets.at(self.walkers.states), None, adapt)

    @torch.no_grad()
    def log_prob(self) -> Tensor:
        """ln p(x).  # (W,)"""
        states = self.walkers.states
        return self.density.log_prob(self.walkers.protons * states.rs[:, None, None], states)

    def autocorrelation_time(
        self, num_sweeps: int, progress: Callable[[str, int, int], None] = lambda *_: None
    ) -> float:
        """tau = 1 + 2 sum rho_t in sweeps: the longest of ln p and V_pp at all state points."""
        series: list[Tensor] = []
        for done in range(num_sweeps):
            self.sweep()
            progress("pilot", done + 1, num_sweeps)
            coulomb = self.state.ewald.proton_energy(self.walkers.protons) / self.walkers["rs"]
            series.append(torch.stack([self.log_prob(), coulomb]).double().cpu())
        values, longest = torch.stack(series, dim=1), 1.0  # (2, steps, W)
        for number in range(self.state.strata.num_states):
            own = values[..., (self.index == number).cpu()]
            longest = max(longest, *(integrated_autocorrelation_time(each) for each in own))
        return longest


def draw_protons(
    state: VariationalState,
    num_samples: int,
    spacing: int | None = None,
    pilot_sweeps: int = 200,
    seed: int = 42,
    progress: Callable[[str, int, int], None] | None = None,
) -> ProtonDraws:
    """Independent configurations from p(x) of each state point.

    Fresh chains equilibrate for the sweeps of the state. A pilot measures their autocorrelation time tau. All chains
    then give a configuration every ceil(2 tau - 1) sweeps, at which correlations that decay exponentially are about
    exp(-4).

    Args:
        state: networks and walkers, whose walkers stay.
        num_samples: n, for each state point.
        spacing: sweeps between two configurations of a chain; None measures them.
        pilot_sweeps: sweeps that the measurement takes.
        seed: of the chains.
        progress: called with the part of the work, what is done and what there is.

    Raises:
        SettingError: fixed protons, or a number out of its range.
    """
    chains, show = ProtonChains(state, seed), progress or (lambda *_: None)
    for done in range(state.equilibration_sweeps):
        chains.sweep(adapt=True)
        show("equilibration", done + 1, state.equilibration_sweeps)
    tau, reasons = chains.autocorrelation_time(pilot_sweeps, show), []
    if spacing is None and tau * MIN_TIMES > pilot_sweeps:
        reasons.append(
            f"the autocorrelation time of {tau:.0f} sweeps is too long for {pilot_sweeps} sweeps to measure it: "
            f"raise sample.pilot_sweeps to {math.ceil(2 * MIN_TIMES * tau)}"
        )
    elif spacing is not None and spacing < tau:
        reasons.append(f"sample.spacing = {spacing} is below the autocorrelation time of {tau:.1f} sweeps: raise it")
    step = math.ceil(2.0 * tau - 1.0) if spacing is None else spacing
    per_state = int((chains.index == 0).sum())
    rounds, kept = math.ceil(num_samples / per_state), []
    for done in range(rounds):
        for _ in range(step):
            chains.sweep()
        protons = state.system.cell.wrap(chains.walkers.protons) * chains.walkers["rs"][:, None, None]
        kept.append((protons.clone(), chains.log_prob()))
        show("protons", done + 1, rounds)
    protons, log_prob = (torch.stack(each) for each in zip(*kept, strict=True))
    numbers = range(state.strata.num_states)
    own = [(chains.index == number).to(protons.device) for number in numbers]
    return ProtonDraws(
        torch.cat([protons[:, here].flatten(0, 1)[:num_samples] for here in own]),
        torch.arange(len(own)).repeat_interleave(num_samples),
        torch.cat([log_prob[:, here].flatten()[:num_samples] for here in own]),
        step,
        tau,
        tuple(reasons),
    )
