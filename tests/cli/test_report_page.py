"""report.html: one file, verdicts first, results of an older step and unfinished trainings named."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.run import RunFolder
from lightning_vfe.analysis.training_verdict import training_note
from lightning_vfe.cli import main

SYSTEM = {"num_atoms": 8, "rs": 1.25, "protons": "sampled", "temperature_kelvin": 6000.0}
TERMS = ("free_energy_per_atom", "energy_per_atom", "entropy_per_atom", "pressure_gpa")


def write_run(folder: Path, steps: int, slope: float = 0.0, measured: int | None = None, good: bool = True) -> Path:
    """A measured run whose F falls by `slope` a step."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / f"step-{steps:08d}.ckpt").touch()
    random = np.random.default_rng(1)
    values = -0.6 - slope * np.arange(steps) + 1e-4 * random.normal(size=steps)
    metrics = pd.DataFrame({"step": np.arange(1, steps + 1), **dict.fromkeys(TERMS[:3], values)})
    metrics.to_csv(folder / "metrics.csv", index=False)
    content: dict[str, object] = {name: {"value": -0.6, "error": 0.001} for name in TERMS}
    content |= {"system": SYSTEM, "step": steps if measured is None else measured, "converged": good}
    content["reasons"] = [] if good else ["R-hat = 1.2 is above 1.05"]
    content["published"] = [
        {"method": "VFE2023", "system": "liquid", "rs": 1.25, "T_kelvin": 6000.0, "N": 16, "twists": "1", "F": -0.5848}
        | {"E": -0.4683, "differs": ["N"]}
    ]
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def test_one_page_with_everything_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_run(tmp_path / "good", 60)
    old = write_run(tmp_path / "old", 60, measured=30, good=False)
    words = ["report", f"runs=[{good},{old}]", 'labels=["<b>plain</b>",old]', f"run_dir={tmp_path / 'report'}"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "note: old: measured at step 30, the last checkpoint is of step 60" in printed
    assert "sampling converged" in printed
    page = (tmp_path / "report" / "report.html").read_text()
    assert set(re.findall(r'(?:src|href)="([a-z]+:[a-z+/]+)', page)) == {"data:image/svg+xml"}
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.index("NOT CONVERGED") < page.index("<table")
    assert "R-hat = 1.2" in page
    assert "<b>plain" not in page
    assert "published: VFE2023 (other N)" in page
    assert "NO, step 30" in page
    assert "sampling converged" in page
    assert "sampling and training converged" not in page
    assert "lightning-vfe report" in page.partition("Provenance")[2]


def test_a_good_training_is_named_beside_the_sampling(tmp_path: Path) -> None:
    run = write_run(tmp_path / "good", 60)
    content = json.loads((run / "summary.json").read_text())
    content["verdicts"] = {"training": {"ok": True, "reasons": []}}
    (run / "summary.json").write_text(json.dumps(content))
    assert main(["report", str(run), f"run_dir={tmp_path / 'report'}"]) == 0
    assert "sampling and training converged" in (tmp_path / "report" / "report.html").read_text()


def test_fitted_potentials_stand_beside_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", 60)
    fitted = [tmp_path / "schnet", tmp_path / "delta"]
    for folder in fitted:
        folder.mkdir()
        label = np.linspace(-0.6, -0.5, 20)
        numbers = np.stack([label, label + 0.003, np.full(20, 8.0), np.full(20, 1.25)], axis=1)
        np.savez(folder / "predictions.npz", energy_per_atom=numbers, force=numbers)
    words = f"runs=[{run},{fitted[0]},{fitted[1]}]"
    assert main(["report", words, f"run_dir={tmp_path / 'report'}"]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Parity of the potentials" in page
    assert "<td>delta</td><td>3</td><td>3</td>" in page
    capsys.readouterr()
    assert main(["report", f"runs=[{fitted[0]},{fitted[1]}]"]) == 2
    assert "are fitted potentials alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "slope", "part"),
    [(10, 0.0, "10 training steps can be used"), (80, 1e-4, "F fell by 2 mHa/atom"), (80, 0.0, ""), (80, -1e-4, "")],
)
def test_a_training_that_is_not_at_its_end_is_named(tmp_path: Path, steps: int, slope: float, part: str) -> None:
    note = training_note(RunFolder(write_run(tmp_path / "run", steps, slope)))
    assert part in note
    assert bool(part) == bool(note)
