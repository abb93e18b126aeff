"""Proposal rules: the Langevin drift and the correction that goes with it."""

import pytest
import torch

from lightning_vfe.sampling.proposals import GaussianProposal, LangevinProposal, make_proposal
from lightning_vfe.sampling.random import WalkerRandom


def quartic(positions):
    return -(positions**4).sum(dim=(-1, -2)) + positions[..., 0, 0] * positions[..., 1, 2]


def test_gaussian_is_symmetric_and_keeps_no_gradient():
    positions = torch.randn(10, 2, 3)
    rule, noise = GaussianProposal(), WalkerRandom([0], 0).normal((10, 2, 3))
    state = rule.evaluate(quartic, positions)
    proposal, correction = rule(quartic, state, torch.tensor(0.5), noise)
    assert state.gradient is None
    assert correction is None
    assert torch.equal(proposal.log_prob, quartic(proposal.positions))
    torch.testing.assert_close(proposal.positions, positions + 0.5 * noise)


def test_drift_is_langevin_for_small_and_bounded_for_large_gradients():
    width = torch.tensor(0.4)
    direction = torch.nn.functional.normalize(torch.randn(50, 3, 3), dim=-1)
    for bound in (0.5, 1.0, 2.0):
        rule = LangevinProposal(bound)
        small = rule.drift(1e-4 * direction, width)
        torch.testing.assert_close(small, 0.5 * width**2 * 1e-4 * direction, rtol=1e-8, atol=0)
        for size in (1.0, 1e3, 1e8, 1e150, 1e300):
            drift = rule.drift(size * direction, width)
            assert torch.isfinite(drift).all()
            assert drift.norm(dim=-1).max() <= 0.4 * (2 / bound) ** 0.5 * (1 + 1e-12)
    broken = torch.full((1, 2, 3), torch.nan)
    assert torch.equal(LangevinProposal().drift(broken, width), torch.zeros(1, 2, 3))


def test_langevin_correction_is_the_ratio_of_the_two_proposal_densities():
    rule, width = LangevinProposal(), torch.tensor(0.7)
    state = rule.evaluate(quartic, torch.randn(20, 3, 2, 3))  # steep enough for the bound to matter
    noise = WalkerRandom([0], 0).normal((20, 3, 2, 3))
    proposal, correction = rule(quartic, state, width, noise)

    def log_q(end, start):
        mean = start.positions + rule.drift(start.gradient, width)
        return torch.distributions.Normal(mean, width).log_prob(end.positions).sum(dim=(-1, -2))

    torch.testing.assert_close(correction, log_q(state, proposal) - log_q(proposal, state), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(proposal.positions, state.positions + rule.drift(state.gradient, width) + width * noise)
    variable = state.positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(quartic(variable).sum(), variable)
    torch.testing.assert_close(state.gradient, gradient)
    assert not proposal.log_prob.requires_grad
    assert not proposal.positions.requires_grad


def test_names_and_errors():
    assert isinstance(make_proposal("gaussian"), GaussianProposal)
    assert isinstance(make_proposal("langevin"), LangevinProposal)
    rule = LangevinProposal(2.0)
    assert make_proposal(rule) is rule
    with pytest.raises(ValueError, match="proton_proposal = hmc is unknown; choose one of"):
        make_proposal("hmc", "sampler.proton_proposal")
    with pytest.raises(ValueError, match="drift_bound = 0"):
        LangevinProposal(0.0)
