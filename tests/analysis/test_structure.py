"""The figure of S(k), and its table at each state."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lightning_vfe.analysis.figures import draw_structure_factor, save_figures
from lightning_vfe.analysis.folder import RunFolder
from lightning_vfe.analysis.run import check_files, load_run

MakeRun = Callable[..., Path]
KINDS = ("proton_proton", "electron_electron", "electron_proton", "charge_charge", "electron_fluctuation")


def structure_factor(rs: float) -> pd.DataFrame:
    k = 1.5 / rs * np.sqrt([1.0, 2.0, 3.0, 4.0])
    table = pd.DataFrame({"k_per_bohr": k})
    for name in KINDS:
        table[name], table[f"{name}_error"] = 1.0 - np.exp(-0.35 * k**2), 0.01
    return table


def test_one_state(make_run: MakeRun) -> None:
    folder = make_run()
    with pytest.raises(FileNotFoundError, match=r"structure_factor.csv is missing; it is written by: .* test"):
        draw_structure_factor(load_run(folder))
    structure_factor(1.25).to_csv(folder / "structure_factor.csv", index=False)
    figure = draw_structure_factor(load_run(folder))
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["protons", "electrons", "electrons with protons", "charge", "electrons at given protons"]
    assert all(panel.get_ylim()[0] > -0.2 for panel in figure.axes)
    assert "structure_factor.png" in [file.name for file in save_figures(folder)]


def test_fixed_protons_and_a_file_without_kinds(make_run: MakeRun) -> None:
    folder = make_run(protons="fixed")
    structure_factor(1.25).drop(columns=["electron_fluctuation"]).to_csv(folder / "structure_factor.csv", index=False)
    titles = [panel.get_title(loc="left") for panel in draw_structure_factor(load_run(folder)).axes]
    assert titles == ["electrons", "electrons with protons", "charge"]
    (folder / "structure_factor.csv").write_text("k_per_bohr\n1.0\n")
    with pytest.raises(ValueError, match="has no S"):
        draw_structure_factor(RunFolder(folder))
    (folder / "structure_factor.csv").write_text("k_per_bohr,charge_charge\n1.0,0.5\n2.0,oh\n")
    with pytest.raises(ValueError, match=r"structure_factor.csv is damaged"):
        check_files(folder, measures=False)


def test_several_states(make_states: MakeRun) -> None:
    folder = make_states([1.2, 1.3], [6000.0])
    blocks = []
    for rs in (1.2, 1.3):
        block = structure_factor(rs)
        block.insert(0, "rs", rs)
        block.insert(1, "temperature_kelvin", 6000.0)
        blocks.append(block)
    pd.concat(blocks).to_csv(folder / "structure_factor.csv", index=False)
    run = RunFolder(folder)
    for view, rs in zip(run.views, (1.2, 1.3), strict=True):
        assert view.structure_factor.index.name == "k_per_bohr"
        assert list(view.structure_factor.index) == pytest.approx(list(structure_factor(rs)["k_per_bohr"]))
    figure = draw_structure_factor(run)
    assert len(figure.legends) == 1
    assert len(figure.axes[0].lines) == 5  # the dashed line, and line and points of each state
