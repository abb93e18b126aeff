"""Files of a run that have changed since they were written: one line before the work, and never another result."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vfe.cli import main

QUIET = ["trainer.accelerator=cpu", "logger=csv"]
TEST = ["test", "run_dir=run"]
RESUME = ["fit", "run_dir=run", "ckpt_path=last", "trainer.max_steps=6"]
WEIGHT = "wavefunction.backbone.electron_start.weight"
REPORT = ["report", "runs=[run,other]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and measured run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    assert main(["fit", "experiment=smoke", *QUIET, f"run_dir={folder}"]) == 0
    assert main(["test", f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of it, one to be damaged."""
    monkeypatch.chdir(tmp_path)
    for name in ("run", "other"):
        shutil.copytree(made, tmp_path / name)
    return Path("run")


def without_checksums(table: bytes) -> bytes:
    """metrics.csv as version 0.2 wrote it."""
    return re.sub(rb",(checksum|crc32-\w+)(?=\r?\n)", b"", table)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line of a command that must end with exit code 2 and leave all files as they are."""
    capsys.readouterr()
    before = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == before
    return error.removeprefix("error: ")


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda data: data + b"\xff\xfe,1\n", "is damaged ('utf-8' codec"),
        (lambda data: data.replace(b"\n1,", b"\nx1,"), "column step holds more than numbers"),
        (lambda data: without_checksums(data).replace(b"\n1,", b"\n1.5,"), "column step holds more than whole numbers"),
        (lambda data: data.replace(b"\n1,", b"\n7,"), "line 3 does not have its checksum"),
        (lambda data: data.replace(b"\n2,0.", b"\n2,1."), "line 4 does not have its checksum"),
        (lambda data: without_checksums(data).replace(b"\n1,", b"\n7,"), "the steps are not in order at line 4"),
        (lambda data: data.replace(b"\n1,", b"\n1,1,1,"), "is damaged (Error tokenizing data"),
        (lambda data: data[:900] + b"\0" * 20 + data[920:], "is damaged ("),
        (lambda data: b"", "is damaged (No columns"),
    ],
)
def test_metrics_are_read_before_the_work(
    run: Path, damage: Callable[[bytes], bytes], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "metrics.csv"
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    for words in (TEST, RESUME, REPORT):
        line = refusal(words, capsys)
        assert line.startswith(f"{file} is damaged")
        assert part in line
        assert "take an older copy, or move it away" in line


def test_a_last_line_without_its_end_is_what_a_kill_leaves(run: Path) -> None:
    file = run / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-30])
    assert main(TEST) == 0
    assert main(RESUME) == 0


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda text: text[: len(text) // 2], "is damaged ("),
        (lambda text: "[]", "is no summary"),
        (lambda text: text.replace('"value": -', '"value": -1', 1), "it does not have its checksum"),
        (lambda text: text.replace('"system": {', '"system": 3, "of": {', 1), "it does not have its checksum"),
        (lambda text: '{"system": 3}', "system is no dict"),
        (lambda text: '{"energy_per_atom": {"value": "many"}}', "energy_per_atom is no number with its error"),
    ],
)
def test_a_damaged_summary_is_refused_until_it_is_measured_again(
    run: Path, damage: Callable[[str], str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "summary.json"
    whole = file.read_text()
    file.write_text(damage(whole))
    for words in (RESUME, REPORT):
        line = refusal(words, capsys)
        assert line.startswith(f"{file} ")
        assert part in line
        assert "lightning-vfe test run_dir=run" in line
    assert main(TEST) == 0
    assert json.loads(file.read_text()).keys() == json.loads(whole).keys()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda text: text[: len(text) // 2], "config.yaml cannot be read"),
        (lambda text: text.replace("schema", "\0chema"), "config.yaml cannot be read"),
        (lambda text: "", "holds no settings of a run"),
        (lambda text: text.replace("flow_max_norm: 0.001", "flow_max_norm: 0.003"), "does not have its checksum"),
    ],
)
def test_a_damaged_config_is_refused_until_it_is_deleted(
    run: Path, damage: Callable[[str], str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "config.yaml"
    whole = file.read_text()
    assert damage(whole) != whole
    file.write_text(damage(whole))
    for words in (TEST, RESUME):
        line = refusal(words, capsys)
        assert part in line
        assert "delete it: the checkpoint holds a copy" in line
    file.unlink()
    assert main(TEST) == 0
    assert file.read_text().partition("run_dir:")[0] == whole.partition("run_dir:")[0]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda text: text.replace("\nflow:\n", "\nflow:\n  old: 3\n"), ["flow.old = 3 is no argument of"]),
        (lambda text: f"{text}old: 3\n", ["old = 3 is read by nothing"]),
        (lambda text: text.replace("schema: 2", "schema: 1"), ["schema 1"]),
    ],
)
def test_a_config_of_another_version_is_one_line(
    run: Path, change: Callable[[str], str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "config.yaml"
    lines = file.read_text().splitlines()[:-1]  # without the checksum
    text = "\n".join(line for line in lines if not line.startswith("version:")) + "\n"
    file.write_text(change(text))
    for words in (TEST, RESUME):
        line = refusal(words, capsys)
        for part in ("run was made by another version of lightning-vfe", "start a new run with fit", *parts):
            assert part in line
    file.write_text(text)
    assert main(TEST) == 0, "a config of version 0.2 has neither checksum nor version"


def first_state(ckpt: dict) -> dict:
    """What the optimizer keeps for the first parameter."""
    return ckpt["optimizer_states"][0]["state"][0]


def edited(change: Callable[[dict], None]) -> None:
    file = Path("run/checkpoints/last.ckpt")
    content = torch.load(file)
    change(content)
    file.unlink()  # step-N.ckpt is a second name of it
    torch.save(content, file)


@pytest.mark.parametrize("kind", ["TorchScript module", "arrays of NumPy"])
@pytest.mark.filterwarnings("error:'torch.load' received")
def test_files_of_other_packages_are_no_damaged_checkpoints(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployed potentials of NequIP, checkpoints of FermiNet: zip archives, as ours are."""
    monkeypatch.chdir(tmp_path)
    if kind == "TorchScript module":
        with warnings.catch_warnings(action="ignore"):
            torch.jit.script(torch.nn.Linear(2, 2)).save("other.ckpt")
    else:
        np.savez("other.npz", parameters=np.ones(2))
        Path("other.npz").rename("other.ckpt")
    assert main(["test", "ckpt_path=other.ckpt", "run_dir=new"]) == 2
    expected = "error: ckpt_path = other.ckpt is not a checkpoint of lightning-vfe; give one that fit wrote\n"
    assert capsys.readouterr().err == expected
    assert main(["log-z", "potential.path=other.ckpt", "run_dir=new"]) == 2
    expected = "error: potential.path = other.ckpt is damaged or not of this package; write it with"
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize(
    ("change", "part", "measures"),
    [
        (lambda ckpt: ckpt.pop("optimizer_states"), "has no optimizer_states", True),
        (lambda ckpt: ckpt.pop("loops"), "has no loops", True),
        (lambda ckpt: ckpt.update(optimizer_states=[3]), "holds an optimizer state that is damaged", True),
        (lambda ckpt: ckpt.update(optimizer_states=[]), "holds an optimizer state that is damaged", True),
        (lambda ckpt: ckpt.update(optimizer_states=None), "holds an optimizer state that is damaged", True),
        (lambda ckpt: ckpt.update(global_step=-5), "holds global_step = -5, which is no count", True),
        (lambda ckpt: ckpt.update(epoch="3"), "holds epoch = '3', which is no count", True),
        (lambda ckpt: first_state(ckpt).update(direction=torch.zeros(777)), "fit: direction (777,) for", True),
        (lambda ckpt: ckpt["walkers"]["fields"]["electrons"].fill_(torch.nan), "not finite in electrons", False),
        (
            lambda ckpt: ckpt["walkers"]["log_widths"]["electrons"].fill_(torch.nan),
            "not finite in the width of the moves of electrons",
            False,
        ),
        (lambda ckpt: ckpt["walkers"].pop("num_sweeps"), "saved walkers lack ['num_sweeps']", False),
        (lambda ckpt: ckpt["walkers"]["fields"].pop("protons"), "saved walkers lack ['protons']", False),
        (lambda ckpt: ckpt["walkers"].update(fields=3), "holds walkers that do not fit", False),
        (lambda ckpt: ckpt["state_dict"][WEIGHT].fill_(torch.inf), "holds numbers that are not finite in ", False),
        (lambda ckpt: ckpt.update(state_dict=3), "is not a checkpoint of lightning-vfe", False),
    ],
)
def test_an_edited_checkpoint_is_one_line(
    run: Path, change: Callable[[dict], None], part: str, measures: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(change)
    capsys.readouterr()
    for words in [RESUME] if measures else [RESUME, TEST]:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ckpt_path = run/checkpoints/last.ckpt ")
        assert part in error
        assert error.count("\n") == 1
    if measures:
        assert main(TEST) == 0


def test_a_run_of_an_earlier_version_takes_settings_that_have_come_since(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config lacks the keys; the classes have defaults for them."""
    file = run / "config.yaml"
    lines = [line for line in file.read_text().splitlines()[:-1] if "ceimc_" not in line]
    file.write_text("\n".join(lines) + "\n")
    assert main([*TEST, "sampler.ceimc_proton_width=0.05"]) == 0
    assert main([*TEST, "sampler.ceimc_proton_widths=0.05"]) == 2
    assert "sampler.ceimc_proton_widths = 0.05 is not a key" in capsys.readouterr().err


def test_figures_that_cannot_be_drawn_leave_the_result(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file may be damaged while `test` measures."""
    (run / "summary.json").unlink()
    monkeypatch.setattr("lightning_vfe.workflows.run.check_files", lambda *_, **__: None)
    (run / "metrics.csv").write_text("step\nx\n")
    assert main(TEST) == 0
    assert "no figures: run/metrics.csv is damaged" in capsys.readouterr().out
    assert "free_energy_per_atom" in json.loads((run / "summary.json").read_text())
