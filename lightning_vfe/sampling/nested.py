"""The nested average E_{x~p} E_{r~|psi_x|^2}: proton moves, then electron moves in the field of the new protons."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.sampling.adaptation import adapt_log_width
from lightning_vfe.sampling.electron_moves import ElectronLaw, move_electrons
from lightning_vfe.sampling.metropolis import num_not_finite
from lightning_vfe.sampling.proposals import Proposal, make_proposal
from lightning_vfe.sampling.proton_moves import ProtonLaw, check_proton_sampling, move_protons
from lightning_vfe.sampling.random import WalkerRandom
from lightning_vfe.sampling.settings import fraction, positive, positive_integer
from lightning_vfe.sampling.space_warp import space_warp
from lightning_vfe.sampling.state import Walkers, initial_electrons, twist_index


@dataclass(frozen=True)
class SweepReport:
    """What one sweep did; 0-dim tensors. The proton entries are None when the protons are fixed.

    Attributes:
        proton_acceptance: accepted fraction over all proton walkers of all processes; of the moves of base protons
            where p(x) is sampled directly, 1 where these are drawn independently; of the moves on the surrogate density
            where acceptance is delayed.
        electron_acceptance: accepted fraction over all electron walkers of all processes.
        proton_width: width of the proton moves in bohr, as used in this sweep.
        electron_width: width of the electron moves in bohr, as used in this sweep.
        electron_drift: mean over all electron walkers of ln|psi|^2 at the end of the electron moves minus that three
            quarters through them. Its average over sweeps vanishes once num_electron_steps lets the electrons forget
            how they were carried along; a positive average means that they lag behind the protons, and a biased energy.
        num_stranded: chains of all processes that stand where ln p is not finite; not zero means a broken density.
        num_failed_inversions: proton walkers of all processes whose map could not be inverted, and which stayed; None
            where p(x) is not sampled directly.
        delayed_acceptance: accepted fraction of the ends of the chains on the surrogate density, over all proton
            walkers of all processes; None where acceptance is not delayed.
    """

    proton_acceptance: Tensor | None
    electron_acceptance: Tensor
    proton_width: Tensor | None
    electron_width: Tensor
    electron_drift: Tensor
    num_stranded: Tensor
    num_failed_inversions: Tensor | None = None
    delayed_acceptance: Tensor | None = None


class NestedSampler:
    """Samples x ~ p(x), then r ~ |psi_x|^2 for every x, by Metropolis moves of all particles of a walker at once.

    Args:
        cell: the periodic cell.
        proton_proposal: "gaussian", "langevin" or a rule.
        electron_proposal: "gaussian", "langevin" or a rule.
        num_proton_steps: Metropolis steps of the protons (or base protons) in a sweep.
        num_electron_steps: Metropolis steps of the electrons in a sweep, after the protons have moved.
        proton_target_acceptance: wanted accepted fraction, in (0, 1); None takes the rule's own.
        electron_target_acceptance: the same for electrons.
        initial_proton_width: width of the first proton moves in bohr.
        initial_electron_width: width of the first electron moves in bohr.
        adaptation_gain: change of ln(width) per sweep and unit of acceptance off the target.
        proton_sampling: "metropolis" moves the protons x on p(x); "direct" moves the base protons z, on p_base(z), and
            inverts the map; "delayed" moves x on a cheaper density and decides once, at the end, by p(x). It says what
            `step` is to be given.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        cell: PeriodicCell,
        proton_proposal: str | Proposal = "gaussian",
        electron_proposal: str | Proposal = "gaussian",
        num_proton_steps: int = 10,
        num_electron_steps: int = 30,
        proton_target_acceptance: float | None = None,
        electron_target_acceptance: float | None = None,
        initial_proton_width: float = 0.1,
        initial_electron_width: float = 0.3,
        adaptation_gain: float = 1.0,
        proton_sampling: str = "metropolis",
    ) -> None:
        self.cell = cell
        self.proton_sampling = check_proton_sampling(proton_sampling)
        self.proton_proposal = make_proposal(proton_proposal, "sampler.proton_proposal")
        self.electron_proposal = make_proposal(electron_proposal, "sampler.electron_proposal")
        self.num_proton_steps = positive_integer("num_proton_steps", num_proton_steps)
        self.num_electron_steps = positive_integer("num_electron_steps", num_electron_steps)
        self.proton_target_acceptance = fraction(
            "proton_target_acceptance", proton_target_acceptance, self.proton_proposal.target_acceptance
        )
        self.electron_target_acceptance = fraction(
            "electron_target_acceptance", electron_target_acceptance, self.electron_proposal.target_acceptance
        )
        self.initial_proton_width = positive("initial_proton_width", initial_proton_width)
        self.initial_electron_width = positive("initial_electron_width", initial_electron_width)
        self.adaptation_gain = positive("adaptation_gain", adaptation_gain)

    def start(
        self,
        protons: Tensor,
        fractional_twists: Tensor,
        num_electron_walkers: int,
        random: WalkerRandom,
        num_groups: int | None = None,
    ) -> Walkers:
        """Fresh walkers at given protons, with one electron near every proton.

        Args:
            protons: in bohr, the walkers of this process, on random's device.  # (W, N, 3)
            fractional_twists: all twists; walker w of the whole run gets twist w mod T.  # (T, 3)
            num_electron_walkers: B.
            random: streams of this process's walker groups.
            num_groups: walker groups of all processes; None means that this process owns them all.

        Returns:
            Walkers that have not been equilibrated.

        Raises:
            ValueError: wrong shape of protons, walkers that do not divide into groups or are not a multiple of the
                twists, or no electron walker.
        """
        num_atoms = self.cell.num_atoms
        if protons.ndim != 3 or tuple(protons.shape[1:]) != (num_atoms, 3):
            raise ValueError(f"protons have shape {tuple(protons.shape)}; the cell needs (W, {num_atoms}, 3)")
        positive_integer("num_electron_walkers", num_electron_walkers)
        random.walkers_per_group(protons.shape[0])
        index = twist_index(
            fractional_twists.shape[0], protons.shape[0], random.groups, num_groups or len(random.groups)
        )
        protons = self.cell.wrap(protons)
        return Walkers(
            protons=protons,
            electrons=initial_electrons(protons, num_electron_walkers, random, self.cell),
            twists=fractional_twists.to(protons)[index.to(protons.device)],
            proton_log_width=protons.new_tensor(math.log(self.initial_proton_width)),
            electron_log_width=protons.new_tensor(math.log(self.initial_electron_width)),
            random=random,
        )

    @torch.no_grad()
    def step(
        self,
        walkers: Walkers,
        proton_density: ProtonLaw | None,
        electron_log_prob: ElectronLaw,
        adapt: bool,
        sum_over_processes: Callable[[Tensor], Tensor] | None = None,
    ) -> SweepReport:
        """One sweep, in place: proton moves, electrons carried along, electron moves.

        The proton chain never looks at the electrons, so its law is p(x) alone. The electrons' kernel leaves
        |psi_x|^2 of the new x invariant and forgets its start: any start is valid, and carrying the electrons along
        with their protons (no Jacobian enters, it is only a start) merely makes num_electron_steps enough. What is
        left of the start after them is a bias, which electron_drift shows, and doubling num_electron_steps.

        Args:
            walkers: updated in place.
            proton_density: p(x), in one of the ways of `ProtonLaw`; None keeps the protons fixed.
            electron_log_prob: ln |psi_x(r)|^2 up to a constant per walker, in one of the ways of `ElectronLaw`.
            adapt: adapt the widths after the sweep; False freezes them, as every measurement must.
            sum_over_processes: adds a float64 tensor up over the processes; None where there is one process. It makes
                the widths the same everywhere.

        Returns:
            Acceptances, widths and the number of stranded chains.
        """
        add_up = sum_over_processes or (lambda tensor: tensor)
        proton_acceptance = proton_width = failed = delayed = None
        proton_stranded: Tensor | int = 0
        drawn = False
        if proton_density is not None:
            proton_width = walkers.proton_log_width.exp()
            rule, num_steps = self.proton_proposal, self.num_proton_steps
            move = move_protons(walkers, proton_density, rule, proton_width, num_steps, self.cell)
            shift = space_warp(self.cell, walkers.electrons, walkers.protons, move.displacement)
            walkers.protons, walkers.electrons = move.protons, self.cell.wrap(walkers.electrons + shift)
            proton_acceptance = _global_fraction(move.accepted, num_steps, add_up)
            delayed = None if move.decided is None else _global_fraction(move.decided, 1, add_up)
            proton_stranded, drawn = move.num_stranded, move.drawn
            failed = None if move.num_failed_inversions is None else add_up(move.num_failed_inversions)

        electron_width = walkers.electron_log_width.exp()
        rule, num_steps = self.electron_proposal, self.num_electron_steps
        state, accepted, gain = move_electrons(walkers, electron_log_prob, rule, electron_width, num_steps, self.cell)
        walkers.electrons = state.positions
        electron_acceptance = _global_fraction(accepted, num_steps, add_up)
        walkers.num_sweeps += 1
        if adapt:
            self._adapt(walkers, None if drawn else proton_acceptance, electron_acceptance)
        drift = add_up(torch.stack([gain.sum(), gain.new_tensor(gain.numel())]))
        return SweepReport(
            proton_acceptance=proton_acceptance,
            electron_acceptance=electron_acceptance,
            proton_width=proton_width,
            electron_width=electron_width,
            electron_drift=drift[0] / drift[1],
            num_stranded=add_up(proton_stranded + num_not_finite(state.log_prob)),
            num_failed_inversions=failed,
            delayed_acceptance=delayed,
        )

    def _adapt(self, walkers: Walkers, proton_acceptance: Tensor | None, electron_acceptance: Tensor) -> None:
        # Moves wider than half the cell are uniform already; far narrower ones do not move anything.
        limits = (math.log(1e-4 * self.cell.length), math.log(0.5 * self.cell.length))
        gain = self.adaptation_gain
        if proton_acceptance is not None:
            walkers.proton_log_width = adapt_log_width(
                walkers.proton_log_width, proton_acceptance, self.proton_target_acceptance, gain, *limits
            )
        walkers.electron_log_width = adapt_log_width(
            walkers.electron_log_width, electron_acceptance, self.electron_target_acceptance, gain, *limits
        )


def _global_fraction(accepted: Tensor, num_steps: int, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """Accepted fraction over all chains of all processes. Whole numbers are added up, so that the order of the sum
    cannot change the result."""
    total = accepted.sum()
    totals = add_up(torch.stack([total, total.new_tensor(accepted.numel() * num_steps)]).to(torch.float64))
    return totals[0] / totals[1]
