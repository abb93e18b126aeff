"""Figures show what a run has, leave out what it has not, and need no display."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lightning_vfe.analysis.figures import draw_pair_correlation, draw_terms, draw_training, save_figures
from lightning_vfe.analysis.run import load_run
from lightning_vfe.analysis.style import curve_limits

MakeRun = Callable[..., Path]
PNG = b"\x89PNG"


def symbols(figure: Figure) -> list[str]:
    """What stands in front of the panels' titles."""
    return [panel.get_title(loc="left").split("  ")[0] for panel in figure.axes]


def texts(figure: Figure) -> str:
    """Everything written on the figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_training_shows_all_terms_with_the_result(make_run: MakeRun) -> None:
    figure = draw_training(load_run(make_run()))
    assert symbols(figure)[:3] == ["$F$", "$E$", "$S$"]
    assert len(figure.axes) == 9
    written = texts(figure)
    for text in ("Ha / atom", "GPa", "training step", "mean of 50 steps", "-0.54700 ± 0.00050", "result of test"):
        assert text in written, f"{text!r} is missing on the figure"
    lowest, highest = figure.axes[0].get_ylim()
    assert -0.6 < lowest < -0.547, "the wild first steps must not set the limits"
    assert -0.45 < highest < -0.2, "the wild first steps must not set the limits"


def test_training_of_fixed_protons_leaves_out_what_does_not_change(make_run: MakeRun) -> None:
    figure = draw_training(load_run(make_run(protons="fixed")))
    assert symbols(figure)[0] == "$E = F$"
    assert not {"$F$", "$S$", r"$V_\mathrm{pp}$"} & set(symbols(figure))
    assert "fixed protons" in texts(figure)


def test_training_without_a_result(make_run: MakeRun) -> None:
    assert "result of test" not in texts(draw_training(load_run(make_run(tested=False))))


def test_a_result_of_an_older_step_is_marked(make_run: MakeRun) -> None:
    folder = make_run(num_steps=30)
    file = folder / "summary.json"
    for measured, shown in ((10, "result of test at step 10 ± its error"), (30, "result of test ± its error")):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"step": measured}))
        assert shown in texts(draw_training(load_run(folder)))


@pytest.mark.parametrize("num_steps", [1, 2, 30])
def test_short_training(make_run: MakeRun, num_steps: int) -> None:
    figure = draw_training(load_run(make_run(num_steps=num_steps)))
    figure.canvas.draw()
    assert len(figure.axes) == 9


def test_numbers_that_are_not_finite_leave_a_gap(make_run: MakeRun) -> None:
    folder = make_run(tested=False)
    lines = (folder / "metrics.csv").read_text().splitlines()
    width = lines[0].count(",")
    lines[300] = "299," + ",".join(["inf"] * width)
    lines[301] = "300," + "," * (width - 1)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    figure = draw_training(load_run(folder))
    figure.canvas.draw()
    assert np.isfinite(figure.axes[0].get_ylim()).all()


def test_window_must_be_positive(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match="window = 0 must be at least 1"):
        draw_training(load_run(make_run(num_steps=5)), window=0)


def test_terms_add_up_to_the_free_energy(make_run: MakeRun) -> None:
    figure = draw_terms(load_run(make_run()))
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[0] == "$K$"
    assert labels[-3:] == ["$E$", "$-TS$", "$F$"]
    bars = dict(zip(labels, figure.axes[0].patches, strict=True))
    end = bars["$-TS$"].get_y() + bars["$-TS$"].get_height()
    assert end == pytest.approx(bars["$F$"].get_height(), abs=1e-3)
    fixed = draw_terms(load_run(make_run(protons="fixed")))
    assert [label.get_text() for label in fixed.axes[0].get_xticklabels()][-1] == "$E$"


def test_free_energy_that_is_not_reported_is_not_drawn(make_run: MakeRun) -> None:
    folder = make_run()
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("free_energy_per_atom", "entropy_per_atom"):
        summary[name] = {"value": None, "error": None}
    summary |= {"converged": False, "reasons": ["the map folds"]}
    (folder / "summary.json").write_text(json.dumps(summary))
    run = load_run(folder)
    assert "$F$" not in [label.get_text() for label in draw_terms(run).axes[0].get_xticklabels()]
    written = texts(draw_training(run))
    assert "not reported" in written
    assert "NOT CONVERGED" in written


def test_pair_correlation(make_run: MakeRun) -> None:
    figure = draw_pair_correlation(load_run(make_run()))
    assert symbols(figure) == ["protons", "electrons around protons", "electrons"]
    for text in ("$g(r)$", "distance $r$ / bohr", "like spins", "unlike spins"):
        assert text in texts(figure)
    assert symbols(draw_pair_correlation(load_run(make_run(protons="fixed"))))[0] == "electrons around protons"


def test_pair_correlation_of_two_atoms_and_one_walker(make_run: MakeRun) -> None:
    """Two atoms have no pair of like spins, and a single walker has no error."""
    folder = make_run()
    (folder / "pair_correlation.csv").write_text(
        "r_bohr,proton_proton,proton_proton_error,electron_electron_unlike,electron_electron_unlike_error\n"
        "0.1,0.0,nan,0.5,nan\n0.3,1.5,nan,0.8,nan\n"
    )
    figure = draw_pair_correlation(load_run(folder))
    figure.canvas.draw()
    assert symbols(figure) == ["protons", "electrons, unlike spins"]


def test_save_figures_writes_what_the_files_allow(make_run: MakeRun) -> None:
    tested, fitted = make_run(num_steps=20), make_run(num_steps=21, tested=False)
    assert [file.name for file in save_figures(tested)] == ["training.png", "terms.png", "pair_correlation.png"]
    (fitted / "config.yaml").unlink()
    files = save_figures(str(fitted))
    assert files == [fitted / "figures" / "training.png"]
    assert files[0].read_bytes().startswith(PNG)
    (tested / "metrics.csv").unlink()
    assert [file.name for file in save_figures(tested)] == ["terms.png", "pair_correlation.png"]


def test_save_figures_needs_no_display_and_no_torch(make_run: MakeRun) -> None:
    folder = make_run(num_steps=5)
    code = (
        "import sys; from lightning_vfe.analysis.figures import save_figures; save_figures(sys.argv[1]); "
        "print(sorted({'torch', 'lightning', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"imported {done.stdout}, which takes seconds or opens windows"


def test_limits_ignore_extreme_values() -> None:
    curve = np.concatenate([[1e6, -1e6], np.linspace(0.0, 1.0, 198)])
    limits = curve_limits([curve], [])
    assert limits is not None
    assert -1.0 < limits[0] < 0.1
    assert 0.9 < limits[1] < 2.0
    assert curve_limits([curve], [5.0])[1] > 5.0  # type: ignore[index]
    assert curve_limits([np.full(9, 2.0)], []) is None
    assert curve_limits([np.full(9, np.nan)], []) is None
