"""Several state points as one MBAR problem: exact values, joint errors, and the journal of the samples."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vfe.log_z import mbar
from lightning_vfe.log_z.integrate import integrate, integrate_path
from lightning_vfe.log_z.settings import LogZSettings
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.ewald import Ewald
from lightning_vfe.workflows.sweep_files import SweepFiles
from tests.helpers.plasma import exact_excess_free_energy
from tests.helpers.scripts import load_script

bench = load_script(Path(__file__).parents[2] / "benchmarks" / "bench_log_z.py")
GAMMAS = (1.0, 2.0, 5.0, 10.0)
QUICK = LogZSettings(
    num_chains=6,
    num_steps=3,
    num_sweeps=50,
    max_sweeps=50,
    pilot_sweeps=15,
    target_error_per_atom=1.0,
    num_bootstraps=20,
    seed=5,
)


def test_plasma_of_four_couplings_from_one_problem() -> None:
    """ln Z of two charges at Gamma = 1, 2, 5, 10 against quadrature, within 3 errors; the errors are joint ones."""
    cell = PeriodicCell(2, 1.0)
    ewald = Ewald(cell, 1e-5)
    stages = torch.tensor(GAMMAS, dtype=torch.float64)[:, None]
    found = integrate_path([ewald.proton_energy], stages, [1, 2, 3, 4], cell, 1.0, QUICK)
    ideal = 6 * math.log(cell.length)
    exact = [ideal - gamma * exact_excess_free_energy(cell, 1.0 / gamma) for gamma in GAMMAS]
    print(found.log_z, exact, found.errors)
    assert (found.errors < 0.25).all()
    assert (np.abs(found.log_z - exact) < 3 * found.errors).all()
    correlation = found.covariance / np.outer(found.errors, found.errors)
    assert np.allclose(correlation, correlation.T)
    assert np.linalg.eigvalsh(correlation).min() > -1e-9
    assert correlation[2, 3] > 0.3, "the states share the path below them"
    last = math.sqrt(found.covariance[3, 3] + found.covariance[2, 2] - 2 * found.covariance[2, 3])
    assert abs((found.log_z[3] - found.log_z[2]) - (exact[3] - exact[2])) < 3.5 * last


def test_sixteen_charges_against_the_literature_and_a_single_problem() -> None:
    """f at N = 16 against the published f of infinite N with the correction for N, and against one integration.

    Published are Gamma = 1, 5 and 10. The random-phase correction holds within 0.006 kT here.
    """
    cell = PeriodicCell(16, 1.0)
    ewald, ideal = Ewald(cell, 1e-4), 48 * math.log(cell.length)
    settings = replace(QUICK, num_chains=4, num_steps=2, pilot_sweeps=10, spacing=1.5)
    stages = torch.tensor(GAMMAS, dtype=torch.float64)[:, None]
    found = integrate_path([ewald.proton_energy], stages, [1, 2, 3, 4], cell, 1.0, settings)
    infinite = bench.published()
    for gamma, log_z, error in zip(GAMMAS, found.log_z, found.errors / 16, strict=True):
        value = -(log_z - ideal) / 16
        assert error < 0.03
        if gamma in infinite:
            expected = infinite[gamma] + bench.fluctuation_correction(16, gamma)
            print(gamma, value, error, expected)
            assert abs(value - expected) < 3 * error + 0.006
    single = integrate([ewald.proton_energy], cell, 0.5, settings)
    assert abs(found.log_z[1] - single.log_z) < 3 * math.hypot(found.errors[1], single.log_z_error)


def test_the_correction_for_the_size_of_a_plasma() -> None:
    """-0.076 at N = 16 and -0.030 at N = 54 for Gamma = 1, as simulations find; and the sum over waves itself."""
    assert bench.fluctuation_correction(16, 1.0) == pytest.approx(-0.076, abs=1e-3)
    assert bench.fluctuation_correction(54, 1.0) == pytest.approx(-0.030, abs=1e-3)
    # Small Gamma: (q^2/2N) [sum - integral] 1/k^2 = Gamma/2 times the Madelung energy -2.8373/L, in units of 1/rs.
    small, length = 1e-7, PeriodicCell(16, 1.0).length
    assert bench.fluctuation_correction(16, small) == pytest.approx(-0.5 * small * 2.837297 / length, rel=1e-3)


class Interrupted(Exception):
    pass


def well(z: torch.Tensor) -> torch.Tensor:
    return 0.5 * (z - 1.0).square().sum(dim=(-2, -1)).clamp(max=50.0)


def test_an_interrupted_integration_resumes_with_its_samples(tmp_path: Path) -> None:
    """The result is that of an uninterrupted one to the last digit, and no finished part is sampled again."""
    cell, calls = PeriodicCell(2, 1.0), {"count": 0, "limit": 10**9}

    def energy(z: torch.Tensor) -> torch.Tensor:
        calls["count"] += 1
        if calls["count"] > calls["limit"]:
            raise Interrupted
        return well(z)

    whole = integrate([energy], cell, 0.5, QUICK)
    number = calls["count"]
    calls |= {"count": 0, "limit": int(0.8 * number)}
    with pytest.raises(Interrupted):
        integrate([energy], cell, 0.5, QUICK, journal=SweepFiles(tmp_path))
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 4
    files[2].write_bytes(b"damaged")
    calls |= {"count": 0, "limit": 10**9}
    resumed = integrate([energy], cell, 0.5, QUICK, journal=SweepFiles(tmp_path))
    assert (resumed.log_z, resumed.log_z_error) == (whole.log_z, whole.log_z_error)
    assert torch.equal(resumed.positions, whole.positions)
    assert calls["count"] < 0.6 * number
    SweepFiles(tmp_path).remove()
    assert not tmp_path.exists()


def test_singular_equations_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def singular(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(mbar, "_solve", singular)
    with pytest.raises(FloatingPointError, match=r"equations are singular \(SVD did not converge\).*log_z.spacing"):
        integrate([well], PeriodicCell(2, 1.0), 0.5, QUICK)
