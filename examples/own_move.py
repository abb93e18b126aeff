"""Your own Metropolis move: steps with long tails, so that some electrons change their proton at once."""

import dataclasses

import torch

import lightning_vfe as lv


class LongTailedMove(lv.GaussianProposal):
    """y = x + width xi sqrt(1 + t xi^2), xi ~ N(0, 1): as likely as its reverse, so that no correction is needed."""

    def __init__(self, tail=0.5):
        self.tail = tail

    def __call__(self, log_prob, state, width, noise):
        step = noise * torch.sqrt(1.0 + self.tail * noise.square())
        positions = torch.addcmul(state.positions, step, width)
        return dataclasses.replace(state, positions=positions, log_prob=log_prob(positions)), None


def build(move):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    system, strata = lv.System(2), lv.Strata.of(rs=1.5, protons="fixed")
    psi = lv.GeminalWavefunction(system, lv.reference_point(strata), num_layers=1, single_width=8, pair_width=4)
    sampler = lv.NestedSampler(system, electron_proposal=move, num_electron_steps=10)
    return lv.VariationalState(system, strata, psi, None, sampler, 8, 32, structure="bcc", equilibration_sweeps=10)


def main(num_sweeps=20):
    states = build("gaussian"), build(LongTailedMove())
    observables = [lambda batch, state=state: state.energies(batch).terms["energy_per_atom"] for state in states]
    return [state.expect(energy, num_sweeps) for state, energy in zip(states, observables, strict=True)]


if __name__ == "__main__":
    for name, (energy,) in zip(("gaussian", "long tails"), main(), strict=True):  # equal within their errors
        print(f"{name}: E/N = {energy.value:.4f} +- {energy.error:.4f} Ha")
