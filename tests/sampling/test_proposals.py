"""Proposal rules: the Langevin drift and the correction that goes with it."""

import pytest
import torch

from lightning_vfe.errors import SettingError
from lightning_vfe.sampling.proposals import GaussianProposal, HamiltonianProposal, LangevinProposal, make_proposal
from lightning_vfe.sampling.random import WalkerRandom


class MomentumRule(HamiltonianProposal):
    """Keeps the momenta at the end of the path, which follow from its last step."""

    def evaluate(self, log_prob, positions):
        self.last, self.before = positions, getattr(self, "last", None)
        return super().evaluate(log_prob, positions)

    def __call__(self, log_prob, state, width, noise):
        self.last = state.positions
        end, correction = super().__call__(log_prob, state, width, noise)
        self.momentum = (end.positions - self.before) / width + self.drift(end.gradient, width) / width
        return end, correction


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


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_hamiltonian_moves_are_reversible_and_keep_the_volume(num_steps):
    """Back from the end with the opposite momenta; |d(y, p')/d(x, p)| = 1 by finite differences."""
    rule, width = HamiltonianProposal(num_steps), torch.tensor(0.5)
    start = rule.evaluate(quartic, torch.randn(6, 2, 3))  # steep enough for the bound to matter
    noise = WalkerRandom([0], 0).normal((6, 2, 3))
    forward = MomentumRule(num_steps)
    end, correction = forward(quartic, start, width, noise)
    back, correction_back = forward(quartic, end, width, -forward.momentum)
    torch.testing.assert_close(back.positions, start.positions, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(forward.momentum, -noise, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(correction_back, -correction, rtol=1e-9, atol=1e-10)
    assert torch.equal(end.log_prob, quartic(end.positions))

    def phase_map(point):  # (C, 12) -> (C, 12)
        x, p = point.unflatten(-1, (2, 2, 3)).unbind(-3)
        moved, _ = forward(quartic, rule.evaluate(quartic, x), width, p)
        return torch.cat([moved.positions.flatten(1), forward.momentum.flatten(1)], dim=1)

    point, step = torch.cat([start.positions.flatten(1), noise.flatten(1)], dim=1), 1e-5
    columns = [(phase_map(point + step * e) - phase_map(point - step * e)) / (2 * step) for e in torch.eye(12)]
    volume = torch.linalg.det(torch.stack(columns, dim=-1)).abs()
    torch.testing.assert_close(volume, torch.ones(6), rtol=1e-5, atol=0)


def test_one_leapfrog_step_is_a_langevin_move():
    noise, width = WalkerRandom([0], 0).normal((20, 2, 3)), torch.tensor(0.7)
    state = LangevinProposal().evaluate(quartic, torch.randn(20, 2, 3))
    langevin, hamiltonian = (
        rule(quartic, state, width, noise) for rule in (LangevinProposal(), HamiltonianProposal(1))
    )
    torch.testing.assert_close(langevin[0].positions, hamiltonian[0].positions)
    torch.testing.assert_close(langevin[1], hamiltonian[1])


def test_names_and_errors():
    assert isinstance(make_proposal("hamiltonian"), HamiltonianProposal)
    with pytest.raises(ValueError, match="num_steps = 0"):
        HamiltonianProposal(0)
    assert isinstance(make_proposal("gaussian"), GaussianProposal)
    assert isinstance(make_proposal("langevin"), LangevinProposal)
    rule = LangevinProposal(2.0)
    assert make_proposal(rule) is rule
    with pytest.raises(ValueError, match="proton_proposal = hmc is unknown; choose one of"):
        make_proposal("hmc", "sampler.proton_proposal")
    with pytest.raises(ValueError, match="drift_bound = 0"):
        LangevinProposal(0.0)


@pytest.mark.parametrize("rule", [[], {"a": 1}])
def test_what_is_no_rule_is_refused(rule: object) -> None:
    with pytest.raises(SettingError, match=r"^electron_proposal = .* is no rule of moves; give a name"):
        make_proposal(rule, "electron_proposal")
