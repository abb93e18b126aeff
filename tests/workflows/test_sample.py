"""Samples of a trained p(x): their averages are those of the chains, and their file is read by ASE."""

import json

import ase
import ase.io
import h5py
import numpy as np
import pytest
import torch

import lightning_vfe as lv
from lightning_vfe.cli import main
from lightning_vfe.physics.observables import RadialDistributions
from lightning_vfe.physics.reweighting import boltzmann_weights
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.strata import Strata
from lightning_vfe.physics.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV
from lightning_vfe.state.electron_averages import ElectronMonteCarlo
from lightning_vfe.workflows.sample import SampleSettings, sample_state
from lightning_vfe.workflows.state_samples import StateSamples
from tests.helpers.variational import build_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    words = ["experiment=smoke", "system.rs=[1.9,2.1]", "trainer.max_steps=2", "trainer.accelerator=cpu"]
    assert main(["fit", *words, f"run_dir={path}"]) == 0
    return path


def test_averages_are_those_of_the_chains() -> None:
    """Two twists of different weight; E and g(r) of samples and of the state's own chains, within 4 errors."""
    twists = {"twists": [3, 1, 1], "twist_symmetry": "time_reversal"}
    state = build_state(twists, {"num_proton_steps": 3, "num_electron_steps": 5}, trained=True)
    state.equilibrate(20)
    batches: list[torch.Tensor] = []

    def energy(batch):
        batches.append(batch.protons / batch.states.rs[:, None, None])
        return state.energies(batch).terms["energy_per_atom"]

    expected = state.expect(energy, num_sweeps=80)[0]
    settings = SampleSettings(
        80, spacing=4, pilot_sweeps=10, num_electron_walkers=2, equilibration_sweeps=10, num_sweeps=5
    )
    found = sample_state(state, settings, {})
    value, error = found.states[0].mean_energy_per_atom
    momenta = 1.5 * found.states[0].point.kT  # E of the terms holds the protons' kinetic energy, E_psi does not
    assert abs(value + momenta - expected.value) < 4.0 * np.hypot(error, expected.error)
    assert error < 0.05
    samples = torch.tensor(found.states[0].protons) / found.states[0].point.rs
    curves = []
    for positions in (torch.cat(batches), samples):
        radial = RadialDistributions(state.system.cell, num_bins=4)
        radial.update(positions)
        curves.append(radial.result()["proton_proton"])
    outer = slice(2, None)  # few pairs are closer than these two bins
    spread = np.hypot(curves[1].error, curves[0].error)[outer]
    assert (np.abs(curves[0].g - curves[1].g)[outer] < 4.0 * spread).all()


def test_samples_are_independent_and_reproducible() -> None:
    state = build_state(moves={"num_proton_steps": 3}, trained=True)
    before = state.place().protons.clone()
    settings = SampleSettings(64, pilot_sweeps=40, num_electron_walkers=2, equilibration_sweeps=1, num_sweeps=2)
    first, second = (sample_state(state, settings, {}) for _ in range(2))
    assert torch.equal(state.walkers.protons, before)
    assert np.array_equal(first.states[0].protons, second.states[0].protons)
    assert np.array_equal(first.states[0].energy, second.states[0].energy)
    assert first.spacing >= first.autocorrelation_time
    # the walkers are dealt in turn, so that configurations of one chain stand 8 apart
    log_prob = first.states[0].log_prob.reshape(8, 8)
    log_prob = log_prob - log_prob.mean()
    assert abs((log_prob[1:] * log_prob[:-1]).mean()) < 4.0 * log_prob.var() / np.sqrt(56)


@pytest.mark.parametrize(("noise", "order"), [(0.1, "all orders"), (1.0, "second order")])
def test_the_gap_of_the_flow_without_the_noise_of_the_electrons(noise: float, order: str) -> None:
    """A = ln p + E/kT with the variance 0.3: the gap is kT/2 0.3 / N, whatever noise the energies have."""
    rng, count, point, variance = np.random.default_rng(3), 4000, StatePoint(1.25, 6000.0), 0.3
    log_prob = rng.normal(size=count)
    energy = point.kT * (variance**0.5 * rng.normal(size=count) - log_prob + noise**0.5 * rng.normal(size=count))
    s2 = np.full(count, noise * point.kT**2)
    weights = boltzmann_weights(energy, s2**0.5, log_prob, point.kT)
    protons = np.zeros((count, 8, 3))
    flow = StateSamples(point, protons, log_prob, energy, s2**0.5, s2, 400, None, weights).flow_gap
    assert flow.note().startswith(order)
    assert flow.gap is not None
    assert abs(flow.gap.value - 0.5 * point.kT * variance / 8) < 4.0 * flow.gap.error
    assert flow.gap.error < 0.1 * flow.gap.value


def test_the_noise_of_an_energy_is_the_scatter_of_repeats() -> None:
    """Two twists of different weight: the mean of (E_1 - E_2)^2 / 2 over many configurations is the mean noise."""
    state = build_state({"twists": [3, 1, 1], "twist_symmetry": "time_reversal"}, trained=True)
    protons = state.place().protons.repeat(12, 1, 1)
    given = Strata((state.strata.points[0],), state.strata.twists), state.wavefunction, state.sampler, 4, 10, 3
    first, second = (ElectronMonteCarlo(state.system, *given, seed).averages(protons) for seed in (1, 2))
    energy = np.array([[each.energy.value for each in found if each.energy] for found in (first, second)])
    half = 0.5 * np.square(energy[0] - energy[1])
    noise = np.array([each.noise for each in (*first, *second)])
    assert abs(half.mean() - noise.mean()) < 4.0 * np.hypot(half.std(), noise.std()) / np.sqrt(len(half))


def test_command_writes_what_ase_reads(folder, capsys) -> None:
    words = ["sample.num_samples=3", "sample.pilot_sweeps=8", "sample.num_sweeps=4", "sample.forces=true"]
    assert main(["sample", f"run_dir={folder}", *words]) == 0
    printed = capsys.readouterr().out
    assert "samples of p(x)" in printed
    assert "note: the autocorrelation time" in printed or "note: rs" in printed
    frames = ase.io.read(folder / "samples" / "samples.extxyz", index=":")
    assert [frame.info["rs"] for frame in frames] == [1.9] * 3 + [2.1] * 3
    run = lv.load(folder)
    for frame in frames:
        assert frame.get_potential_energy() == pytest.approx(frame.info["e_psi_ha"] * HARTREE_TO_EV, rel=1e-6)
        assert frame.arrays["hellmann_feynman_forces"].shape == (2, 3)
        assert "angstrom" in frame.info["units"]
        x = torch.tensor(frame.positions)[None] / BOHR_TO_ANGSTROM
        states = run.at(int(frame.info["rs"] == 2.1))
        assert float(run.log_prob(x, states)) == pytest.approx(frame.info["log_prob"], abs=1e-4)
    content = json.loads((folder / "samples" / "samples.json").read_text())
    assert content["step"] == 2
    assert content["states"][0]["flow_gap_per_atom"]["unit"] == "Ha/atom"
    assert "gap of the flow: not given: only 3 independent proton samples" in printed
    assert "minimum" in content["forces"]
    assert content["command"].startswith("lightning-vfe sample")


def test_the_electrons_of_a_file_give_its_log_psi_and_local_energies(folder) -> None:
    """Read back, and computed again by the run."""
    words = ["sample.num_samples=2", "sample.pilot_sweeps=4", "sample.num_sweeps=2", "sample.num_electron_walkers=3"]
    assert main(["sample", f"run_dir={folder}", *words, "sample.electrons=true"]) == 0
    run, frames = lv.load(folder), ase.io.read(folder / "samples" / "samples.extxyz", index=":")
    with h5py.File(folder / "samples" / "walkers.h5") as file:
        assert list(file) == ["state_0", "state_1"]
        for number, group in enumerate(file.values()):
            assert (group.attrs["rs"], group.attrs["temperature_kelvin"]) == ((1.9, 2.1)[number], 6000.0)
            assert group["electrons"].attrs["unit"].startswith("bohr")
            protons, electrons = (torch.tensor(group[name][()]) for name in ("protons", "electrons"))
            assert electrons.shape == (2, 1, 3, 2, 3)
            for i, frame in enumerate(frames[2 * number : 2 * number + 2]):
                assert protons[i].numpy() == pytest.approx(frame.positions / BOHR_TO_ANGSTROM, abs=1e-6)
                states = run.at(number)
                log_psi = run.log_psi(protons[i : i + 1], electrons[i], states)
                energies = run.energies(protons[i : i + 1], electrons[i], states).electronic.total
                assert group["log_psi"][i] == pytest.approx(log_psi.numpy(), abs=1e-9)
                assert group["local_energy"][i] == pytest.approx(energies.numpy(), abs=1e-9)


def test_a_base_with_a_potential_gives_its_energies_and_forces() -> None:
    from lightning_vfe.models.base.boltzmann import BoltzmannBase
    from lightning_vfe.models.potential.yukawa import YukawaPotential

    state = build_state(trained=True)
    point = state.strata.single
    cell = point.cell(2)
    potential = YukawaPotential(1.0, 0.7, 4.0)
    state.proton_density.base = BoltzmannBase(cell, potential, point.temperature_kelvin, 0.0, 0.0)
    settings = SampleSettings(8, pilot_sweeps=8, equilibration_sweeps=1, num_sweeps=2, forces=True)
    found = sample_state(state, settings, {})
    x = torch.tensor(found.states[0].protons)
    assert found.states[0].ml_energy == pytest.approx(potential.energy(x, cell).numpy())
    assert found.states[0].ml_forces == pytest.approx(potential.forces(x, cell).numpy())
    assert "ml_forces" in found.atoms()[0].arrays
    assert "ml_energy" in found.table


def test_what_cannot_be_sampled_ends_in_one_line(folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, other)
    for words, part in [
        (["sample"], "run_dir = null names no run"),
        (["sample", f"run_dir={folder}", "sample.num_samples=0"], "sample.num_samples = 0 must be at least 1"),
        (["sample", f"run_dir={folder}", "sample.spacing=one"], "sample.spacing"),
        (["sample", f"run_dir={tmp_path / 'none'}"], f"run_dir = {tmp_path / 'none'} does not exist; give the folder"),
        (["sample", f"run_dir={folder}", f"ckpt_path={other}"], f"ckpt_path = {other} is of another model: parameter"),
    ]:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
    with pytest.raises(lv.SettingError, match=r"^system.protons = fixed leaves nothing to sample"):
        sample_state(build_state({"protons": "fixed"}), SampleSettings(1), {})


def test_the_trained_energies_in_ase(folder) -> None:
    """The calculator gives what the electrons' Monte Carlo gives, and refuses another cell."""
    run = lv.load(folder)
    calculator = run.calculator(1, num_electron_walkers=4, equilibration_sweeps=2, num_sweeps=4)
    length = run.state.strata.points[1].cell(2).length * BOHR_TO_ANGSTROM
    atoms = ase.Atoms("H2", [[0, 0, 0], [0.9, 0.2, 0]], cell=[length] * 3, pbc=True, calculator=calculator)
    forces = atoms.get_forces()
    assert forces.shape == (2, 3)
    assert np.isfinite(forces).all()
    assert calculator.results["energy_error"] > 0
    assert -60.0 < atoms.get_potential_energy() < 0.0  # eV
    atoms.set_cell([1.1 * length] * 3)
    with pytest.raises(lv.SettingError, match=r"are not those of the run, N = 2, rs = 2\.1"):
        atoms.get_potential_energy()
