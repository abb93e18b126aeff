"""Your own flow: one method `to_base`; the log-determinant and the inverse come from automatic differentiation."""

import lightning as L
import torch

import lightning_vfe as lv


class SineFlow(torch.nn.Module):
    """z_i = x_i + a rs sum_j sin(2 pi (x_i - x_j) / L): equivariant, periodic, and the identity at a = 0."""

    def __init__(self, system):
        super().__init__()
        self.length, self.amplitude = system.cell.length, torch.nn.Parameter(torch.zeros(()))  # length in units of rs

    def to_base(self, x, states):
        rs = states.rs[..., None, None]
        offset = (x.unsqueeze(-2) - x.unsqueeze(-3)) / rs.unsqueeze(-1)  # (..., N, N, 3)
        return x + self.amplitude * rs * torch.sin(2.0 * torch.pi / self.length * offset).sum(-2)


def build(flow_class=SineFlow):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    system, strata = lv.System(2), lv.Strata.of(rs=2.0, temperature_kelvin=6000.0)
    psi = lv.GeminalWavefunction(system, lv.reference_point(strata), num_layers=1, single_width=8, pair_width=4)
    density = lv.ProtonDensity(lv.UniformBase(system), flow_class(system))
    sampler = lv.NestedSampler(system, num_electron_steps=10, proton_sampling="direct")
    return lv.VariationalState(system, strata, psi, density, sampler, 64, 4, equilibration_sweeps=10)


def main(max_steps=20):
    state = build()
    trainer = L.Trainer(max_steps=max_steps, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(lv.VariationalFreeEnergy(state), lv.MCMCDataModule(state, equilibration_steps=10))
    return state


if __name__ == "__main__":
    print(main().energies().terms["free_energy_per_atom"].mean())
