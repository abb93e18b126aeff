"""The Hugoniot against closed forms and published curves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.eos.fit import fit_surface
from lightning_vfe.analysis.eos.hugoniot import InitialState, hugoniot_of_points, hugoniot_of_surface
from lightning_vfe.analysis.eos.points import Point, collect
from lightning_vfe.analysis.eos.surface import Basis, Surface, Terms, kelvin_to_kT, volume_per_atom
from lightning_vfe.analysis.eos.tables import hugoniot_lines
from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.states import State
from lightning_vfe.physics.units import HARTREE_PER_BOHR3_TO_GPA, PROTON_MASS
from lightning_vfe.resources import resource_folder
from tests.helpers.states_of_gas import write_gas

LRDMC = Path(__file__).parents[2] / "exact" / "reference" / "lrdmc.csv"


def gas(shift: float = 0.0) -> Surface:
    """The ideal gas with a constant binding energy."""
    basis = Basis(8, PROTON_MASS, 33.0, 0.02, Terms(1, 1))
    return Surface(basis, np.array([shift]), np.zeros((1, 1)))


def test_ideal_gas_is_compressed_at_most_fourfold() -> None:
    """E = 3/2 kT and P = kT/V from a cold start give V_0/V = 4 at every temperature."""
    start = InitialState(energy=0.0, volume=100.0)
    found = hugoniot_of_surface(gas(), start, [3000.0, 6000.0, 50_000.0], (1.0, 3.0))
    np.testing.assert_allclose(found["compression"], 4.0, rtol=1e-9)
    pressure = kelvin_to_kT(found["temperature_kelvin"]) / 25.0 * HARTREE_PER_BOHR3_TO_GPA
    np.testing.assert_allclose(found["pressure_gpa"], pressure, rtol=1e-9)
    assert list(found["ground_state_electrons"]) == [True, True, False]


@pytest.mark.parametrize("pressure", [0.0, 1e-4])
def test_bound_gas_against_its_closed_form(pressure: float) -> None:
    """With E = 3/2 kT + b, V solves (3/2 kT + b - E_0) V + (kT + P_0 V)(V - V_0)/2 = 0, a quadratic equation."""
    start, b = InitialState(energy=-0.02, volume=100.0, pressure=pressure), 0.01
    kelvins = [6000.0, 20_000.0, 1e6]
    found = hugoniot_of_surface(gas(b), start, kelvins, (1.0, 3.2))
    for kelvin, compression in zip(found["temperature_kelvin"], found["compression"], strict=True):
        kT = float(kelvin_to_kT(kelvin))
        line = 2.0 * kT + b - start.energy - 0.5 * pressure * start.volume
        roots = np.roots([0.5 * pressure, line, -0.5 * kT * start.volume])
        assert start.volume / compression == pytest.approx(min(root for root in roots if root > 0), rel=1e-9)
    assert len(found) >= 2


def test_outside_the_range_there_is_no_row() -> None:
    assert hugoniot_of_surface(gas(), InitialState(0.0, 100.0), [6000.0], (2.0, 3.0)).empty


def test_published_curve_from_its_states() -> None:
    """The states of Tenti et al. give their published Hugoniot (data/hugoniot.csv); linear fits there."""
    rows = pd.read_csv(LRDMC, comment="#")
    error = np.diag([math.nan, 3e-4, 0.1 / HARTREE_PER_BOHR3_TO_GPA]) ** 2
    points = [
        Point(
            State(row.rs, row.T_kelvin), np.array([math.nan, row.E, row.P / HARTREE_PER_BOHR3_TO_GPA]), error, "LRDMC"
        )
        for row in rows.itertuples()
    ]
    found = hugoniot_of_points(points, InitialState.of("D")).set_index("temperature_kelvin")
    published = pd.read_csv(resource_folder("data") / "hugoniot.csv", comment="#").dropna().set_index("T_kelvin")
    assert list(found.index) == list(published.index)
    np.testing.assert_allclose(found["compression"], published["compression"], rtol=0.02)
    np.testing.assert_allclose(found["pressure_gpa"], published["P"], rtol=0.01)


def test_errors_are_those_of_the_scatter(tmp_path: Path) -> None:
    """Over many sets of noise, of both ways to find it."""
    start, rs, kelvins = InitialState(energy=0.0151, volume=60.0), [1.7, 1.8, 1.9, 2.0], [5000.0, 7000.0]
    found: dict[str, list[pd.Series]] = {"surface": [], "points": []}
    for seed in range(20):
        points = collect([RunFolder(write_gas(tmp_path / str(seed), rs, kelvins, seed=seed))])
        fit = fit_surface(points, 8, PROTON_MASS)
        found["surface"].append(hugoniot_of_surface(fit.surface, start, [7000.0], (1.7, 2.0)).iloc[0])
        found["points"].append(hugoniot_of_points(points, start).iloc[-1])
    for rows in found.values():
        table = pd.DataFrame(rows)
        for name in ("compression", "pressure_gpa"):
            assert table[name].std() == pytest.approx(table[f"{name}_error"].mean(), rel=0.5)


def test_initial_volumes() -> None:
    """0.167 g/cm^3 of deuterium; rs of the liquid is known to be 3.18 bohr."""
    deuterium, hydrogen = InitialState.of("D"), InitialState.of("H")
    assert float(volume_per_atom(3.18)) == pytest.approx(deuterium.volume, rel=0.01)
    assert hydrogen.volume > deuterium.volume
    assert hydrogen.energy > deuterium.energy  # by the zero-point motion


def scaling_points(rs: list[float], kelvin: float = 8000.0) -> list[Point]:
    """K = 1.1/rs^2 and V = -1.5/rs, with protons of a gas: E and P V are parabolas in 1/rs, P falls by a power."""
    kT, error = float(kelvin_to_kT(kelvin)), np.diag([math.nan, 1e-4, 1e-6]) ** 2
    points = []
    for each in rs:
        kinetic, coulomb = 1.1 / each**2, -1.5 / each
        pressure = (2.0 * kinetic + coulomb + 3.0 * kT) / (3.0 * float(volume_per_atom(each)))
        values = np.array([math.nan, kinetic + coulomb + 1.5 * kT, pressure])
        points.append(Point(State(each, kelvin), values, error, "scaling"))
    return points


def test_energies_that_scale_with_the_density_are_interpolated_exactly() -> None:
    """Over a range in which P changes its sign; lines between the densities are not exact, and give the truncation."""
    start, wide = InitialState.of("D"), [1.2, 1.65, 2.1]
    found = hugoniot_of_points(scaling_points(wide), start).iloc[0]
    dense = hugoniot_of_points(scaling_points(list(np.linspace(1.2, 2.1, 91))), start).iloc[0]
    for name in ("compression", "pressure_gpa"):
        assert found[name] == pytest.approx(dense[name], rel=1e-6)
        assert dense[f"{name}_truncation"] < 1e-3 * found[f"{name}_truncation"]
        assert found[f"{name}_error"] > found[f"{name}_truncation"] > 0.0
    two = hugoniot_of_points(scaling_points([1.2, 2.1]), start).iloc[0]
    assert math.isnan(two["compression_truncation"])
    assert two["remark"] == "the error is statistical only: two densities give no truncation error"
    assert found["remark"] == ""
    assert hugoniot_lines(hugoniot_of_points(scaling_points([1.2, 2.1]), start)) == [
        f"Hugoniot of measured E and P at 8000 K: {two['remark']}"
    ]
    assert hugoniot_lines(hugoniot_of_points(scaling_points(wide), start)) == []
    assert two["compression_error"] > 0.0
