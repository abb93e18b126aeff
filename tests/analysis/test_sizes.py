"""F, E and P against 1/N over runs of one state."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.published import literature_table
from lightning_vfe.analysis.run import load_run
from lightning_vfe.analysis.sizes import EXTRAPOLATED, draw_sizes, extrapolate, size_table
from lightning_vfe.cli import main
from lightning_vfe.errors import CommandError
from lightning_vfe.workflows.report import report

SYSTEM = {"rs": 1.25, "protons": "sampled", "temperature_kelvin": 6000.0}
LIMITS = {"free_energy_per_atom": -0.55, "energy_per_atom": -0.43, "pressure_gpa": 540.0}


def write_run(folder: Path, num_atoms: int, slope: float = -0.4, rest: float = 0.0, **system: object) -> Path:
    """A result y = y_inf + slope / N, whose correction takes all of it but `rest` / N."""
    folder.mkdir(parents=True)
    content: dict[str, object] = {"system": SYSTEM | {"num_atoms": num_atoms} | system, "converged": num_atoms != 14}
    for name, limit in LIMITS.items():
        error = 0.5 if name == "pressure_gpa" else 0.0005
        content[name] = {"value": limit + slope / num_atoms, "error": error}
        correction = {"value": (rest - slope) / num_atoms, "error": None, "unit": "Ha", "method": "plasmon"}
        content[f"finite_size_{name}"] = correction
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / f"h{n}", n) for n in (16, 8, 14, 32)]


def test_lines_are_exact(folders: list[Path]) -> None:
    """Raw values on a line, and corrected values that do not depend on N."""
    found = report(folders)
    assert list(found.table["num_atoms"]) == [8, 14, 16, 32]
    assert found.extrapolation is not None
    for name, limit in LIMITS.items():
        raw, corrected = (found.extrapolation.loc[(name, kind)] for kind in ("raw", "corrected"))
        assert raw["value"] == pytest.approx(limit)
        assert raw["slope"] == pytest.approx(-0.4)
        assert corrected["value"] == pytest.approx(limit)
        assert corrected["slope"] == pytest.approx(0.0, abs=1e-10)
        assert raw["chi2_per_dof"] == pytest.approx(0.0, abs=1e-12)
        assert raw["num_sizes"] == 4


def test_errors_of_the_line_are_right() -> None:
    """Pulls of the value at 1/N = 0 over many noisy sets of points, and chi^2."""
    rng, sizes, pulls, chi2 = np.random.default_rng(4), np.array([8, 16, 32, 54]), [], []
    errors = np.array([0.001, 0.002, 0.002, 0.003])
    for _ in range(400):
        table = pd.DataFrame({"num_atoms": sizes})
        table["free_energy_per_atom"] = -0.55 - 0.4 / sizes + errors * rng.normal(size=4)
        table["free_energy_per_atom_error"] = errors
        table[["energy_per_atom", "energy_per_atom_error", "pressure_gpa", "pressure_gpa_error"]] = np.nan
        fit = extrapolate(table).loc[("free_energy_per_atom", "raw")]
        pulls.append((fit["value"] + 0.55) / fit["error"])
        chi2.append(fit["chi2_per_dof"])
    assert np.std(pulls) == pytest.approx(1.0, abs=4 / np.sqrt(2 * 400))
    assert np.mean(pulls) == pytest.approx(0.0, abs=4 / np.sqrt(400))
    assert np.mean(chi2) == pytest.approx(1.0, abs=4 / np.sqrt(400))


def test_published_values() -> None:
    """The extrapolation of Xie et al. (2023) from N = 16, 32 and 54 with 64 twists, whose F has equal weights."""
    table = literature_table()
    rows = table[(table["method"] == "VFE2023") & (table["twists"] == "64")]
    limit, finite = rows[np.isinf(rows["N"])], rows[np.isfinite(rows["N"])]
    points = pd.DataFrame({"num_atoms": finite["N"].astype(int)})
    for name, key in zip(EXTRAPOLATED, "FEP", strict=True):
        points[name], points[f"{name}_error"] = finite[key], 1.0
    found = extrapolate(points).xs("raw", level="kind")["value"]
    assert found["free_energy_per_atom"] == pytest.approx(float(limit["F"].iloc[0]), abs=0.002)
    assert found["energy_per_atom"] == pytest.approx(float(limit["E"].iloc[0]), abs=0.002)
    assert found["pressure_gpa"] == pytest.approx(float(limit["P"].iloc[0]), abs=10.0)


def test_command(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", f"runs=[{','.join(map(str, folders))}]", f"run_dir={tmp_path / 'report'}"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "corrected" in shown
    assert "chi^2 per dof" in shown
    assert "line at 1/N = 0" in shown
    assert "-0.5500" in shown
    lines = pd.read_csv(tmp_path / "report" / "extrapolation.csv", index_col=["term", "kind"])
    assert lines.loc[("energy_per_atom", "raw"), "value"] == pytest.approx(-0.43)
    assert (tmp_path / "report" / "comparison.png").stat().st_size > 10_000


def test_two_sizes_have_no_line(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = report(folders[:2])
    assert found.extrapolation is not None
    assert found.extrapolation.empty
    assert main(["report", f"runs=[{folders[0]},{folders[1]}]", f"run_dir={folders[0].parent / 'report'}"]) == 0
    assert "at least 3 numbers of atoms" in capsys.readouterr().out


def test_points_that_are_not_on_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_run(tmp_path / f"h{n}", n, slope=-0.4 - 0.004 * (n == 14)) for n in (8, 14, 32)]
    assert main(["report", f"runs=[{','.join(map(str, folders))}]", f"run_dir={tmp_path / 'report'}"]) == 0
    assert "chi^2 per dof above 4" not in capsys.readouterr().out
    folders.append(write_run(tmp_path / "h16", 16, slope=-0.6))
    assert main(["report", f"runs=[{','.join(map(str, folders))}]", f"run_dir={tmp_path / 'report'}"]) == 0
    assert "chi^2 per dof above 4" in capsys.readouterr().out


def test_runs_without_corrections(tmp_path: Path) -> None:
    """Runs of an older version: raw values alone."""
    runs = {}
    for n in (8, 16, 32):
        folder = write_run(tmp_path / f"h{n}", n)
        content = json.loads((folder / "summary.json").read_text())
        kept = {name: term for name, term in content.items() if not name.startswith("finite_size")}
        (folder / "summary.json").write_text(json.dumps(kept))
        runs[f"h{n}"] = load_run(folder)
    assert set(extrapolate(size_table(runs)).index.get_level_values("kind")) == {"raw"}
    draw_sizes(runs)


def test_other_states_are_refused(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", 8), write_run(tmp_path / "b", 16, temperature_kelvin=5000.0)]
    with pytest.raises(CommandError, match=r"system.temperature_kelvin is 6000.0 in a but 5000.0 in b"):
        report(folders)
