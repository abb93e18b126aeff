"""One wavefunction and one density of the protons for many state points: walkers of several densities, temperatures and
twists in one batch, and how everything scales with the density.
"""

import copy
import math

import pytest
import torch
from torch import nn

from lightning_vfe.models.base.uniform import UniformBase
from lightning_vfe.models.chain_density import chain_log_prob
from lightning_vfe.models.flow.equivariant_flow import EquivariantFlow
from lightning_vfe.models.proton_density import ProtonDensity
from lightning_vfe.models.wavefunction.jastrow import CuspJastrow
from lightning_vfe.models.wavefunction.orbitals import PlaneWaveEnvelope
from lightning_vfe.models.wavefunction.paired import log_psi_of_walkers
from lightning_vfe.models.wavefunction.scores import wavefunction_scores
from lightning_vfe.models.wavefunction.wavefunction import GeminalWavefunction
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.free_energy import free_energy_terms
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.state_point import StatePoint, WalkerStates
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from tests.helpers.flows import make_flow
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import (
    GAMMA,
    GENERAL_TWIST,
    conditional_log_prob,
    make_wavefunction,
    random_configurations,
)

SYSTEM, CELL = System(4), PeriodicCell(4, 1.4)
STRATA = Strata.of(rs=[1.2, 1.6], temperature_kelvin=[4000, 9000], twists=[list(GAMMA), list(GENERAL_TWIST)])
TOLERANCE = 1e-10


class Walkers:
    """Two proton walkers in each of the eight strata, as they are dealt, with three electron walkers each, in bohr."""

    def __init__(self):
        self.stratum = STRATA.deal(16, [0], 1)
        self.states = STRATA.walker_states(self.stratum, like=torch.empty(0))
        rs = self.states.rs[:, None, None]
        protons, electrons = random_configurations(SYSTEM.cell, 16, 3, seed=4)
        self.protons, self.electrons = protons[:, 0] * rs, electrons * rs.unsqueeze(1)

    def compare(self, function):
        """function(protons, electrons, states) of all walkers against that of the walkers of one stratum at a time,
        whose states are plain numbers.
        """
        together = function(self.protons, self.electrons, self.states)
        assert together, "nothing to compare"
        for number in range(len(STRATA)):
            own = self.stratum == number
            point, twist = STRATA.points[number // 2], STRATA.twists.fractions[number % 2]
            states = WalkerStates.at(point.rs, point.temperature_kelvin, twist.expand(2, 3))
            alone = function(self.protons[own], self.electrons[own], states)
            for name, value in alone.items():
                found = together[name][own]
                assert found.shape == value.shape
                error = ((found - value).abs().max() / value.abs().max().clamp(min=1.0)).item()
                assert error < TOLERANCE, f"{name} of stratum {number}: largest error {error:.1e}"


def _density(**sizes):
    return ProtonDensity(UniformBase(SYSTEM), make_flow(CELL, **sizes))


# --- a batch that mixes everything ----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("num_determinants", [1, 2])
def test_wavefunction_and_local_energy_of_a_mixed_batch(num_determinants):
    wavefunction, ewald = make_wavefunction(CELL, num_determinants=num_determinants), Ewald(SYSTEM.cell)

    def function(protons, electrons, states):
        found = {"log_psi": log_psi_of_walkers(wavefunction, protons, electrons, states)}
        found["conditional"] = conditional_log_prob(wavefunction, protons, states)(electrons)
        found |= local_energy(ewald, wavefunction.log_psi, protons, electrons, states)._asdict()
        return found

    Walkers().compare(function)


def test_scores_of_a_mixed_batch():
    wavefunction, density = make_wavefunction(CELL), _density()

    def function(protons, electrons, states):
        of_psi = wavefunction_scores(wavefunction, protons, electrons, states, chunk_size=5)
        log_prob, of_p = density.scores(protons, states, chunk_size=3)
        return {"d ln psi": of_psi, "ln p": log_prob, "d ln p": of_p}

    Walkers().compare(function)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{}, {"num_blocks": 2, "num_layers": 3, "hidden_lmax": 2}, {"max_chunk_elements": 1}])
def test_density_and_its_map_of_a_mixed_batch(sizes):
    density = _density(**sizes)

    def function(protons, electrons, states):
        terms = density.evaluate(protons, states)._asdict()
        inverse = density.flow.from_base(protons, states, tolerance=1e-12)
        assert inverse.converged.all()
        return terms | {
            "displacement": density.flow.displacement(protons, states),
            "coarse": chain_log_prob(density, states, coarse=True)(protons),
            "inverse": inverse.x,
            "base free energy": density.base.free_energy(states),
        }

    Walkers().compare(function)


@torch.no_grad()
def test_every_part_of_the_state_matters():
    """The comparisons above would show nothing if the networks did not know where a walker is."""
    walkers, wavefunction, density = Walkers(), make_wavefunction(CELL), _density()

    def values(**changes):
        fields = {name: changes.get(name, getattr(walkers.states, name)) for name in ("rs", "kT", "twist")}
        states = WalkerStates(**fields)
        log_psi = log_psi_of_walkers(wavefunction, walkers.protons, walkers.electrons, states)
        return log_psi, density.flow.to_base(walkers.protons, states).log_abs_det_dzdx

    log_psi, log_det = values()
    hotter, denser = values(kT=walkers.states.kT * 1.3), values(rs=walkers.states.rs * 1.02)
    twisted = values(twist=walkers.states.twist + 0.1)
    assert torch.equal(hotter[0], log_psi)
    assert (hotter[1] - log_det).abs().min() > 1e-4
    assert (denser[0] - log_psi).abs().min() > 1e-4
    assert (denser[1] - log_det).abs().min() > 1e-4
    assert (twisted[0] - log_psi).abs().min() > 1e-4
    assert torch.equal(twisted[1], log_det)


# --- scaling with the density ---------------------------------------------------------------------------------------


def _without_slopes(module):
    """The same module with all derivatives by the state point zero, as at the start of a training."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("slopes", "power", "_density")):
                parameter.zero_()
    return module


def _moved_reference(wavefunction, rs):
    """The wavefunction whose reference is rs and which is the same at rs, written down parameter by parameter."""
    moved = GeminalWavefunction(SYSTEM, StatePoint(rs), 2, num_layers=2, single_width=8, pair_width=6)
    ratio = rs / wavefunction.reference_rs
    log_ratio = torch.log(ratio)
    state = {name: value.clone() for name, value in wavefunction.state_dict().items()}
    state["reference_rs"] = torch.tensor(rs)
    ranges = state["jastrow.raw_ranges"] + log_ratio * state["jastrow.range_slopes"]
    state["jastrow.raw_ranges"] = torch.log(torch.expm1(ratio * nn.functional.softplus(ranges)))
    # Each with its power of rs / rs_0: 2 for beta, -1 for kappa^2.
    for name, power in (("beta", 2.0), ("screening", -1.0), ("proton_pairing", 0.0), ("occupation", 0.0)):
        state[f"envelope.log_{name}"] += (power + state[f"envelope.{name}_power"]) * log_ratio
    for particle in ("electron", "proton"):
        state[f"backbone.{particle}_start.bias"] += log_ratio * state[f"backbone.{particle}_density"]
    state["backflow.weight"] *= ratio
    moved.load_state_dict(state)
    return moved


@torch.no_grad()
@pytest.mark.parametrize("slopes", ["zero", "trained"])
@pytest.mark.parametrize("rs", [0.9, 1.4, 3.0])
def test_parameters_of_the_wavefunction_scale_with_the_density(rs, slopes):
    """Ranges of the Jastrow factor and backflow as rs, kappa^2 as 1 / rs, beta as rs^2; and learned powers besides."""
    wavefunction = make_wavefunction(CELL, num_determinants=2)
    wavefunction = _without_slopes(wavefunction) if slopes == "zero" else wavefunction
    cell = PeriodicCell(4, rs)
    protons, electrons = random_configurations(cell, 3, 2)
    states = states_at(cell, twist=[GAMMA, GENERAL_TWIST, (0.5, 0.0, 0.5)]).unsqueeze(1)
    found = wavefunction.log_psi(protons, electrons, states)
    expected = _moved_reference(wavefunction, rs).log_psi(protons, electrons, states)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("rs", [0.8, 2.5])
def test_a_fresh_envelope_does_not_depend_on_its_reference(rs):
    """The start is the mean field of the density at hand: k_F^2 and the level spacing scale as the envelope does."""
    cell = PeriodicCell(6, rs)
    protons, states = random_configurations(cell, 2, 1)[0], states_at(cell, twist=GENERAL_TWIST)
    other, own = (PlaneWaveEnvelope(System(6), rs_0, 2) for rs_0 in (1.25, rs))
    found = other.pairing(protons, states, torch.tensor(rs / 1.25))
    torch.testing.assert_close(found, own.pairing(protons, states, torch.tensor(1.0)), rtol=0, atol=1e-11)


@torch.no_grad()
def test_jastrow_factor_scales_with_the_density():
    """J(s d, s rs) = s J(d, rs) while the slopes are zero: a length, as slopes at contact are numbers."""
    jastrow = _without_slopes(make_wavefunction(CELL).jastrow)
    electron_proton, electron_electron = 3.0 * torch.rand(2, 5, 4, 4)
    plain = jastrow(electron_proton, electron_electron, torch.tensor(1.1))
    for scale in (0.5, 2.0):
        scaled = jastrow(scale * electron_proton, scale * electron_electron, torch.tensor(1.1 * scale))
        torch.testing.assert_close(scaled, scale * plain, rtol=1e-13, atol=0)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_cusps_in_bohr_at_every_density(ratio):
    """The slopes at contact are -1, 1/2 and 1/4 whatever the ranges are: with slopes of the ranges, too."""
    jastrow = make_wavefunction(CELL).jastrow
    assert isinstance(jastrow, CuspJastrow)
    assert jastrow.range_slopes.abs().min() > 1e-3
    distances = torch.zeros(4, 4).requires_grad_(), torch.zeros(4, 4).requires_grad_()
    of_protons, of_electrons = torch.autograd.grad(jastrow(*distances, torch.tensor(ratio)), distances)
    torch.testing.assert_close(of_protons, torch.full((4, 4), -1.0), rtol=0, atol=1e-14)
    up = torch.tensor([True, True, False, False])
    expected = torch.where(up[:, None] == up, 0.25, 0.5).triu(1)
    torch.testing.assert_close(of_electrons, expected, rtol=0, atol=1e-14)


@torch.no_grad()
def test_flow_scales_with_the_density():
    """While the slopes are zero, z(s x, s rs) = s z(x, rs) with the same determinant, at every temperature."""
    flow = _without_slopes(make_flow(CELL))
    x = random_configurations(CELL, 6, 1)[0][:, 0]
    plain = flow.to_base(x, states_at(CELL, 6, kelvin=4000.0))
    for scale, kelvin in ((0.5, 4000.0), (2.0, 9000.0)):
        scaled = flow.to_base(scale * x, states_at(PeriodicCell(4, scale * CELL.rs), 6, kelvin=kelvin))
        torch.testing.assert_close(scaled.z, scale * plain.z, rtol=0, atol=1e-12)
        torch.testing.assert_close(scaled.log_abs_det_dzdx, plain.log_abs_det_dzdx, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{}, {"num_blocks": 2, "num_layers": 1}])
def test_parameters_of_the_flow_follow_density_and_coupling(sizes):
    """Linear in ln rs and ln Gamma, Gamma = 1 / (rs kT), from their values at the reference."""
    point = StatePoint(1.1, 8000.0)
    flow, cell = make_flow(CELL, **sizes), point.cell(4)
    rs_0, kT_0 = flow.reference.tolist()
    conditions = torch.tensor([math.log(point.rs / rs_0), math.log(rs_0 * kT_0 / (point.rs * point.kT))])
    moved = copy.deepcopy(flow)
    moved.reference.copy_(torch.tensor([point.rs, point.kT]))
    parameters, changed = dict(moved.named_parameters()), []
    for name, slopes in parameters.items():
        if name.endswith("_slopes"):
            base = name.removesuffix("_slopes")
            base = base if base in parameters else f"{base}s"  # logit_slopes belong to logits
            parameters[base] += torch.tensordot(conditions, slopes, 1)
            changed.append(base)
    assert {"contact.amplitude", "contact.logits", "networks.0.readout", "networks.0.updates.0.bias"} <= set(changed)
    x, states = random_configurations(cell, 5, 1)[0][:, 0], states_at(cell, 5, kelvin=point.temperature_kelvin)
    for one, other in zip(flow.to_base(x, states), moved.to_base(x, states), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_an_untrained_flow_is_the_identity_at_every_state_point():
    flow = EquivariantFlow(SYSTEM, STRATA.reference, num_channels=4)
    walkers = Walkers()
    result = flow.to_base(walkers.protons, walkers.states)
    torch.testing.assert_close(result.z, walkers.protons, rtol=0, atol=1e-14)
    assert torch.equal(result.log_abs_det_dzdx, torch.zeros(16))


# --- isotopes and time reversal -------------------------------------------------------------------------------------


@torch.no_grad()
def test_deuterium_changes_the_momenta_alone():
    """F per atom falls by 3/2 kT ln(m_D / m_H) at every state point, with the same p(x), psi and walkers."""
    walkers, wavefunction, density = Walkers(), make_wavefunction(CELL), _density()
    sample = walkers.protons, walkers.electrons, walkers.states
    electronic = local_energy(Ewald(SYSTEM.cell), wavefunction.log_psi, *sample)
    parts = [part.real.mean(1) for part in electronic]
    log_prob = density.log_prob(walkers.protons, walkers.states)
    systems = System(4, "H"), System(4, "D")
    light, heavy = (free_energy_terms(each, walkers.states, *parts, log_prob=log_prob) for each in systems)
    log_ratio = math.log(systems[1].nuclear_mass / systems[0].nuclear_mass)
    kelvin = torch.tensor([STRATA.points[number].temperature_kelvin for number in walkers.stratum // 2])
    shift = heavy["free_energy_per_atom"] - light["free_energy_per_atom"]
    torch.testing.assert_close(shift, -1.5 * KELVIN_TO_HARTREE * kelvin * log_ratio, rtol=0, atol=1e-12)
    entropy = heavy["entropy_per_atom"] - light["entropy_per_atom"]
    torch.testing.assert_close(entropy, torch.full((16,), 1.5 * log_ratio), rtol=0, atol=1e-9)
    for name in set(light) - {"free_energy_per_atom", "entropy_per_atom"}:
        assert torch.equal(heavy[name], light[name]), name


def _opposite(states):
    return WalkerStates(states.rs, states.kT, -states.twist)


class TimeReversed(nn.Module):
    """psi^* of the opposite twist: a wavefunction of this twist."""

    def __init__(self, wavefunction):
        super().__init__()
        self.wavefunction = wavefunction

    def forward(self, protons, electrons, states):
        return self.wavefunction(protons, electrons, _opposite(states)).conj()


@torch.no_grad()
def test_the_conjugate_wavefunction_is_a_trial_function_of_the_opposite_twist():
    """For any parameters: it has the phases of -f, and E_loc is the complex conjugate, walker by walker. That is why
    one of the twists f and -f is enough.
    """
    wavefunction, ewald = make_wavefunction(CELL), Ewald(SYSTEM.cell)
    protons, electrons = random_configurations(CELL, 3, 2)
    states = states_at(CELL, 3, twist=GENERAL_TWIST)
    reversed_ = TimeReversed(wavefunction)
    moved = electrons.clone()
    moved[..., 1, 2] += CELL.length
    at_start, at_image = (reversed_(protons, r, _opposite(states).unsqueeze(1)) for r in (electrons, moved))
    phase = torch.exp(torch.tensor(-2j * math.pi * GENERAL_TWIST[2]))
    torch.testing.assert_close(torch.exp(at_image - at_start), phase.expand(3, 2), rtol=0, atol=1e-10)
    expected = local_energy(ewald, wavefunction.log_psi, protons[:, 0], electrons, states).total
    found = local_energy(ewald, reversed_, protons[:, 0], electrons, _opposite(states)).total
    assert expected.imag.abs().min() > 1e-3
    error = ((found - expected.conj()).abs() / expected.abs()).max().item()
    assert error < 1e-9, f"largest relative error {error:.1e}"


@torch.no_grad()
def test_the_mean_field_at_the_opposite_twist():
    """F_kk'(-f) = F_-k-k'(f)^* of a fresh envelope."""
    envelope, protons = PlaneWaveEnvelope(SYSTEM, 1.3, 2), random_configurations(CELL, 3, 1)[0]
    states, ratio = states_at(CELL, twist=GENERAL_TWIST), torch.tensor(CELL.rs / 1.3)
    order = envelope.opposite.argmax(-1)  # of -k
    expected = envelope.pairing(protons, states, ratio)[..., order, :][..., order].conj()
    torch.testing.assert_close(envelope.pairing(protons, _opposite(states), ratio), expected, rtol=0, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_network_at_the_opposite_twist(symmetric):
    """psi_-f = psi_f^* holds where the network is real, sees the cosines of the twist only, and has equal occupations
    for k and -k. Not in general: not even a fresh network has this symmetry, though its mean field does.
    """
    wavefunction, ewald = make_wavefunction(CELL), Ewald(SYSTEM.cell)
    protons, electrons = random_configurations(CELL, 3, 2)
    states = states_at(CELL, 3, twist=GENERAL_TWIST)
    if symmetric:
        for start in (wavefunction.backbone.electron_start, wavefunction.backbone.proton_start):
            start.weight[:, :3] = 0.0  # sines of the twist
        wavefunction.geminal.bilinear[..., 1] = 0.0  # imaginary parts
        wavefunction.geminal.pair[..., 1] = 0.0
        order = wavefunction.envelope.opposite[1:, 1:].argmax(-1)  # of -k
        for parameter in (wavefunction.envelope.log_occupation, wavefunction.envelope.occupation_power):
            parameter.copy_(0.5 * (parameter + parameter[:, order]))
    at_f, at_minus_f = (
        log_psi_of_walkers(wavefunction, protons[:, 0], electrons, each) for each in (states, _opposite(states))
    )
    ratio = torch.exp(at_minus_f - at_f.conj())
    energy, opposite = (
        local_energy(ewald, wavefunction.log_psi, protons[:, 0], electrons, each).total
        for each in (states, _opposite(states))
    )
    if symmetric:
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-10)
        torch.testing.assert_close(opposite, energy.conj(), rtol=1e-9, atol=1e-9)
    else:
        assert (ratio.abs() - 1.0).abs().max() > 1e-3
        assert (opposite - energy.conj()).abs().max() > 1e-3
