"""Your own potential: registered, stored, read, and the base of a state. For two protons its ln Z is known."""

import torch

import lightning_vfe as lv


class CosineRepulsion(lv.Potential):
    """E = k sum_{i<j} sum_d [1 + cos(2 pi (z_i - z_j)_d / L)], which keeps the protons apart."""

    def __init__(self, strength=0.02):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(strength))

    @property
    def settings(self):
        return {}  # arguments of the constructor; parameters are stored besides

    def energy(self, z, cell, dilation=None):  # lengths enter as ratios alone: a dilation changes nothing
        phase = 2.0 * torch.pi / cell.length * (z.unsqueeze(-2) - z.unsqueeze(-3))  # (..., N, N, 3)
        return self.strength * (1.0 + torch.cos(phase)).sum(-1).triu(1).sum((-2, -1))


lv.register_potential("cosine", CosineRepulsion)


def build(strength=0.02, path="cosine.pt"):
    torch.set_default_dtype(torch.float64)
    origin = {"rs_range": [1.9, 2.1], "temperature_kelvin": 6000.0, "label": "by hand"}
    lv.save_potential(CosineRepulsion(strength), path, origin)
    system, point, strata = lv.System(2), lv.StatePoint(2.0, 6000.0), lv.Strata.of(2.0, 6000.0)
    one_axis = point.cell(2).length ** 2 * torch.special.i0e(torch.tensor(strength / point.kT))
    base = lv.BoltzmannBase(point.cell(2), lv.load_potential(path)[0], 6000.0, 3 * float(one_axis.log()), 0.0)
    psi, flow = lv.GeminalWavefunction(system, point, num_layers=1), lv.EquivariantFlow(system, point, num_channels=2)
    sampler = lv.NestedSampler(system, "langevin", num_electron_steps=10, proton_sampling="direct")
    return lv.VariationalState(system, strata, psi, lv.ProtonDensity(base, flow), sampler, 64, equilibration_sweeps=10)


if __name__ == "__main__":
    print(build().energies().terms["free_energy_per_atom"].mean())
