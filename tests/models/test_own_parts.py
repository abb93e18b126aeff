"""Parts of other people: any invertible map, any wavefunction module, any potential and any ASE calculator."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.morse import MorsePotential
from torch import nn

import lightning_vfe as lv
from lightning_vfe.models.flow.plain import PlainFlow
from lightning_vfe.models.potential.storage import KINDS
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from tests.helpers.states import states_at
from tests.helpers.trainers import quiet_trainer
from tests.helpers.wavefunctions import trained_like

CELL = lv.PeriodicCell(4, 1.4)
MORSE = {"epsilon": 1.0, "r0": 0.8, "rho0": 4.0}


def _protons(*leading: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return CELL.length * torch.rand(*leading, 4, 3, generator=generator, dtype=torch.float64)


# --- a flow ---------------------------------------------------------------------------------------------------------


class Waves(nn.Module):
    """z = x + a L/(2 pi) sin(2 pi x / L), whose determinant is the product of 1 + a cos(2 pi x / L)."""

    def __init__(self, length: float) -> None:
        super().__init__()
        self.length = length
        self.amplitude = nn.Parameter(torch.tensor(0.4))

    def to_base(self, x, states):
        wave = 2.0 * math.pi / self.length
        return x + self.amplitude / wave * torch.sin(wave * x)


def test_log_determinant_of_any_map():
    flow, x = PlainFlow(Waves(CELL.length)), _protons(5)
    found = flow.to_base(x, states_at(CELL, 5))
    exact = torch.log1p(0.4 * torch.cos(2.0 * math.pi * x / CELL.length)).sum((-2, -1))
    torch.testing.assert_close(found.log_abs_det_dzdx, exact, rtol=1e-12, atol=1e-12)
    assert bool((found.sign_det_dzdx == 1).all())
    torch.testing.assert_close(flow.displacement(x, states_at(CELL, 5)), found.z - x, rtol=0, atol=1e-14)


def test_inverse_of_any_map():
    flow, x, states = PlainFlow(Waves(CELL.length)), _protons(5), states_at(CELL, 5)
    found = flow.from_base(flow.to_base(x, states).z.detach(), states)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, x, rtol=0, atol=1e-8)


def test_a_map_without_to_base_is_refused():
    with pytest.raises(ValueError, match=r"^flow = Linear has no method to_base"):
        PlainFlow(nn.Linear(3, 3))


# --- a wavefunction -------------------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """The built-in wavefunction behind the least that a module must have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, protons, electrons, states):
        return self.inner(protons, electrons, states)


def _state(wavefunction: nn.Module, **settings) -> lv.VariationalState:
    system = lv.System(2)
    strata = lv.Strata.of(rs=[1.9, 2.1], temperature_kelvin=6000.0)
    density = lv.ProtonDensity(
        lv.UniformBase(system), lv.EquivariantFlow(system, lv.reference_point(strata), num_channels=2)
    )
    sampler = lv.NestedSampler(system, num_electron_steps=4, proton_sampling="direct")
    state = lv.VariationalState(
        system, strata, wavefunction, density, sampler, 8, 4, num_groups=4, equilibration_sweeps=2, **settings
    )
    state.place()
    return state


def test_energies_and_scores_of_a_wavefunction_without_any_of_the_short_cuts():
    strata = lv.Strata.of(rs=[1.9, 2.1], temperature_kelvin=6000.0)
    inner = lv.GeminalWavefunction(lv.System(2), lv.reference_point(strata), num_layers=2, single_width=8, pair_width=6)
    trained_like(inner)
    fast, plain = _state(inner), _state(Wrapped(inner))
    batch = fast.current()
    torch.testing.assert_close(
        plain.energies(batch).electronic.total, fast.energies(batch).electronic.total, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(
        plain.scores(batch)["wavefunction"], fast.scores(batch)["wavefunction"], rtol=1e-9, atol=1e-9
    )
    for state in (fast, plain):
        state.sweep()
    torch.testing.assert_close(plain.current().electrons, fast.current().electrons, rtol=0, atol=1e-9)


class Cusps(nn.Module):
    """ln psi = -a sum_ij d_ij with one number as its only tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = lv.System(2).cell
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, protons, electrons, states):
        rs = states.rs[..., None, None]
        offset = (electrons.unsqueeze(-2) - protons.unsqueeze(-3)) / rs.unsqueeze(-1)
        value = -self.slope * (rs * self.unit.smooth_distance(offset)).sum((-2, -1))
        return torch.complex(value, torch.zeros_like(value))


@pytest.mark.parametrize("precision", [None, "float32"])
@pytest.mark.parametrize("optimizer", ["natural", "torch", "adam"])
def test_training_of_a_small_wavefunction(optimizer, precision):
    settings = {
        "natural": None,
        "adam": lv.Adam(),
        "torch": lv.TorchOptimizer(lambda parameters: torch.optim.SGD(parameters, lr=1e-2)),
    }
    state = _state(Cusps(), chain_precision=precision)
    quiet_trainer(2).fit(lv.VariationalFreeEnergy(state, settings[optimizer]), lv.MCMCDataModule(state, 2))
    slope = float(state.wavefunction.slope.detach())
    assert math.isfinite(slope)
    assert slope != 1.0


# --- a potential ----------------------------------------------------------------------------------------------------


def _in_ase(z: torch.Tensor, scale: float = 1.0) -> float:
    length = CELL.length * BOHR_TO_ANGSTROM * scale
    atoms = Atoms("H4", z.numpy() * BOHR_TO_ANGSTROM * scale, cell=[length] * 3, pbc=True)
    atoms.calc = MorsePotential(**MORSE)
    return atoms.get_potential_energy() / HARTREE_TO_EV


def test_an_ase_calculator_is_a_potential():
    potential = lv.ASEPotential("ase.calculators.morse.MorsePotential", MORSE)
    z = _protons(3).requires_grad_()
    dilation = torch.ones(3, requires_grad=True)
    energy = potential.energy(z, CELL, dilation)
    slope, by_dilation = torch.autograd.grad(energy.sum(), (z, dilation))
    expected = [_in_ase(each) for each in z.detach()]
    np.testing.assert_allclose(energy.detach().numpy(), expected, rtol=1e-12)
    step = 1e-5
    for walker, proton, axis in ((0, 0, 0), (1, 2, 1), (2, 3, 2)):
        moved = [z.detach()[walker].clone() for _ in range(2)]
        moved[0][proton, axis] += step
        moved[1][proton, axis] -= step
        difference = (_in_ase(moved[0]) - _in_ase(moved[1])) / (2.0 * step)
        assert float(slope[walker, proton, axis]) == pytest.approx(difference, rel=1e-5, abs=1e-8)
    stretched = [(_in_ase(each, 1 + step) - _in_ase(each, 1 - step)) / (2.0 * step) for each in z.detach()]
    np.testing.assert_allclose(by_dilation.numpy(), stretched, rtol=1e-4, atol=1e-7)


def test_an_ase_calculator_that_does_not_exist():
    with pytest.raises(ValueError, match=r"^calculator = ase.calculators.no.Such cannot be used"):
        lv.ASEPotential("ase.calculators.no.Such")


class Harmonic(lv.Potential):
    """E = k/2 sum_i |sin(pi z_i / L) L / pi|^2."""

    def __init__(self, stiffness: float, rs_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.stiffness, self.rs_range = nn.Parameter(torch.tensor(stiffness)), rs_range

    @property
    def settings(self):
        return {"stiffness": 0.0}

    def energy(self, z, cell, dilation=None):
        scale = cell.length / math.pi * (1.0 if dilation is None else dilation)
        return 0.5 * self.stiffness * (torch.sin(math.pi * z / cell.length).square().sum((-2, -1)) * scale**2)


def test_a_registered_potential_is_stored_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_vfe.models.potential.storage.KINDS", dict(KINDS))
    lv.register_potential("harmonic", Harmonic)
    potential, z = Harmonic(0.3), _protons(3)
    metadata = {"rs_range": [1.0, 2.0], "temperature_kelvin": 6000.0, "label": "by hand"}
    lv.save_potential(potential, tmp_path / "own.pt", metadata)
    read = lv.load_potential(tmp_path / "own.pt")
    read = read[0] if isinstance(read, tuple) else read
    torch.testing.assert_close(read.energy(z, CELL), potential.energy(z, CELL), rtol=0, atol=0)


def test_names_of_potentials_stand_for_one_class(monkeypatch):
    monkeypatch.setattr("lightning_vfe.models.potential.storage.KINDS", dict(KINDS))
    with pytest.raises(ValueError, match=r"^kind = yukawa stands for another class"):
        lv.register_potential("yukawa", Harmonic)
