"""The local energy where two particles meet, and the slopes of ln|psi| there (Kato), with parameters far from their
start: all networks and the backflow take part, only the Jastrow factor may have a cusp.
"""

import pytest
import torch

from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.physics.local_energy import local_energy
from lightning_vfe.physics.system import System
from tests.helpers.states import states_at
from tests.helpers.wavefunctions import GAMMA, GENERAL_TWIST, make_wavefunction, random_configurations

NUM_DIRECTIONS = 6
DISTANCES = [10.0**-power for power in range(1, 7)]
KINDS = ["electron-proton", "image of a proton", "opposite spins", "same spin"]
CUSPS = dict(zip(KINDS, [-1.0, -1.0, 0.5, 0.25], strict=True))


class Meeting:
    """Electron 0 at small vectors from another particle, the rest of a random configuration fixed."""

    def __init__(self, kind, twist, num_atoms=4):
        self.cell = PeriodicCell(num_atoms, 1.31)
        self.wavefunction = make_wavefunction(self.cell, num_determinants=2)
        protons, electrons = random_configurations(self.cell, 1, 1, seed=3)
        self.protons, self.electrons = protons[0, 0], electrons[0, 0]
        self.states = states_at(self.cell, twist=twist)
        if kind == "opposite spins":
            self.place = self.electrons[num_atoms - 1]
        elif kind == "same spin":
            self.place = self.electrons[1]
        else:
            if kind == "image of a proton":
                # Behind the wall of the cell, so that half of the directions wrap around.
                self.protons[1, 0] = 0.0
            self.place = self.protons[1] + (self.cell.length if kind == "image of a proton" else 0.0)

    def positions(self, vectors):
        """All electrons (..., N, 3), for vectors (..., 3) from the other particle."""
        electrons = self.electrons.expand(*vectors.shape[:-1], -1, -1).clone()
        electrons[..., 0, :] = self.place + vectors
        return electrons

    def log_abs_psi(self, vectors):
        with torch.no_grad():
            return self.wavefunction.log_psi(self.protons, self.positions(vectors), self.states).real

    def local_energy(self, vectors):
        terms = local_energy(
            Ewald(System(self.cell.num_atoms).cell),
            self.wavefunction.log_psi,
            self.protons.unsqueeze(0),
            self.positions(vectors).unsqueeze(0),
            self.states.unsqueeze(0),
        )
        return terms.total[0], terms.kinetic[0]


def _directions():
    """Random, and along an axis and the diagonal of the cell. # (NUM_DIRECTIONS, 3)"""
    vectors = torch.randn(NUM_DIRECTIONS, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    vectors[0], vectors[1] = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])
    return torch.nn.functional.normalize(vectors, dim=-1)


@pytest.mark.parametrize("twist", [GAMMA, GENERAL_TWIST], ids=["gamma", "twist"])
@pytest.mark.parametrize("kind", KINDS)
def test_local_energy_stays_bounded(kind, twist, record_property):
    """From 0.1 to 1e-6 bohr; the terms that cancel grow to a million Ha."""
    meeting = Meeting(kind, twist)
    directions = _directions()
    energies, kinetic = zip(*(meeting.local_energy(d * directions) for d in DISTANCES), strict=True)
    energies = torch.stack(energies)  # (distances, directions)
    assert kinetic[-1].abs().max() > 1e5, "kinetic and Coulomb energy diverge on their own"
    # Along each direction the local energy has a limit: it moves less and less.
    changes = (energies[1:] - energies[:-1]).abs().amax(-1)
    record_property("largest_local_energy", energies.abs().max().item())
    print("max |E_loc|", [f"{e:.3f}" for e in energies.abs().amax(-1)], "changes", [f"{c:.1e}" for c in changes])
    assert energies.abs().max() < 300.0
    # ... until rounding: eps / d^2 for the determinant of two electrons of the same spin, and where the position itself
    # is rounded, to eps L behind the wall; eps / d else.
    size = {"same spin": 1e-13, "image of a proton": 5e-16}.get(kind)
    rounding = [1e-13 / d if size is None else size / d**2 for d in DISTANCES[1:]]
    for change, d, noise in zip(changes, DISTANCES[:-1], rounding, strict=True):
        bound = 20.0 * d * energies[0].abs().max() + noise
        assert change < bound, f"E_loc changes by {change:.1e} Ha below {d:.0e} bohr"


@pytest.mark.parametrize("twist", [GAMMA, GENERAL_TWIST], ids=["gamma", "twist"])
@pytest.mark.parametrize("kind", KINDS)
def test_slopes_at_contact(kind, twist):
    """Averaged over opposite directions ln|psi| = const + c d + O(d^2); same spin: after division by the node."""
    meeting = Meeting(kind, twist)
    step = 2e-4
    directions = _directions()

    def average(multiple):
        vectors = multiple * step * directions
        both = meeting.log_abs_psi(vectors) + meeting.log_abs_psi(-vectors)
        return 0.5 * both - (torch.log(torch.tensor(multiple * step)) if kind == "same spin" else 0.0)

    near, middle, far = average(1), average(2), average(4)
    # The second difference removes the term of order d^2.
    slopes = (2.0 * (middle - near) - 0.5 * (far - middle)) / step
    error = (slopes - CUSPS[kind]).abs().max().item()
    print(f"largest error {error:.1e}")
    assert error < 1e-4, f"slopes {slopes.tolist()}, not {CUSPS[kind]}"


def test_an_electron_that_passes_through_two_protons():
    """The line through both protons of a molecule: no spike of the local energy at either of them."""
    cell = PeriodicCell(2, 1.31)
    wavefunction = make_wavefunction(cell)
    protons = torch.tensor([[0.2, 0.3, 0.4], [1.6, 0.3, 0.4]])
    offsets = torch.tensor([-0.05, -1e-4, 1e-4, 0.05])
    along = torch.cat([protons[0, 0] + offsets, torch.tensor([0.9]), protons[1, 0] + offsets])
    electrons = torch.tensor([[0.0, 0.3, 0.4], [1.0, 1.7, 2.2]]).repeat(len(along), 1, 1)
    electrons[:, 0, 0] = along
    states = states_at(cell, 1)
    terms = local_energy(Ewald(System(2).cell), wavefunction.log_psi, protons[None], electrons[None], states)
    assert terms.v_pe.abs().max() > 1e3
    assert (terms.total.abs() < 100.0).all(), terms.total
