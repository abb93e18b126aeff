"""One, two and four processes are one run: the same walkers, updates and results, and they resume each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lightning_vfe.models.potential.yukawa import YukawaPotential
from tests.helpers.labels import write_database
from tests.helpers.ranks import assert_same_tables, fit_table, run_ranks

# saved at step 10, which is in the middle of an epoch; how float32 rounds depends on the number of walkers of a process
WORDS = ["experiment=smoke", "logger=csv", "sampler.num_groups=4", "sampler.chain_precision=float64"]
WORDS += ["trainer.max_steps=20"]
WORDS += ["datamodule.steps_per_epoch=7", "callbacks.checkpoint.every_n_steps=5"]


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def summary_of(folder: Path) -> dict[str, Any]:
    """The numbers of summary.json; its checksum tells the last bits apart, too, and its provenance the commands."""
    content = json.loads((folder / "summary.json").read_text())
    assert set(content.pop("provenance")) == {"version", "command", "date"}
    assert content.pop("checksum").startswith("sha256-")
    return dict(content)


def largest_difference(first: Any, second: Any, path: str = "") -> float:
    """Between the numbers of two nested states of equal structure; states of generators must be equal."""
    if isinstance(first, dict):
        assert set(first) == set(second), path
        return max([0.0, *(largest_difference(first[key], second[key], f"{path}/{key}") for key in first)])
    if isinstance(first, list | tuple):
        assert len(first) == len(second), path
        pairs = enumerate(zip(first, second, strict=True))
        return max([0.0, *(largest_difference(a, b, f"{path}/{i}") for i, (a, b) in pairs)])
    if isinstance(first, torch.Tensor):
        assert first.shape == second.shape, path
        assert first.dtype == second.dtype, path
        if not first.is_floating_point():
            assert torch.equal(first, second), path
            return 0.0
        return float((first - second).abs().max()) if first.numel() else 0.0
    if isinstance(first, float):
        return abs(first - second)
    assert first == second, path
    return 0.0


PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "walkers", "global_step")


def difference(first: Path, second: Path) -> float:
    """Largest difference between the last checkpoints of two runs."""
    found = checkpoint(first), checkpoint(second)
    return max(largest_difference(found[0][part], found[1][part], part) for part in PARTS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of one, two and four processes."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") / "run" for ranks in (1, 2, 4)}
    for ranks, folder in folders.items():
        fit_table([*WORDS, "optimizer=natural_gradient"], ranks, folder)
    return folders


def resume(runs: dict[int, Path], ranks: int, folder: Path) -> pd.DataFrame:
    """Go on from step 10 of two processes; the rows of the steps after it."""
    start = runs[2] / "checkpoints" / "step-00000010.ckpt"
    return fit_table([f"ckpt_path={start}"], ranks, folder)


def rows_after_ten(run: Path) -> pd.DataFrame:
    table = pd.read_csv(run / "metrics.csv").drop(columns="checksum")
    return table[table.step >= 10].reset_index(drop=True)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_same_run_on_any_number_of_processes(runs: dict[int, Path], ranks: int) -> None:
    """Random numbers belong to walker groups; everything else is equal up to the order of sums."""
    tables = [pd.read_csv(runs[number] / "metrics.csv").drop(columns="checksum") for number in (1, ranks)]
    assert len(tables[0]) == 20
    assert_same_tables(*tables)
    assert difference(runs[1], runs[ranks]) < 1e-10


def test_gradients_that_lightning_averages(tmp_path: Path) -> None:
    """The natural gradient gathers what it needs by itself; other optimizers step by the mean of the gradients."""
    folders = {ranks: tmp_path / f"{ranks}" / "run" for ranks in (1, 2)}
    tables = [fit_table([*WORDS, "optimizer=adam"], ranks, folder) for ranks, folder in folders.items()]
    assert_same_tables(*tables)
    assert difference(folders[1], folders[2]) < 1e-10


def test_resumed_on_as_many_processes_it_is_the_same_bit_for_bit(runs: dict[int, Path], tmp_path: Path) -> None:
    table = resume(runs, 2, tmp_path / "run")
    pd.testing.assert_frame_equal(table, rows_after_ten(runs[2]), check_exact=True)
    assert difference(runs[2], tmp_path / "run") == 0.0


@pytest.mark.parametrize("ranks", [1, 4])
def test_resumed_on_another_number_the_same_chains_go_on(runs: dict[int, Path], tmp_path: Path, ranks: int) -> None:
    assert_same_tables(resume(runs, ranks, tmp_path / "run"), rows_after_ten(runs[2]))
    assert difference(runs[2], tmp_path / "run") < 1e-10


def test_the_checkpoint_holds_all_walkers_as_plain_content(runs: dict[int, Path]) -> None:
    content = checkpoint(runs[4])
    walkers = content["walkers"]
    fields = walkers["fields"]
    assert fields["protons"].shape == (8, 2, 3)
    assert fields["electrons"].shape == (8, 2, 2, 3)
    assert walkers["random"]["groups"] == [0, 1, 2, 3]
    assert len(walkers["random"]["generators"]) == 4

    def kinds(node: Any) -> set[type]:
        if isinstance(node, dict):
            return set().union({type(node)}, *map(kinds, node.values()))
        return set().union({type(node)}, *map(kinds, node)) if isinstance(node, list | tuple) else {type(node)}

    names = {kind.__name__ for kind in kinds(content)}
    assert names <= {"dict", "OrderedDict", "list", "tuple", "Tensor", "int", "float", "bool", "str", "NoneType"}


def test_results_of_two_processes_are_those_of_one(runs: dict[int, Path], tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        run_ranks(["test", f"ckpt_path={runs[1] / 'checkpoints' / 'last.ckpt'}", f"run_dir={folder}"], ranks, folder)
        found.append(summary_of(folder))
    assert found[0]["energy_per_atom"]["error"] > 0
    assert largest_difference(*found) < 1e-10


def test_several_states_by_two_processes(tmp_path: Path) -> None:
    """Two densities with two weighted twists, whose walkers the processes share unevenly: fit and test."""
    words = [*WORDS[:3], "system.rs=[1.8,2.2]", "system.twists=[[0,0,0,1],[0.25,0.1,-0.3,3]]"]
    words += ["sampler.num_proton_walkers=12", "sampler.chain_precision=float64"]
    folders = {ranks: tmp_path / f"{ranks}" / "run" for ranks in (1, 2)}
    tables = [fit_table(words, ranks, folder) for ranks, folder in folders.items()]
    assert_same_tables(*tables)
    assert difference(folders[1], folders[2]) < 1e-10
    found = []
    for ranks in (1, 2):
        run_ranks(["test", f"run_dir={folders[ranks]}"], ranks, folders[ranks].parent)
        found.append(summary_of(folders[ranks]))
    assert [state["rs"] for state in found[0]["states"]] == [1.8, 2.2]
    assert largest_difference(*found) < 1e-10


def test_a_fit_to_labels_by_two_processes(tmp_path: Path) -> None:
    """The same numbers as by one; after the last step of an epoch it goes on bit for bit, its validation included."""
    write_database(tmp_path / "labels.db", YukawaPotential(1.0, 0.9, 4.0), count=8)
    words = ["experiment=potential_rs1p25_6000K", "logger=csv", f"datamodule.database={tmp_path / 'labels.db'}"]
    words += ["potential.num_features=4", "potential.num_interactions=1", "potential.num_radial=6"]
    words += ["trainer.max_steps=8", "callbacks.checkpoint.every_n_steps=2"]
    tables = [fit_table(words, ranks, tmp_path / f"{ranks}" / "run") for ranks in (1, 2)]
    assert tables[0].validation_loss.notna().sum() == 4, "epochs of two steps"
    assert_same_tables(*tables)
    start = tmp_path / "2" / "run" / "checkpoints" / "step-00000004.ckpt"
    resumed = fit_table([f"ckpt_path={start}"], 2, tmp_path / "resumed" / "run")
    after = tables[1][tables[1].step >= 4].reset_index(drop=True)
    pd.testing.assert_frame_equal(resumed, after, check_exact=True)
    run_ranks(["test", f"run_dir={tmp_path / '2' / 'run'}"], 2, tmp_path / "test")
    assert (tmp_path / "2" / "run" / "potential_summary.json").is_file()
