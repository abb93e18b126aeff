"""The calculators that come ready: Quantum ESPRESSO, PySCF, and energies of a wavefunction."""

import importlib.util
import math
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vfe.labels.calculators.espresso import EspressoCalculator
from lightning_vfe.labels.calculators.pyscf import PySCFCalculator
from lightning_vfe.labels.calculators.vmc import VMCLabeller
from lightning_vfe.labels.label import Configuration, Label, ase_label
from lightning_vfe.labels.workers import ProcessLabeller
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.system import System
from lightning_vfe.physics.units import HARTREE_TO_EV

HAS_ESPRESSO = shutil.which("pw.x") is not None and Path("/usr/share/espresso/pseudo/H.pbe-kjpaw.UPF").is_file()
HAS_PYSCF = importlib.util.find_spec("pyscf") is not None
needs_espresso = pytest.mark.skipif(not HAS_ESPRESSO, reason="pw.x or its pseudopotentials are not installed")
needs_pyscf = pytest.mark.skipif(not HAS_PYSCF, reason="PySCF is not installed")

# two atoms with few states: at 60000 K some of them are partly occupied at Gamma
CELL = PeriodicCell(2, 1.25)
TWO = Configuration(np.array([[0.1, 0.2, 0.3], [1.1, 0.9, 1.2]]), CELL.length)
HOT = 60000.0


@pytest.fixture(scope="module")
def espresso_label() -> Label | str:
    calculator = partial(EspressoCalculator, HOT, twists=(1, 1, 1), num_bands=12)
    return next(ProcessLabeller(calculator)([TWO]))[1]


@needs_espresso
def test_espresso_separates_energy_and_free_energy(espresso_label: Label | str) -> None:
    label = espresso_label
    assert isinstance(label, Label), label
    assert label.energy > label.free_energy + 5e-3, "-TS is negative"
    assert label.forces is not None
    assert abs(label.forces.sum(0)).max() < 1e-4
    assert label.pressure_gpa is not None
    # E = F - T dF/dT
    step = 500.0
    plus, minus = (
        next(ProcessLabeller(partial(EspressoCalculator, HOT + change, twists=(1, 1, 1), num_bands=12))([TWO]))[1]
        for change in (step, -step)
    )
    assert isinstance(plus, Label)
    assert isinstance(minus, Label)
    slope = (plus.free_energy - minus.free_energy) / (2 * step)
    assert label.energy == pytest.approx(label.free_energy - HOT * slope, abs=1e-5)


@needs_espresso
def test_espresso_takes_bands_until_one_is_empty(espresso_label: Label | str) -> None:
    few = next(ProcessLabeller(partial(EspressoCalculator, HOT, twists=(1, 1, 1), num_bands=4))([TWO]))[1]
    assert isinstance(few, Label)
    assert isinstance(espresso_label, Label)
    assert few.free_energy == pytest.approx(espresso_label.free_energy, abs=1e-5)
    assert few.energy == pytest.approx(espresso_label.energy, abs=1e-4)


@needs_espresso
def test_espresso_says_why_it_failed() -> None:
    one_step = partial(EspressoCalculator, 6000.0, twists=(1, 1, 1), max_scf_steps=1)
    result = next(ProcessLabeller(one_step)([TWO]))[1]
    assert result == "RuntimeError: pw.x: no convergence after 1 iterations"


def test_espresso_takes_the_twists_as_k_points(tmp_path: Path) -> None:
    """One of f and -f with the weight of both; Gamma is None, for which pw.x has real orbitals."""
    (tmp_path / "H.upf").touch()
    make = partial(EspressoCalculator, 6000.0, command="python3", pseudo_dir=str(tmp_path), pseudopotential="H.upf")
    assert make(twists=(1, 1, 1)).parameters["kpts"] is None
    grid = make().parameters["kpts"]
    assert sorted(map(tuple, abs(grid))) == [(0.25, 0.25, 0.25, 0.25)] * 4
    half = make(twists=(2, 1, 1), twist_shift=(0.5, 0, 0)).parameters["kpts"]
    np.testing.assert_allclose(half, [[0, 0, 0, 0.5], [0.5, 0, 0, 0.5]])
    np.testing.assert_allclose(make(twists="baldereschi").parameters["kpts"], [[0.25, 0.25, 0.25, 1]])
    with pytest.raises(ValueError, match=r"twists = random has no fixed k-points; give a grid"):
        make(twists="random")


@needs_espresso
def test_espresso_averages_over_twists() -> None:
    """The average over f = 0 and 1/2 is that of twice the cell, in any form."""
    doubled = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]
    labels = []
    for keys in ({"twists": (2, 1, 1), "twist_shift": (0.5, 0, 0)}, {"twists": doubled}):
        labels.append(next(ProcessLabeller(partial(EspressoCalculator, HOT, num_bands=12, **keys))([TWO]))[1])
        assert isinstance(labels[-1], Label), labels[-1]
    assert labels[0].free_energy == pytest.approx(labels[1].free_energy, abs=1e-7)
    calculator = EspressoCalculator(HOT, twists=(1, 1, 1), num_bands=24)
    atoms = TWO.to_atoms().repeat((2, 1, 1))
    with tempfile.TemporaryDirectory() as folder:
        calculator.directory = Path(folder)
        atoms.calc = calculator
        pair = atoms.get_potential_energy(force_consistent=True) / HARTREE_TO_EV
    assert pair / 2 == pytest.approx(labels[0].free_energy, abs=2e-4)


def test_espresso_names_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"command = no_such_pw.x is not installed.*apt-get install"):
        EspressoCalculator(6000.0, command="no_such_pw.x")
    with pytest.raises(ValueError, match=r"pseudopotential = H.none.*apt-get install"):
        EspressoCalculator(6000.0, command="python3", pseudopotential="H.none")
    with pytest.raises(ValueError, match="ecutwfc = 90"):
        EspressoCalculator(6000.0, ecutwfc=90.0)


@needs_espresso
def test_espresso_tells_its_version() -> None:
    assert EspressoCalculator(6000.0).program_version.startswith("pw.x v.")


@needs_espresso
@needs_pyscf
def test_espresso_and_pyscf_agree(espresso_label: Label | str) -> None:
    expected, found = espresso_label, ase_label(PySCFCalculator(HOT, basis="gth-dzvp"), TWO)
    assert isinstance(expected, Label)
    assert expected.forces is not None
    assert found.forces is not None
    # the basis lacks about 1 mHa per atom, and 1 mHa/bohr; -TS is 4 mHa per atom, so that E for F would be seen
    for name in ("free_energy", "energy"):
        assert getattr(found, name) / 2 == pytest.approx(getattr(expected, name) / 2, abs=1.5e-3)
    assert found.energy - found.free_energy == pytest.approx(expected.energy - expected.free_energy, rel=0.1)
    assert abs(found.forces - expected.forces).max() < 2e-3 < 0.1 * abs(expected.forces).max()


@needs_pyscf
def test_pyscf_refuses() -> None:
    with pytest.raises(ValueError, match="kpts"):
        PySCFCalculator(6000.0, kpts=(0, 1, 1))
    with pytest.raises(RuntimeError, match="cannot be paired"):
        ase_label(PySCFCalculator(6000.0), Configuration(TWO.positions[:1], TWO.length))


class Uniform(torch.nn.Module):
    """ln psi = 0: uniform electrons without kinetic energy."""

    def forward(self, protons, electrons, states):
        zero = (electrons * 0.0).sum((-2, -1))
        return torch.complex(zero, zero) if isinstance(zero, torch.Tensor) else zero * (1.0 + 0.0j)


def test_vmc_energies_have_honest_errors() -> None:
    labeller = VMCLabeller(
        System(2), CELL.rs, Uniform(), twists=(1, 1, 2), num_electron_walkers=8, num_sweeps=40, batch_size=5
    )
    rng = np.random.default_rng(0)
    places = [Configuration(rng.uniform(0, CELL.length, (2, 3)), CELL.length) for _ in range(12)]
    places.append(Configuration(places[0].positions, 2 * CELL.length))
    results = dict(labeller(places))
    assert results.pop(12) == f"the wavefunction belongs to N = 2, rs = {CELL.rs:g}"
    protons = torch.tensor(np.stack([place.positions for place in places[:12]]))
    ewald = Ewald(CELL)
    coulomb = ewald.energies(protons.unsqueeze(1), CELL.length * torch.rand(12, 6000, 2, 3))
    exact = coulomb.v_pp.reshape(12, -1)[:, 0] + (coulomb.v_ee + coulomb.v_pe).mean(1)
    sampling = (coulomb.v_ee + coulomb.v_pe).std(1) / math.sqrt(6000)
    pulls = []
    for index in range(12):
        label = results[index]
        assert isinstance(label, Label)
        assert label.energy_error is not None
        assert label.forces is None
        error = math.hypot(label.energy_error, float(sampling[index]))
        pulls.append((label.energy - float(exact[index])) / error)
    assert max(map(abs, pulls)) < 4
    assert 0.4 < np.std(pulls) < 1.8


class PlaneWave(Uniform):
    """ln psi = i k (r_1 + ... + r_N): uniform electrons with the kinetic energy N k^2/2, k = 2 pi twist / L."""

    def forward(self, protons, electrons, states):
        k = 2 * math.pi / CELL.length * states.twist
        phase = (electrons * k.unsqueeze(-2)).sum((-2, -1))
        return torch.complex(torch.zeros_like(phase), phase) + super().forward(protons, electrons, states)


def test_a_vmc_label_averages_over_its_twists() -> None:
    """The kinetic energies at the twists, with their weights, and the Coulomb energy of uniform electrons."""
    twists = [[0.25, 0.1, 0.0, 1.0], [0.1, -0.3, 0.2, 3.0]]
    rng = np.random.default_rng(0)
    places = [Configuration(rng.uniform(0, CELL.length, (2, 3)), CELL.length) for _ in range(12)]

    def energies(psi: torch.nn.Module, spec: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
        labeller = VMCLabeller(System(2), CELL.rs, psi, twists=spec, num_electron_walkers=16, num_sweeps=40)
        labels = [label for _, label in sorted(labeller(places), key=lambda found: found[0])]
        return tuple(np.array([getattr(label, name) for label in labels]) for name in ("energy", "energy_error"))

    average, error = energies(PlaneWave(), twists)
    uniform, uniform_error = energies(Uniform(), [[0.0, 0.0, 0.0]])
    squares = [sum(x * x for x in twist[:3]) for twist in twists]
    kinetic = (2 * math.pi / CELL.length) ** 2 * (squares[0] + 3 * squares[1]) / 4
    deviation = (average - uniform - kinetic).mean()
    expected = math.sqrt((error**2 + uniform_error**2).sum()) / 12
    plain = (2 * math.pi / CELL.length) ** 2 * (squares[0] + squares[1]) / 2
    assert abs(plain - kinetic) > 6 * expected, "a plain mean over twists would be seen"
    assert abs(deviation) < 3.5 * expected


def test_vmc_refuses_too_few_walkers() -> None:
    with pytest.raises(ValueError, match="num_electron_walkers = 1"):
        VMCLabeller(System(2), CELL.rs, Uniform(), num_electron_walkers=1)
