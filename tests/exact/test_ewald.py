"""Ewald sums: independent values, Madelung constants, invariances, gradients, memory, time, and bad input."""

import json
import time
from pathlib import Path

import pytest
import torch

from lightning_vfe.physics import chunking, structure_factors
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.screening import MADELUNG_SIMPLE_CUBIC, choose_screening
from lightning_vfe.physics.structures import make_structure

REFERENCE = json.loads((Path(__file__).parent / "reference" / "ewald.json").read_text())
TOLERANCE = 1e-8  # Ha


def _random(num_atoms, *batch, rs=1.25):
    cell = PeriodicCell(num_atoms, rs)
    return cell, cell.length * torch.rand(*batch, num_atoms, 3)


@pytest.mark.parametrize("case", REFERENCE["cells"], ids=lambda case: f"N{case['num_atoms']}")
@pytest.mark.parametrize("alpha_length", [None, 2.0, 4.0, 8.0, 12.0])
def test_random_cells_and_independence_of_the_screening(case, alpha_length):
    cell = PeriodicCell(case["num_atoms"], case["rs"])
    assert cell.length == pytest.approx(case["box_length_bohr"], rel=1e-13)
    ewald = Ewald(cell, alpha_length=alpha_length)
    protons, electrons = torch.tensor(case["protons_bohr"]), torch.tensor(case["electrons_bohr"])
    energies = ewald.energies(protons, electrons)
    errors = {name: float(getattr(energies, name)) - case[f"{name}_ha"] for name in energies._fields}
    errors["proton_energy"] = float(ewald.proton_energy(protons)) - case["v_pp_ha"]
    assert max(map(abs, errors.values())) < TOLERANCE, f"errors in Ha: {errors}"


@pytest.mark.parametrize("case", REFERENCE["cells"], ids=lambda case: f"N{case['num_atoms']}")
def test_a_tighter_accuracy_reaches_the_precision_of_the_reference(case):
    ewald = Ewald(PeriodicCell(case["num_atoms"], case["rs"]), relative_accuracy=2e-14)
    energies = ewald.energies(torch.tensor(case["protons_bohr"]), torch.tensor(case["electrons_bohr"]))
    errors = [float(getattr(energies, name)) - case[f"{name}_ha"] for name in energies._fields]
    assert max(map(abs, errors)) < 1e-12, f"errors in Ha: {errors}"


@pytest.mark.parametrize("case", REFERENCE["lattices"], ids=lambda case: case["lattice"])
def test_lattices(case):
    cell = PeriodicCell(case["num_atoms"], case["rs"])
    positions = make_structure(case["lattice"], cell, 1, torch.Generator())
    error = float(Ewald(cell).proton_energy(positions)) - case["v_pp_ha_per_atom"] * case["num_atoms"]
    assert abs(error) < TOLERANCE, f"error {error:.1e} Ha"


def test_one_charge_with_its_images():
    assert REFERENCE["madelung_times_L"] == MADELUNG_SIMPLE_CUBIC
    cell = PeriodicCell(1, 2.0)
    energy = Ewald(cell).energies(torch.rand(1, 3), torch.rand(1, 3))
    for one in (energy.v_pp, energy.v_ee):
        assert abs(float(one) - MADELUNG_SIMPLE_CUBIC / 2.0 / cell.length) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "num_atoms", "energy_times_rs"),
    # Energies of Wigner lattices, v / N = energy_times_rs / rs (Coldwell-Horsfall and Maradudin 1960, in Ry there).
    [("sc", 8, -0.880059), ("bcc", 16, -0.895929), ("fcc", 32, -0.895874)],
)
def test_madelung_energies_of_wigner_lattices(name, num_atoms, energy_times_rs):
    for rs in (1.0, 3.7):
        cell = PeriodicCell(num_atoms, rs)
        energy = Ewald(cell).proton_energy(make_structure(name, cell, 1, torch.Generator())) / num_atoms
        assert float(energy) * rs == pytest.approx(energy_times_rs, abs=1e-6)


@pytest.mark.parametrize("relative_accuracy", [1e-4, 1e-6, 1e-8, 1e-10])
def test_the_accuracy_is_kept(relative_accuracy):
    cell, positions = _random(10, 2, 20)
    exact = Ewald(cell, relative_accuracy=2e-14).energies(*positions)
    energies = Ewald(cell, relative_accuracy=relative_accuracy).energies(*positions)
    scale = cell.num_atoms * abs(MADELUNG_SIMPLE_CUBIC) / 2.0 / cell.length
    errors = [float((one - other).abs().max()) / scale for one, other in zip(energies, exact, strict=True)]
    assert max(errors) < relative_accuracy, f"relative errors {errors}"


def test_the_cheapest_screening_depends_on_the_number_of_atoms():
    small, large = choose_screening(2, 1e-8), choose_screening(128, 1e-8)
    assert len(small.images) > len(large.images) == 1
    assert small.alpha_length < large.alpha_length


def test_translations_change_nothing():
    cell, (protons, electrons) = _random(8, 2, 5)
    ewald = Ewald(cell)
    before = ewald.energies(protons, electrons)
    lattice = cell.length * torch.randint(-3, 4, (2, 5, 8, 3))
    joint = torch.rand(3)
    errors = []
    for shift_protons, shift_electrons in ((lattice[0], lattice[1]), (joint, joint)):
        after = ewald.energies(protons + shift_protons, electrons + shift_electrons)
        errors += [float((one - other).abs().max()) for one, other in zip(before, after, strict=True)]
    # Lattice translations change the rounding only; joint ones also what the truncated sums leave out.
    assert max(errors[:3]) < 1e-12, f"errors in Ha: {errors}"
    assert max(errors[3:]) < TOLERANCE, f"errors in Ha: {errors}"


def test_exchange_of_the_species_and_permutations_change_nothing():
    cell, (protons, electrons) = _random(8, 2, 5)
    ewald = Ewald(cell)
    one, other = ewald.energies(protons, electrons), ewald.energies(electrons[:, torch.randperm(8)], protons)
    assert (one.v_pp - other.v_ee).abs().max() < 1e-12
    assert (one.v_ee - other.v_pp).abs().max() < 1e-12
    assert (one.v_pe - other.v_pe).abs().max() < 1e-12


def test_shared_protons_broadcast_without_repeated_work(monkeypatch):
    num_walkers, num_electron_walkers = 3, 4
    cell, protons = _random(6, num_walkers, 1)
    _, electrons = _random(6, num_walkers, num_electron_walkers)
    ewald = Ewald(cell)
    compute, seen = Ewald._like_pairs, []
    monkeypatch.setattr(
        Ewald, "_like_pairs", lambda self, positions, unit: seen.append(positions) or compute(self, positions, unit)
    )
    energies = ewald.energies(protons, electrons)
    assert [tuple(positions.shape[:2]) for positions in seen] == [(3, 1), (3, 4)]
    repeated = ewald.energies(protons.expand(-1, num_electron_walkers, -1, -1).clone(), electrons)
    for one, other in zip(energies, repeated, strict=True):
        assert one.shape == (num_walkers, num_electron_walkers)
        assert (one - other).abs().max() < 1e-12
    single = ewald.energies(protons[1, 0], electrons[1, 2])
    assert max(abs(float(one[1, 2] - other)) for one, other in zip(energies, single, strict=True)) < 1e-12


def test_blocks_bound_memory_and_change_nothing(monkeypatch):
    cell, protons = _random(6, 5, 1)
    _, electrons = _random(6, 5, 7)
    whole = Ewald(cell).energies(protons, electrons)
    limit = 2000
    monkeypatch.setattr(chunking, "MAX_ELEMENTS_CPU", limit)
    compute, sizes = structure_factors._structure_factors, []

    def recorded(tables, block):
        result = compute(tables, block)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(structure_factors, "_structure_factors", recorded)
    in_blocks = Ewald(cell).energies(protons, electrons)
    assert max(sizes) <= limit
    assert len(sizes) > 100
    assert max(float((one - other).abs().max()) for one, other in zip(whole, in_blocks, strict=True)) < 1e-12
    sizes.clear()
    apart = Ewald(cell).proton_energy(protons)
    assert max(sizes) <= limit
    assert (apart - whole.v_pp[:, :1]).abs().max() < 1e-12


@pytest.mark.parametrize("alpha_length", [None, 9.0])
def test_forces_agree_with_finite_differences(alpha_length):
    cell, positions = _random(5, 2, rs=1.5)
    ewald = Ewald(cell, relative_accuracy=1e-12, alpha_length=alpha_length)

    def combined(both):
        energies = ewald.energies(both[..., 0, :, :], both[..., 1, :, :])
        return energies.v_pp + 2.0 * energies.v_pe + 3.0 * energies.v_ee

    (gradient,) = torch.autograd.grad(combined(positions.requires_grad_()), positions)
    step = 1e-4
    shifts = step * torch.eye(positions.numel()).reshape(-1, *positions.shape)
    with torch.no_grad():
        numerical = (combined(positions + shifts) - combined(positions - shifts)) / (2.0 * step)
    error = (gradient.flatten() - numerical).abs() / gradient.abs().max()
    assert error.max() < 1e-6, f"largest relative error {error.max():.1e}"


def test_derivatives_under_torch_func_and_of_second_order():
    cell, positions = _random(4, 3)
    ewald = Ewald(cell)
    looped = torch.autograd.functional.jacobian(lambda x: ewald.proton_energy(x).sum(), positions)
    mapped = torch.func.vmap(torch.func.grad(ewald.proton_energy))(positions)
    assert (looped - mapped).abs().max() < 1e-11
    assert torch.autograd.gradgradcheck(ewald.proton_energy, (positions[0].requires_grad_(),), atol=1e-4)


def test_a_first_call_in_inference_mode_leaves_gradients_possible():
    cell, positions = _random(4, 3)
    ewald = Ewald(cell)
    with torch.inference_mode():
        value = ewald.proton_energy(positions).sum()
    (gradient,) = torch.autograd.grad(ewald.proton_energy(positions.requires_grad_()).sum(), positions)
    assert gradient.isfinite().all()
    assert value.isfinite()


@pytest.mark.parametrize("alpha_length", [None, 9.0])
def test_coinciding_particles_have_infinite_energy_and_no_nan(alpha_length):
    cell, (protons, electrons) = _random(4, 2)
    protons[0] = electrons[1]
    electrons[2] = electrons[3]
    protons.requires_grad_()
    electrons.requires_grad_()
    energies = Ewald(cell, alpha_length=alpha_length).energies(protons, electrons)
    assert energies.v_ee == torch.inf
    assert energies.v_pe == -torch.inf
    assert energies.v_pp.isfinite()
    for energy, moved in ((energies.v_ee, electrons), (energies.v_pe, electrons), (energies.v_pe, protons)):
        (gradient,) = torch.autograd.grad(energy, moved, retain_graph=True)
        assert gradient.isfinite().all()


def test_close_pairs_have_the_bare_coulomb_energy():
    cell, (protons, electrons) = _random(4, 2)
    ewald = Ewald(cell)
    protons[0] = electrons[0] + torch.tensor([1e-7, 0.0, 0.0])
    near = ewald.energies(protons, electrons).v_pe
    protons[0] = electrons[0] + torch.tensor([2e-7, 0.0, 0.0])
    far = ewald.energies(protons, electrons).v_pe
    assert float(near - far) == pytest.approx(-0.5e7, rel=1e-6)


def test_single_precision():
    cell, (protons, electrons) = _random(14, 2, 3)
    ewald = Ewald(cell)
    double = ewald.energies(protons, electrons)
    single = ewald.energies(protons.float(), electrons.float())
    for one, other in zip(single, double, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < 1e-4


def test_many_configurations_are_fast():
    cell, protons = _random(14, 16, 1)
    _, electrons = _random(14, 16, 8)
    ewald = Ewald(cell)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        ewald.energies(protons, electrons)
        seconds.append(time.perf_counter() - start)
    # About 0.015 s on one core; the bound leaves room for a busy machine.
    assert min(seconds) < 0.3, f"{min(seconds):.3f} s for 128 configurations of N = 14"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"relative_accuracy": 1e-14}, r"^relative_accuracy = 1e-14 must lie between 1e-14 and 1"),
        ({"relative_accuracy": 1.0}, r"^relative_accuracy = 1.0 must lie between"),
        ({"relative_accuracy": float("nan")}, r"^relative_accuracy = nan must lie between"),
        ({"alpha_length": 0.0}, r"^alpha_length = 0.0 must lie between"),
    ],
)
def test_bad_settings_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Ewald(PeriodicCell(14, 1.25), **keywords)


def test_bad_positions_are_refused():
    cell, (protons, electrons) = _random(4, 2, 3)
    ewald = Ewald(cell)
    with pytest.raises(ValueError, match=r"^protons of shape \(3, 3, 3\).*\(\.\.\., 4, 3\)"):
        ewald.energies(protons[:, :3], electrons)
    with pytest.raises(ValueError, match=r"^electrons of shape \(4,\)"):
        ewald.energies(protons, electrons[0, :, 0])
    with pytest.raises(ValueError, match=r"^protons of shape .* type torch.int64"):
        ewald.proton_energy(protons.long())
    with pytest.raises(
        ValueError, match=r"^protons of shape \(3, 4, 3\) do not broadcast with electrons .*\(W, 1, N, 3\)"
    ):
        ewald.energies(protons, electrons.unsqueeze(1).expand(3, 2, 4, 3))
