"""Your own wavefunction: attention over the electrons, from torch.nn alone, trained at fixed protons."""

import lightning as L
import torch

import lightning_vfe as lv


class AttentionWavefunction(torch.nn.Module):
    """psi = det G, G_ij = sum_I f_I(r_i up) f_I(r_j down), f_I(r_i) = exp(-a d_iI) (1 + attention_i); d is periodic."""

    def __init__(self, system, width=16):
        super().__init__()
        self.cell, self.num_up, self.decay = system.cell, system.num_up, torch.nn.Parameter(torch.tensor(2.0))
        self.embed, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, 1)
        self.query, self.key, self.value = (torch.nn.Linear(width, width) for _ in range(3))

    def forward(self, protons, electrons, states):
        rs = states.rs[..., None, None]
        offset = (electrons.unsqueeze(-2) - protons.unsqueeze(-3)) / rs.unsqueeze(-1)
        orbitals = torch.exp(-self.decay * rs * self.cell.smooth_distance(offset))  # (..., electrons, protons)
        features = torch.tanh(self.embed(orbitals.sum(-1, keepdim=True)))
        weights = torch.softmax(self.query(features) @ self.key(features).mT, dim=-1)
        orbitals = orbitals * (1.0 + 0.1 * torch.tanh(self.out(features + weights @ self.value(features))))
        sign, log_abs = torch.linalg.slogdet(orbitals[..., : self.num_up, :] @ orbitals[..., self.num_up :, :].mT)
        return torch.complex(log_abs, torch.pi * (sign < 0).to(log_abs))


def main(max_steps=20):
    torch.set_default_dtype(torch.float64)
    system, strata = lv.System(4), lv.Strata.of(rs=1.5, protons="fixed")
    sampler, psi = lv.NestedSampler(system, num_electron_steps=10), AttentionWavefunction(system)
    state = lv.VariationalState(system, strata, psi, None, sampler, 8, 8, structure="fcc")
    trainer = L.Trainer(max_steps=max_steps, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(lv.VariationalFreeEnergy(state), lv.MCMCDataModule(state, equilibration_steps=20))
    return state


if __name__ == "__main__":
    print(main().energies().terms["energy_per_atom"].mean())
