"""Which config, run folder and checkpoint a command takes."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_vfe.errors import CommandError
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse
from lightning_vfe.workflows.plan import HANDOVER, Plan, make_plan
from lightning_vfe.workflows.run import _handed_over


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def past_run(folder: str, *words: str) -> Path:
    """A run folder as an earlier fit with these overrides left it; returns its checkpoint."""
    checkpoint = Path(folder) / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"not read here")
    (Path(folder) / "config.yaml").write_text(OmegaConf.to_yaml(compose_config(parse(words))))
    return checkpoint


def plan(verb: str, *words: str) -> Plan:
    return make_plan(verb, parse(words))


def test_fit_never_takes_a_used_folder() -> None:
    assert plan("fit").run_dir == Path("runs/default")
    assert plan("fit", "experiment=smoke").run_dir == Path("runs/smoke")
    past_run("runs/smoke", "experiment=smoke")
    second = plan("fit", "experiment=smoke")
    assert second.run_dir == Path("runs/smoke-2")
    assert second.is_new
    assert second.ckpt_path is None
    assert "runs/smoke-2" in second.notes[0]
    past_run("runs/smoke-2", "experiment=smoke")
    past_run("runs/smoke-11", "experiment=smoke")
    assert plan("fit", "experiment=smoke").run_dir == Path("runs/smoke-12")
    assert plan("fit", "experiment=smoke", "name=other").run_dir == Path("runs/other")
    with pytest.raises(CommandError, match="already holds a run"):
        plan("fit", "experiment=smoke", "run_dir=runs/smoke")


def test_last_takes_the_latest_run_of_the_name_with_its_config() -> None:
    past_run("runs/smoke", "experiment=smoke", "system.rs=1.5")
    past_run("runs/smoke-2", "experiment=smoke", "system.rs=1.75")
    Path("runs/smoke-3/checkpoints").mkdir(parents=True)
    past_run("runs/smoke_b-4", "experiment=smoke")
    for verb, words in [("fit", ("ckpt_path=last",)), ("test", ()), ("validate", ("ckpt_path=last",))]:
        found = plan(verb, "experiment=smoke", "trainer.max_steps=9", *words)
        assert found.run_dir == Path("runs/smoke-2")
        assert not found.is_new
        assert found.ckpt_path == Path("runs/smoke-2/checkpoints/last.ckpt")
        assert found.config.system.rs == 1.75
        assert found.config.strata.rs == 1.75
        assert found.config.trainer.max_steps == 9
        assert found.config.run_dir == "runs/smoke-2"
        assert found.config.callbacks.checkpoint.dirpath.startswith("runs/smoke-2")
    assert plan("test", "run_dir=runs/smoke").config.system.rs == 1.5


def test_overrides_reach_every_use_of_a_key_of_a_stored_config() -> None:
    past_run("runs/default")
    config = plan("test", "system.rs=3", "seed=7").config
    assert config.strata.rs == 3
    assert config.state.strata.rs == 3
    assert config.state.seed == 7


def test_checkpoint_by_path() -> None:
    checkpoint = past_run("elsewhere", "experiment=smoke", "system.rs=1.5")
    found = plan("test", f"ckpt_path={checkpoint}")
    assert found.run_dir == Path("elsewhere")
    assert found.config.system.rs == 1.5
    moved = plan("test", f"ckpt_path={checkpoint}", "run_dir=out")
    assert moved.run_dir == Path("out")
    assert moved.is_new
    assert moved.config.system.rs == 1.5
    assert plan("test", f"ckpt_path={checkpoint}", "experiment=smoke").config.system.rs == 1.5


def test_groups_beside_a_checkpoint_replace_those_of_its_run_and_nothing_else() -> None:
    checkpoint = past_run("elsewhere", "experiment=smoke", "name=mine", "system.rs=1.5", "optimizer.decay_steps=7")
    config = plan("test", f"ckpt_path={checkpoint}", "logger=csv", "base=schnet", "trainer.max_steps=3").config
    assert set(config.logger) == {"metrics"}
    assert config.base.potential_path.endswith(".pt")
    assert (config.name, config.system.rs, config.strata.rs, config.trainer.max_steps) == ("mine", 1.5, 1.5, 3)
    assert config.optimizer.decay_steps == 7
    for words in (["experiment=smoke"], ["experiment=n2_exact"], ["experiment=smoke", "logger=csv"]):
        with pytest.raises(CommandError, match=f"experiment = {words[0][11:]} is not that of .*name = mine.*leave it"):
            plan("fit", f"ckpt_path={checkpoint}", *words)
    with pytest.raises(CommandError, match="task = potential is not that of"):
        plan("fit", f"ckpt_path={checkpoint}", "task=potential")
    with pytest.raises(CommandError, match="group potential"):
        plan("fit", f"ckpt_path={checkpoint}", "potential=schnet")


def test_paths_with_special_characters() -> None:
    checkpoint = past_run("odd, folder=1 (x)", "experiment=smoke")
    assert plan("test", f"ckpt_path={checkpoint}").run_dir == Path("odd, folder=1 (x)")
    assert plan("fit", "run_dir=~/somewhere").run_dir == Path.home() / "somewhere"


def test_users_structure_is_found_from_other_folders(empty_folder: Path) -> None:
    Path("mine.xyz").write_text("")
    assert plan("fit", "system.structure=mine.xyz").config.system.structure == str(empty_folder / "mine.xyz")


def test_further_processes_take_the_first_ones_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan("fit", "experiment=smoke", "system.rs=1.5")
    monkeypatch.setenv(HANDOVER, first.hand_over())
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert Plan.received() is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    received = Plan.received()
    assert received is not None
    assert received.config == first.config
    assert received.run_dir == first.run_dir
    assert received.ckpt_path is None
    assert not received.is_new


def test_processes_started_together_need_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(CommandError, match="need run_dir"):
        plan("fit")
    assert plan("fit", "run_dir=shared").run_dir == Path("shared")


def test_auto_goes_on_where_there_is_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job needs that its cluster may start again with the same words."""
    words = ("experiment=smoke", "ckpt_path=auto", "run_dir=runs/job")
    first = plan("fit", *words)
    assert first.ckpt_path is None
    assert first.is_new
    assert first.run_dir == Path("runs/job")
    Path("runs/job").mkdir(parents=True)
    Path("runs/job/notes.txt").write_text("not of a run")
    with pytest.raises(CommandError, match="already holds a run"):
        plan("fit", *words)
    Path("runs/job/config.yaml").write_text("name: smoke")  # stopped before its first checkpoint
    again = plan("fit", *words)
    assert again.ckpt_path is None
    assert not again.is_new
    past_run("runs/other", "experiment=smoke")
    found = plan("fit", "experiment=smoke", "ckpt_path=auto", "run_dir=runs/other")
    assert found.ckpt_path == Path("runs/other/checkpoints/last.ckpt")
    assert not found.is_new
    with pytest.raises(CommandError, match="ckpt_path = auto needs run_dir"):
        plan("fit", "experiment=smoke", "ckpt_path=auto")


def test_a_further_process_stays_one_after_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code after a signal must stay 0, or Lightning would kill the first process while it still writes."""
    plan = make_plan("fit", parse(["experiment=smoke"]))
    with _handed_over(plan):
        assert HANDOVER in os.environ
    assert HANDOVER not in os.environ
    monkeypatch.setenv(HANDOVER, plan.hand_over())
    monkeypatch.setenv("LOCAL_RANK", "1")
    with _handed_over(plan):
        pass
    assert Plan.received() is not None
