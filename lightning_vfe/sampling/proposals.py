"""Proposal rules. A rule returns (proposal, log_correction); acceptance is decided in metropolis.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_vfe.errors import SettingError
from lightning_vfe.sampling.settings import positive_integer

LogProb = Callable[[Tensor], Tensor]
"""ln p up to a constant: positions (..., N, 3) -> (...)."""


@runtime_checkable
class PreparedLogProb(Protocol):
    """ln p that takes positions at any of their images, and reads nothing but its tensors.

    The same operations in the same order belong to tensors of the same shapes, so that a move can be recorded once and
    repeated with other numbers in these tensors.
    """

    def __call__(self, positions: Tensor) -> Tensor:
        """ln p up to a constant: positions (..., N, 3) -> (...)."""
        ...

    def tensors(self) -> list[Tensor]:
        """All tensors that a call reads, always in the same order."""
        ...

    def clone(self) -> PreparedLogProb:
        """The same in memory of its own."""
        ...


@dataclass(frozen=True)
class ChainState:
    """Where a batch of chains stands. The leading dims are (W,) for protons, (W, B) for electrons.

    Attributes:
        positions: in any unit.  # (..., N, 3)
        log_prob: ln p(positions) up to a constant.  # (...)
        gradient: d ln p / d positions, None for rules that do not use it.  # (..., N, 3)
        displacement: how far the particles came since the start, not wrapped.  # (..., N, 3)
    """

    positions: Tensor
    log_prob: Tensor
    gradient: Tensor | None
    displacement: Tensor


class Proposal(Protocol):
    """A rule that moves all particles of a walker at once.

    The shortest rule is a subclass of `GaussianProposal` that changes the noise. Rules with a drift start from
    `LangevinProposal`, whose state has the gradient of ln p.

    Optional is `recordable = True`, which makes moves faster on a GPU: see `recording_key`.
    """

    target_acceptance: float
    """Acceptance at which the rule explores fastest; the default target of the width adaptation."""

    def evaluate(self, log_prob: LogProb, positions: Tensor) -> ChainState:
        """State of chains that start at positions (..., N, 3)."""
        ...

    def __call__(
        self, log_prob: LogProb, state: ChainState, width: Tensor, noise: Tensor
    ) -> tuple[ChainState, Tensor | None]:
        """Propose a move y of every chain and give ln q(x|y) - ln q(y|x)  # (...), None where that is zero.

        `noise` are standard normal numbers, as many as positions.  # (..., N, 3)
        """
        ...


class GaussianProposal:
    """Symmetric random walk y = x + width * xi, xi ~ N(0, 1): the correction is zero."""

    # Between the optimum of many dimensions (0.234, Roberts, Gelman, Gilks 1997) and that of one (0.44).
    target_acceptance = 0.35
    recordable = True

    def evaluate(self, log_prob: LogProb, positions: Tensor) -> ChainState:
        """State of chains at positions; no gradient."""
        with torch.no_grad():
            return ChainState(positions, log_prob(positions), None, torch.zeros_like(positions))

    @torch.no_grad()
    def __call__(
        self, log_prob: LogProb, state: ChainState, width: Tensor, noise: Tensor
    ) -> tuple[ChainState, Tensor | None]:
        """Proposal, and no correction."""
        positions = torch.addcmul(state.positions, noise, width)
        return replace(state, positions=positions, log_prob=log_prob(positions)), None


class LangevinProposal:
    """Metropolis-adjusted Langevin step y = x + D(x) + width * xi, xi ~ N(0, 1).

    Per particle, with the gradient g = d ln p / dx, tau = width^2 and s = tau g^2 / 4,

        D(x) = tau/2 * g * 2 / (1 + sqrt(1 + 2 a s)),

    the plain Langevin drift tau/2 g while s is small, and never longer than width * sqrt(2/a) however steep ln p is
    (next to a node of psi g diverges; the plain drift would throw the electron away, and no move back would ever be
    accepted). D is a function of x alone. The correction

        ln q(x|y) - ln q(y|x) = -|x - y - D(y)|^2 / (2 tau) + |y - x - D(x)|^2 / (2 tau)

    uses it in both directions: detailed balance is exact for any a. y - x is the step before wrapping: a step and its
    reverse are paired lattice image by lattice image.

    Source: Besag 1994; Roberts and Tweedie, Bernoulli 2, 341 (1996); the bound is the one of Umrigar, Nightingale and
    Runge, J. Chem. Phys. 99, 2865 (1993), with their velocity grad ln|psi| = g/2.

    Args:
        drift_bound: a > 0; larger is more cautious.

    Raises:
        ValueError: drift_bound is not positive.
    """

    # Optimum of many dimensions: Roberts and Rosenthal, J. R. Stat. Soc. B 60, 255 (1998).
    target_acceptance = 0.574
    recordable = True

    def __init__(self, drift_bound: float = 1.0) -> None:
        if not (math.isfinite(drift_bound) and drift_bound > 0):
            raise SettingError("drift_bound", drift_bound, "must be positive", "1.0 is the usual choice")
        self.drift_bound = drift_bound

    def evaluate(self, log_prob: LogProb, positions: Tensor) -> ChainState:
        """State of chains at positions, with the gradient of ln p."""
        with torch.enable_grad():
            variable = positions.detach().requires_grad_()
            value = log_prob(variable)
            # Chains are independent, so the gradient of the sum is the gradient of each.
            (gradient,) = torch.autograd.grad(value.sum(), variable)
        return ChainState(positions.detach(), value.detach(), gradient, torch.zeros_like(gradient))

    def drift(self, gradient: Tensor, width: Tensor) -> Tensor:
        """Bounded drift D from the gradient.  # (..., N, 3)"""
        # A gradient that is not a number (on a node, on a lattice point of a distance) gives no drift: again a function
        # of the position alone.
        gradient = torch.where(torch.isfinite(gradient), gradient, torch.zeros_like(gradient))
        squared = gradient.square().sum(dim=-1, keepdim=True) * (width.square() / 4)
        return gradient * width.square() / (1 + torch.sqrt(1 + 2 * self.drift_bound * squared))

    def __call__(
        self, log_prob: LogProb, state: ChainState, width: Tensor, noise: Tensor
    ) -> tuple[ChainState, Tensor | None]:
        """Proposal and ln q(x|y) - ln q(y|x)  # (...)."""
        assert state.gradient is not None, "start the chain with this rule's own evaluate()"
        step = self.drift(state.gradient, width) + width * noise
        proposal = self.evaluate(log_prob, state.positions + step)
        assert proposal.gradient is not None
        noise_back = (step + self.drift(proposal.gradient, width)) / width
        correction = 0.5 * (noise.square() - noise_back.square()).sum(dim=(-2, -1))
        return proposal, correction


class HamiltonianProposal(LangevinProposal):
    """A short path of Hamilton's equations with the momenta p = xi ~ N(0, 1): num_steps leapfrog steps of h = width,

        p <- p + D(x)/h,    x <- x + h p,    p <- p + D(x)/h,

    with the bounded drift D(x) of `LangevinProposal`, h^2/2 d ln p/dx while that is small. The map (x, p) -> (y, -p')
    is its own inverse and keeps the volume, whatever function of the position D is. Detailed balance is exact with

        ln q(x|y) - ln q(y|x) = (|p|^2 - |p'|^2) / 2.

    One leapfrog step is a Langevin move. Two or three steps go further than as many Langevin moves, since they have no
    random turns in between.

    Source: Duane, Kennedy, Pendleton, Roweth, Phys. Lett. B 195, 216 (1987); Neal, Handbook of MCMC, ch. 5 (2011).

    Args:
        num_steps: leapfrog steps of a move; each evaluates ln p and its gradient once.
        drift_bound: a > 0; larger is more cautious.

    Raises:
        ValueError: num_steps is not a whole number >= 1, or drift_bound is not positive.
    """

    # Optimum of many dimensions: Beskos et al., Bernoulli 19, 1501 (2013).
    target_acceptance = 0.65
    recordable = True

    def __init__(self, num_steps: int = 2, drift_bound: float = 1.0) -> None:
        super().__init__(drift_bound)
        self.num_steps = positive_integer("num_steps", num_steps)

    def __call__(
        self, log_prob: LogProb, state: ChainState, width: Tensor, noise: Tensor
    ) -> tuple[ChainState, Tensor | None]:
        """Proposal and ln q(x|y) - ln q(y|x)  # (...)."""
        end, momentum = state, noise
        for _ in range(self.num_steps):
            momentum = momentum + self._kick(end, width)
            end = self.evaluate(log_prob, end.positions + width * momentum)
            momentum = momentum + self._kick(end, width)
        return end, 0.5 * (noise.square() - momentum.square()).sum(dim=(-2, -1))

    def _kick(self, state: ChainState, width: Tensor) -> Tensor:
        assert state.gradient is not None, "start the chain with this rule's own evaluate()"
        return self.drift(state.gradient, width) / width


def recording_key(rule: Proposal) -> Hashable | None:
    """What tells the recorded moves of a rule from those of others; None where its moves cannot be recorded.

    A rule whose class declares `recordable = True` can be: the same operations in the same order belong to tensors of
    the same shapes, no operation waits for the host, all tensors that change come as arguments, and all settings are
    hashable attributes. It is not inherited, since a subclass may do something else.
    """
    if not vars(type(rule)).get("recordable", False):
        return None
    return type(rule), *sorted(vars(rule).items())


def make_proposal(rule: str | Proposal, key: str = "proposal") -> Proposal:
    """The rule of a name, "gaussian", "langevin" or "hamiltonian"; a rule is passed through.

    Args:
        rule: a name, or an object that keeps the Proposal protocol.
        key: the setting's name in the error message.

    Raises:
        ValueError: unknown name, or an object that is no rule.
    """
    if not isinstance(rule, str):
        if not hasattr(rule, "target_acceptance"):
            raise SettingError(key, rule, "is no rule of moves", "give a name such as langevin, or an object of one")
        return rule
    rules: dict[str, Callable[[], Proposal]] = {
        "gaussian": GaussianProposal,
        "hamiltonian": HamiltonianProposal,
        "langevin": LangevinProposal,
    }
    if rule not in rules:
        raise SettingError(key, rule, "is unknown", f"choose one of {sorted(rules)}")
    return rules[rule]()
