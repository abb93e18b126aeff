"""The nested average E_{x~p} E_{r~|psi_x|^2}: proton moves, then electron moves in the field of the new protons."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.sampling.adaptation import (
    FIRST_STEPS,
    adapt_log_width,
    adapt_num_steps,
    log_width_limits,
)
from lightning_vfe.sampling.coupled import CoupledDensity, ElectronSteps
from lightning_vfe.sampling.electron_moves import ElectronTarget, describe, move_electrons
from lightning_vfe.sampling.metropolis import num_not_finite
from lightning_vfe.sampling.moves import global_fraction
from lightning_vfe.sampling.proposals import Proposal, make_proposal
from lightning_vfe.sampling.proton_moves import ProtonTarget, check_proton_sampling, move_protons
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.settings import AUTO, fraction, positive, positive_integer, steps_or_auto
from lightning_vfe.sampling.space_warp import space_warp
from lightning_vfe.sampling.tempering import check_tempering
from lightning_vfe.sampling.walkers import CONSTANT, Walkers, initial_electrons

SweepReport = dict[str, Tensor]
"""What one sweep did, over all walkers of all processes; each move reports what it has.  # () each

    electron_acceptance, proton_acceptance: accepted fractions; of the moves of base protons where p(x) is sampled
        directly, 1 where these are drawn independently; of the moves on the surrogate density where acceptance is
        delayed.
    electron_width_rs, proton_width_rs: widths of the moves in units of rs, as used in this sweep.
    electron_drift: mean of ln|psi|^2 at the end of the electron moves minus that three quarters through them. Its
        average over sweeps vanishes once num_electron_steps lets the electrons forget how they were carried along; a
        positive average means that they lag behind the protons, and a biased energy.
    electron_memory: rank correlation of ln|psi|^2 between the same two times, see `memory_counts`.
    electron_gain: mean of ln|psi|^2 at the end of the electron moves minus that at their start.
    electron_steps: electron moves of this sweep.
    num_stranded: chains that stand where ln p is not finite; not zero means a broken density.
    num_failed_inversions: proton walkers whose map could not be inverted, and which stayed.
    exchange_acceptance_k: fraction of the exchanges of the chains k and k + 1 of a tempered base, at most about 1/2.
    delayed_acceptance: accepted fraction of the ends of the chains on the surrogate density.
    ceimc_acceptance: the same where they are accepted by the energies of psi_x.
    ceimc_noise: mean of (s/kT)^2, s the standard error of a difference of energies.
    ceimc_noise_per_freedom: mean of the same over the degrees of freedom of s.
    ceimc_penalty: mean of what the noise takes off the logarithm of the acceptance.
    ceimc_failed_warps: fraction of the proposals that are rejected since their electrons cannot be carried along.
"""


class NestedSampler:
    """Samples x ~ p(x), then r ~ |psi_x|^2 for every x, by Metropolis moves of all particles of a walker at once.

    Chains run in units of rs: walkers of all densities share one cell and the widths of their moves.

    Args:
        system: the particles.
        proton_proposal: "gaussian", "langevin", "hamiltonian" or a rule.
        electron_proposal: "gaussian", "langevin", "hamiltonian" or a rule.
        num_proton_steps: Metropolis steps of the protons (or base protons) in a sweep.
        num_electron_steps: Metropolis steps of the electrons in a sweep, after the protons have moved; "auto" adapts
            them with the widths, see `adapt_num_steps`.
        proton_target_acceptance: target accepted fraction, in (0, 1); None takes the rule's own.
        electron_target_acceptance: the same for electrons.
        initial_proton_width: width of the first proton moves in units of rs.
        initial_electron_width: width of the first electron moves in units of rs.
        adaptation_gain: change of ln(width) per sweep and unit of acceptance off the target.
        proton_sampling: "metropolis" moves the protons x on p(x); "direct" moves the base protons z, on p_base(z), and
            inverts the map; "delayed" moves x on a cheaper density and decides once, at the end, by p(x); "ceimc" moves
            x in the same way, decides by the energies of psi_x, and samples exp(-E(x)/kT) in place of p(x). `step`
            needs the proton target of this method.
        ceimc_electron_walkers: electron walkers of each energy difference of "ceimc", for each proton walker.
        ceimc_proton_width: width of the proton moves of "ceimc" in units of rs; it does not adapt.
        tempering: factors of T of the chains of base protons that exchange their positions, such as [1.0, 1.5, 2.2];
            None has one chain for each walker. Only "direct" has such chains.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        system: System,
        proton_proposal: str | Proposal = "gaussian",
        electron_proposal: str | Proposal = "gaussian",
        num_proton_steps: int = 10,
        num_electron_steps: int | str = 30,
        proton_target_acceptance: float | None = None,
        electron_target_acceptance: float | None = None,
        initial_proton_width: float = 0.08,
        initial_electron_width: float = 0.24,
        adaptation_gain: float = 1.0,
        proton_sampling: str = "metropolis",
        ceimc_electron_walkers: int = 64,
        ceimc_proton_width: float = 0.08,
        tempering: list[float] | None = None,
    ) -> None:
        self.cell, self.num_protons = system.cell, system.num_protons
        self.proton_sampling = check_proton_sampling(proton_sampling)
        self.proton_proposal = make_proposal(proton_proposal, "proton_proposal")
        self.electron_proposal = make_proposal(electron_proposal, "electron_proposal")
        self.num_proton_steps = positive_integer("num_proton_steps", num_proton_steps)
        self.num_electron_steps = steps_or_auto("num_electron_steps", num_electron_steps)
        self.proton_target_acceptance = fraction(
            "proton_target_acceptance", proton_target_acceptance, self.proton_proposal.target_acceptance
        )
        self.electron_target_acceptance = fraction(
            "electron_target_acceptance", electron_target_acceptance, self.electron_proposal.target_acceptance
        )
        self.initial_proton_width = positive("initial_proton_width", initial_proton_width)
        self.initial_electron_width = positive("initial_electron_width", initial_electron_width)
        self.adaptation_gain = positive("adaptation_gain", adaptation_gain)
        self.ceimc_electron_walkers = positive_integer("ceimc_electron_walkers", ceimc_electron_walkers)
        self.ceimc_proton_width = positive("ceimc_proton_width", ceimc_proton_width)
        self.tempering = check_tempering(tempering, proton_sampling)

    def start(
        self,
        protons: Tensor,
        states: WalkerStates,
        stratum: Tensor,
        num_electron_walkers: int | None,
        random: WalkerRandom,
        constant: tuple[str, ...] = CONSTANT,
    ) -> Walkers:
        """New walkers at given protons, with one electron near every proton, or at random positions without protons.

        Args:
            protons: in units of rs, the walkers of this process, on random's device.  # (W, N, 3)
            states: their state points and twists.  # (W,)
            stratum: number of the stratum of each walker.  # (W,)
            num_electron_walkers: B; None for chains of protons alone.
            random: streams of this process's walker groups.
            constant: see `Walkers`.

        Returns:
            Walkers that have not been equilibrated.

        Raises:
            ValueError: wrong shape of protons, walkers that do not divide into groups, no electron walker, or a single
                one where the number of their moves adapts.
        """
        if protons.ndim != 3 or tuple(protons.shape[1:]) != (self.num_protons, 3):
            raise ValueError(f"protons have shape {tuple(protons.shape)}; the cell needs (W, {self.num_protons}, 3)")
        random.walkers_per_group(protons.shape[0])
        protons = self.cell.wrap(protons)
        fields = {"protons": protons, "rs": states.rs, "kT": states.kT, "twist": states.twist, "stratum": stratum}
        log_widths = {"protons": protons.new_tensor(math.log(self.initial_proton_width))}
        if num_electron_walkers is not None:
            positive_integer("num_electron_walkers", num_electron_walkers)
            fields["electrons"] = initial_electrons(protons, num_electron_walkers, random, self.cell, 1.0 / states.rs)
            log_widths["electrons"] = protons.new_tensor(math.log(self.initial_electron_width))
        electron_steps = None
        if num_electron_walkers is not None and self.num_electron_steps == AUTO:
            electron_steps = FIRST_STEPS
            if num_electron_walkers < 2:
                reason = "compares electron walkers that share their protons, of which there is one"
                raise SettingError("num_electron_steps", AUTO, reason, "give a number")
        return Walkers(fields, log_widths, random, constant, electron_steps)

    @torch.no_grad()
    def step(
        self,
        walkers: Walkers,
        proton_target: ProtonTarget | None,
        electron_target: ElectronTarget | None,
        adapt: bool,
        sum_over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> SweepReport:
        """One sweep, in place: proton moves, electrons carried along, electron moves.

        The proton chain does not depend on the electrons, so that it samples p(x). The electron moves leave |psi_x|^2
        of the new x invariant: any start of the electrons is valid. The electrons start where the space warp has
        carried them, so that fewer moves are needed (it needs no Jacobian, as it is only a start). What remains of the
        start after num_electron_steps moves is a bias. electron_drift shows it, and so does a larger
        num_electron_steps.

        Args:
            walkers: updated in place.
            proton_target: p(x), in one of the ways of `ProtonTarget`; None keeps the protons fixed.
            electron_target: |psi_x|^2; None for walkers without electrons.
            adapt: adapt widths and numbers of moves after the sweep; False freezes them, as every measurement must.
            sum_over_processes: sum of a float64 tensor over the processes; None for one process. It keeps the widths
                the same on all processes.
        """
        add_up = sum_over_processes or (lambda tensor: tensor)
        report: SweepReport = {}
        stranded = walkers.protons.new_zeros((), dtype=torch.float64)
        if proton_target is not None:
            stranded = stranded + self._move_protons(walkers, proton_target, report, adapt, add_up)
        if electron_target is not None:
            stranded = stranded + self._move_electrons(walkers, electron_target, report, adapt, add_up)
        walkers.num_sweeps += 1
        return report | {"num_stranded": add_up(stranded)}

    def _move_protons(
        self,
        walkers: Walkers,
        target: ProtonTarget,
        report: SweepReport,
        adapt: bool,
        add_up: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Move the protons with their electrons, add to the report, and count the stranded walkers of this process."""
        width, electrons = walkers.log_widths["protons"].exp(), None
        if isinstance(target, CoupledDensity):
            width, electrons = torch.full_like(width, self.ceimc_proton_width), self._ceimc_steps(walkers)
        rule, num_steps = self.proton_proposal, self.num_proton_steps
        move = move_protons(walkers, target, rule, width, num_steps, self.cell, electrons, self.tempering)
        if "electrons" in walkers.fields:
            shift = space_warp(self.cell, walkers.electrons, walkers.protons, move.displacement)
            walkers["electrons"] = self.cell.wrap(walkers.electrons + shift)
        walkers["protons"] = move.protons
        report["proton_width_rs"] = width
        report |= {name: global_fraction(*counts, add_up) for name, counts in move.fractions.items()}
        report |= {name: add_up(total) for name, total in move.totals.items() if name != "num_stranded"}
        if adapt and move.adapts:
            self._adapt(walkers, "protons", report["proton_acceptance"], self.proton_target_acceptance)
        return move.totals["num_stranded"]

    def _move_electrons(
        self,
        walkers: Walkers,
        target: ElectronTarget,
        report: SweepReport,
        adapt: bool,
        add_up: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Move the electrons, add to the report, and count the stranded walkers of this process."""
        width, num_steps = walkers.log_widths["electrons"].exp(), self._electron_steps(walkers)
        move = move_electrons(walkers, target, self.electron_proposal, width, num_steps, self.cell)
        walkers["electrons"] = move.state.positions
        report |= {"electron_width_rs": width, **describe(move, num_steps, add_up)}
        if adapt:
            self._adapt(walkers, "electrons", report["electron_acceptance"], self.electron_target_acceptance)
            if walkers.electron_steps is not None:
                memory, gain = float(report["electron_memory"]), float(report["electron_gain"])
                walkers.electron_steps = adapt_num_steps(walkers.electron_steps, memory, gain)
        return num_not_finite(move.state.log_prob)

    def _ceimc_steps(self, walkers: Walkers) -> ElectronSteps:
        """Moves of the electrons before a decision by energies: those of a sweep."""
        width, num_steps = walkers.log_widths["electrons"].exp(), self._electron_steps(walkers)
        return ElectronSteps(self.ceimc_electron_walkers, self.electron_proposal, width, num_steps)

    def _electron_steps(self, walkers: Walkers) -> int:
        """Moves of the electrons in the next sweep; four equal quarters where they adapt."""
        if walkers.electron_steps is None:
            return int(self.num_electron_steps)
        return 4 * round(walkers.electron_steps / 4)

    def _adapt(self, walkers: Walkers, kind: str, acceptance: Tensor, target: float) -> None:
        limits = log_width_limits(self.cell.length)
        width = walkers.log_widths[kind]
        walkers.log_widths[kind] = adapt_log_width(width, acceptance, target, self.adaptation_gain, *limits)
