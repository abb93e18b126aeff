"""The terms of F: conventions of the reference, identities between the terms, and the ideal gas."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from scipy import constants

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.free_energy import free_energy_terms, momentum_free_energy
from lightning_vfe.physics.state_point import WalkerStates
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import KELVIN_TO_HARTREE
from tests.helpers.states import states_at

REFERENCE_FILE = Path(__file__).parents[1] / "exact" / "reference" / "n2_free_energy.json"
REFERENCE = json.loads(REFERENCE_FILE.read_text())["states"][0]
PARTS = ("electron_kinetic", "v_pp", "v_pe", "v_ee")


def _walkers(*shape):
    """Made-up energies of the whole cell, and ln p."""
    parts = {name: torch.randn(shape) for name in PARTS}
    return parts, torch.randn(shape) - 5.0


def test_reference_entropy_and_pressure_follow_from_its_energies():
    """Configurational F and entropy in, full F, entropy and virial pressure out."""
    num_atoms, temperature = REFERENCE["num_atoms"], REFERENCE["temperature_kelvin"]
    states = WalkerStates.at(REFERENCE["rs"], temperature)
    kT = KELVIN_TO_HARTREE * temperature
    kinetic = REFERENCE["electronic_kinetic_energy_per_atom"]
    potential = REFERENCE["born_oppenheimer_energy_per_atom"] - kinetic
    configurational = REFERENCE["configurational_free_energy_per_atom"]
    # How the potential is split between the three terms does not matter.
    parts = torch.tensor([kinetic, 0.3 * potential, 0.9 * potential, -0.2 * potential]) * num_atoms
    log_prob = torch.tensor(num_atoms * (configurational - REFERENCE["born_oppenheimer_energy_per_atom"]) / kT)
    assert -log_prob.item() / num_atoms == pytest.approx(REFERENCE["configurational_entropy_per_atom"], abs=1e-3)
    found = free_energy_terms(System(num_atoms), states, *parts, log_prob=log_prob)
    terms = {name: value.item() for name, value in found.items()}
    assert terms["free_energy_per_atom"] == pytest.approx(REFERENCE["free_energy_per_atom"], abs=2e-6)
    assert terms["entropy_per_atom"] == pytest.approx(REFERENCE["entropy_per_atom"], abs=1e-3)
    assert terms["pressure_gpa"] == pytest.approx(REFERENCE["pressure_gpa"], abs=0.1)
    assert terms["electron_kinetic_energy_per_atom"] == pytest.approx(kinetic, abs=1e-12)
    expected = REFERENCE["born_oppenheimer_energy_per_atom"] + 1.5 * kT
    assert terms["energy_per_atom"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("state", json.loads(REFERENCE_FILE.read_text())["states"])
def test_references_contain_the_momenta(state):
    """F less its configurational part is that of the momenta, and S = (E - F) / T."""
    kT = KELVIN_TO_HARTREE * state["temperature_kelvin"]
    momenta = float(momentum_free_energy(System(state["num_atoms"]), kT)) / state["num_atoms"]
    configurational, energy = state["configurational_free_energy_per_atom"], state["born_oppenheimer_energy_per_atom"]
    assert state["free_energy_per_atom"] - configurational == pytest.approx(momenta, abs=2e-6)
    assert state["configurational_entropy_per_atom"] == pytest.approx((energy - configurational) / kT, abs=1e-3)
    entropy = (energy + 1.5 * kT - state["free_energy_per_atom"]) / kT
    assert state["entropy_per_atom"] == pytest.approx(entropy, abs=1e-3)


@pytest.mark.parametrize("shape", [(), (5,), (4, 3)])
def test_identities_between_the_terms(shape):
    cell, temperature = PeriodicCell(14, 1.31), 6000.0
    kT = KELVIN_TO_HARTREE * temperature
    parts, log_prob = _walkers(*shape)
    terms = free_energy_terms(System(14), states_at(cell, *shape, kelvin=temperature), **parts, log_prob=log_prob)
    assert all(value.shape == shape for value in terms.values())
    potential = terms["v_pp_per_atom"] + terms["v_pe_per_atom"] + terms["v_ee_per_atom"]
    torch.testing.assert_close(terms["energy_per_atom"], terms["kinetic_energy_per_atom"] + potential)
    proton_kinetic = terms["kinetic_energy_per_atom"] - terms["electron_kinetic_energy_per_atom"]
    torch.testing.assert_close(proton_kinetic, torch.full(shape, 1.5 * kT))
    from_entropy = terms["energy_per_atom"] - kT * terms["entropy_per_atom"]
    torch.testing.assert_close(terms["free_energy_per_atom"], from_entropy)
    virial = (2.0 * terms["kinetic_energy_per_atom"] + potential) * (cell.num_atoms / cell.volume) / 3.0
    gpa = constants.value("Hartree energy") / constants.value("Bohr radius") ** 3 / constants.giga
    torch.testing.assert_close(terms["pressure_gpa"], virial * gpa)


def test_free_energy_from_the_base_and_the_flow():
    """ln p = -E_ML/kT - ln Z_ML + ln|det|:  F = <E - E_ML + kT ln|det|> - kT ln Z_ML + momenta."""
    cell, temperature = PeriodicCell(8, 1.25), 5000.0
    kT = KELVIN_TO_HARTREE * temperature
    parts, log_det = _walkers(6)
    base_energy, base_free_energy = torch.randn(6), torch.tensor(-0.37)
    log_prob = -base_energy / kT + base_free_energy / kT + log_det
    terms = free_energy_terms(
        System(8),
        states_at(cell, 6, kelvin=temperature),
        **parts,
        log_prob=log_prob,
        log_abs_det_dzdx=log_det,
        base_energy=base_energy,
        base_free_energy=base_free_energy,
    )
    expected = sum(parts.values()) - base_energy + kT * log_det + base_free_energy
    expected = (expected + momentum_free_energy(System(8), kT)) / 8
    torch.testing.assert_close(terms["free_energy_per_atom"], expected)
    torch.testing.assert_close(terms["base_energy_per_atom"], base_energy / 8)
    torch.testing.assert_close(terms["log_det_per_atom"], log_det / 8)
    torch.testing.assert_close(terms["base_free_energy_per_atom"], (base_free_energy / 8).expand(6))


def test_walkers_of_many_state_points_have_their_own_terms():
    """One call for walkers of two densities and temperatures gives what a call for each of them gives."""
    parts, log_prob = _walkers(4)
    points = [(1.1, 3000.0), (1.1, 8000.0), (2.0, 3000.0), (2.0, 8000.0)]
    each = [WalkerStates.at(*point) for point in points]
    states = WalkerStates(*(torch.stack(values) for values in zip(*map(dataclasses.astuple, each), strict=True)))
    system = System(6, nucleus="D")
    together = free_energy_terms(system, states, **parts, log_prob=log_prob)
    for w, state in enumerate(each):
        own = {name: value[w] for name, value in parts.items()}
        alone = free_energy_terms(system, state, **own, log_prob=log_prob[w])
        for name, value in alone.items():
            torch.testing.assert_close(together[name][w], value, rtol=1e-14, atol=0.0, msg=name)


@pytest.mark.parametrize(("nucleus", "mass"), [("D", "deuteron"), ("T", "triton")])
def test_heavier_nuclei_change_the_momentum_part_alone(nucleus, mass):
    """F per atom falls by 3/2 kT ln(m / m_H); S rises by 3/2 ln(m / m_H); nothing else changes."""
    parts, log_prob = _walkers(5)
    states = states_at(PeriodicCell(8, 1.25), 5, kelvin=5000.0)
    light, heavy = (
        free_energy_terms(System(8, nucleus=name), states, **parts, log_prob=log_prob) for name in ("H", nucleus)
    )
    log_ratio = math.log(constants.value(f"{mass}-electron mass ratio") / 1836.15)
    kT = KELVIN_TO_HARTREE * 5000.0
    shifts = {"free_energy_per_atom": -1.5 * kT * log_ratio, "entropy_per_atom": 1.5 * log_ratio}
    for name, value in light.items():
        if name in shifts:
            torch.testing.assert_close(heavy[name] - value, torch.full((5,), shifts[name]), rtol=0, atol=1e-11)
        else:
            assert torch.equal(heavy[name], value), name


def test_fixed_protons_have_no_temperature():
    cell = PeriodicCell(4, 1.31)
    parts, _ = _walkers(6)
    terms = free_energy_terms(System(4), states_at(cell, 6), **parts)
    torch.testing.assert_close(terms["free_energy_per_atom"], terms["energy_per_atom"], rtol=0, atol=0)
    torch.testing.assert_close(terms["energy_per_atom"], sum(parts.values()) / 4)
    torch.testing.assert_close(terms["kinetic_energy_per_atom"], terms["electron_kinetic_energy_per_atom"])
    assert (terms["entropy_per_atom"] == 0.0).all()
    assert not {"base_free_energy_per_atom", "base_energy_per_atom", "log_det_per_atom"} & terms.keys()


@pytest.mark.parametrize("num_atoms", [2, 54])
def test_without_energies_the_uniform_density_is_an_ideal_gas(num_atoms):
    """F = -kT ln[V^N / (N! lambda^3N)], in SI units; the electrons' spins and the protons' are left out."""
    temperature = 6000.0
    cell = PeriodicCell(num_atoms, 1.25)
    mass = 1836.15 * constants.electron_mass
    energy = constants.k * temperature
    wavelength = constants.h / math.sqrt(2.0 * math.pi * mass * energy)
    volume = cell.volume * constants.value("Bohr radius") ** 3
    log_states = num_atoms * math.log(volume / wavelength**3) - math.lgamma(num_atoms + 1)
    zero = torch.zeros(3)
    log_prob = torch.full((3,), -3.0 * num_atoms * math.log(cell.length))
    states = states_at(cell, 3, kelvin=temperature)
    terms = free_energy_terms(System(num_atoms), states, zero, zero, zero, zero, log_prob=log_prob)
    hartree = constants.value("Hartree energy")
    expected = {
        "free_energy_per_atom": -energy * log_states / num_atoms / hartree,
        "energy_per_atom": 1.5 * energy / hartree,
        "entropy_per_atom": log_states / num_atoms + 1.5,
        "pressure_gpa": num_atoms * energy / volume / constants.giga,
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], torch.full((3,), value), rtol=1e-8, atol=0.0)
