"""What the user sees of a run on the screen, and the exit code that a script sees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lightning_vfe import __version__
from lightning_vfe.cli import main

SMALL = ["experiment=smoke", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a few steps."""
    folder = tmp_path_factory.mktemp("screen") / "run"
    assert main(["fit", *SMALL, f"run_dir={folder}"]) == 0
    return folder


def test_fit_in_a_pipe_shows_optimizer_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *SMALL, "progress_seconds=1e-6", f"run_dir={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert "\r" not in printed
    assert printed.startswith("lightning-vfe fit: smoke")
    shown = re.findall(r"^\d{4}-\d\d-\d\d [\d:]{8}  (.*)$", printed, flags=re.MULTILINE)
    steps = [re.match(r"(\S+ \d+/\d+)", line)[1] for line in shown]  # type: ignore[index]
    assert steps == ["equilibrate 0/2", "equilibrate 1/2", "equilibrate 2/2", *(f"fit {n}/4" for n in range(5))]
    assert re.search(r"  F=-\d\.\d{4}\+-\d\.\d{4}  S=.*  P=.*  acc_p=.*  acc_e=", shown[-1])


def test_require_converged_ends_with_its_own_code(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training of a few steps is not known to be good; without the flag this is no error."""
    words = ["test", f"run_dir={run}", "datamodule.test_steps=4"]
    assert main([*words, "--require-converged"]) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "test 4/4" in printed
    assert "training not judged: 4 training steps can be used, and 80 are needed" in printed
    assert "sampling NOT CONVERGED: " in printed
    summary = json.loads((run / "summary.json").read_text())
    assert summary["provenance"]["version"] == __version__
    assert summary["provenance"]["command"] == f"lightning-vfe {' '.join(words)}"
    assert summary["units"]["pressure_gpa"] == "GPa"
    assert main(words) == 0
    capsys.readouterr()
    assert main(["fit", *SMALL, "--require-converged"]) == 2
    assert capsys.readouterr().err == "error: --require-converged goes with test\n"


def shown_rows(text: str) -> dict[str, str]:
    """The rows of a banner, each with its further lines."""
    rows: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if match := re.match(r" (\S.*?)  +(\S.*)$", line):
            name = match[1]
            rows[name] = match[2].strip()
        elif name and line.startswith("  "):
            rows[name] += f" {line.strip()}"
    return rows


@pytest.mark.parametrize(
    ("words", "time"),
    [
        (
            [*SMALL, "trainer.max_steps=1000"],
            r"about (\d+ min )?\d+ s: 1000 steps of .* s, and 2 sweeps of .* s before them",
        ),
        ([*SMALL, "trainer.max_steps=-1"], r".* s for a step, without a limit on their number, and 2 sweeps"),
        (["experiment=potential_rs1p25_6000K", "trainer.accelerator=cpu"], r"about .*: \d+ steps of .* s$"),
    ],
    ids=["steps", "no limit", "potential"],
)
def test_a_dry_run_says_the_cost_and_writes_nothing(
    words: list[str], time: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    rows = shown_rows(printed)
    assert re.match(time, rows["time"])
    assert re.match(r"\d[\d.]* GiB at most", rows["memory"])
    assert printed.endswith("dry run: a few steps were timed, nothing is written\n")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_checkpoint_leaves_it_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`fit` counts the steps that are left, `test` those that it measures."""
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    for words, steps in ((["fit", "ckpt_path=last", "trainer.max_steps=10"], 6), (["test"], 8)):
        capsys.readouterr()
        assert main([*words, f"run_dir={run}", "--dry-run"]) == 0
        assert f": {steps} steps of " in shown_rows(capsys.readouterr().out)["time"]
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "row", "shown"),
    [
        (
            ["label", "calculator=ase", "+calculator.sigma=0.5", "label.rounds=1"],
            "work",
            "64 calculations, 1 at a time, and 4 to check forces; 3 potentials before each further round",
        ),
        (["log-z", "system.num_atoms=8"], "chains", "16 in each window, at most 3000 sweeps (cpu)"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_dry_run_of_other_work_says_what_it_is(
    words: list[str],
    row: str,
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    device = [] if words[0] == "label" else ["device=cpu"]
    assert main([*words, *device, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert shown_rows(printed)[row] == shown
    assert printed.endswith("dry run: nothing is written\n")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_on_a_run_leaves_it_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sample` says how many samples, `report` shows its table."""
    monkeypatch.chdir(tmp_path)
    assert main(["test", f"run_dir={run}", "datamodule.test_steps=4"]) == 0
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    capsys.readouterr()
    assert main(["sample", f"run_dir={run}", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert shown_rows(printed)["samples"] == "100 of each state, after a pilot of 200 sweeps"
    assert main(["report", str(run), "--dry-run"]) == 0
    assert "sampling converged" in capsys.readouterr().out
    assert main(["sample", f"run_dir={run}", "sample.num_samples=0", "--dry-run"]) == 2
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


def test_the_first_steps_say_time_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *SMALL, "trainer.max_steps=6", f"run_dir={tmp_path / 'run'}"]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"^\d{4}-.*  fit: about (\d+ min )?\d+ s for 2 more steps, .* s each; [\d.]+ GiB of memory", printed, re.M
    )
    assert printed.count("of memory so far") == 2


@pytest.mark.parametrize("words", [["optimizer=adam"], ["trainer.max_steps=-1", "trainer.max_time=00:00:00:01"]])
def test_time_and_memory_are_estimated_before_the_first_step(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `fit`, also without a number of steps, and of `test`."""
    here = f"run_dir={tmp_path / 'run'}"
    assert main(["fit", *SMALL, "trainer.max_steps=6", *words, "progress_seconds=1e-6", here]) == 0
    assert main(["test", "progress_seconds=1e-6", here]) == 0
    printed = capsys.readouterr().out
    total = "" if "-1" in words[0] else r"about (\d+ min )?\d+ s for 6 steps, "
    estimate = r"[\d.]+ s each \(estimate\); [\d.]+ GiB of memory so far\n.*  "
    count = "fit 1" if not total else "fit 1/6"
    assert re.search(rf"  fit: {total}{estimate}{count} ", printed)
    assert re.search(rf"  test: about (\d+ min )?\d+ s for 8 steps, {estimate}test 1/8 ", printed)


def test_the_estimate_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    """The metrics are those of a run without a progress bar, bit for bit."""
    metrics = []
    for name, words in (("bar", []), ("none", ["~callbacks.progress_bar", "+trainer.enable_progress_bar=false"])):
        folder = tmp_path / name
        assert main(["fit", *SMALL, "trainer.max_steps=6", *words, f"run_dir={folder}"]) == 0
        metrics.append((folder / "metrics.csv").read_text())
    assert metrics[0] == metrics[1]


def test_report_begins_with_a_banner(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And shows both verdicts."""
    assert main(["test", f"run_dir={run}", "datamodule.test_steps=4"]) == 0
    capsys.readouterr()
    assert main(["report", f"runs=[{run}]", f"run_dir={tmp_path / 'report'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("lightning-vfe report: report\n")
    assert shown_rows(printed)["runs"] == "1"
    assert re.search(r"sampling converged +│ +NO", printed)
    assert re.search(r"training converged +│ +- ", printed)


def test_each_command_has_the_whole_max_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a cluster it is the time of one job: a resumed run does not count the time of the jobs before."""
    words = ["fit", *SMALL, "trainer.max_steps=5000", "trainer.max_time=00:00:00:01", f"run_dir={tmp_path / 'run'}"]
    steps = [0]
    for _ in range(2):
        assert main([*words, "ckpt_path=auto"]) == 0
        printed = capsys.readouterr().out
        found = re.search(r"trainer.max_time=00:00:00:01 has passed at step (\d+) of 5000;", printed)
        assert found, printed
        steps.append(int(found[1]))
    assert steps[0] < steps[1] < steps[2]
