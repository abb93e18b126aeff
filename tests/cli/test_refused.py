"""Commands that are refused, also late: one line, and the folder as it was."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from lightning_vfe.cli import main
from lightning_vfe.errors import CommandError
from lightning_vfe.workflows.plan import Plan
from lightning_vfe.workflows.run import _prepared_folder
from tests.helpers.refusals import error_line

QUIET = ["trainer.accelerator=cpu", "logger=csv"]
FLOW = ["fit", "experiment=flow_mle_rs1p25_6000K", "data=trajectory", *QUIET, "system.num_atoms=2", "system.rs=2"]
FLOW += ["trainer.max_steps=2", "datamodule.batch_size=2", "flow.num_steps=1", "flow.num_layers=1"]
EDGE = 2.149499410163176  # of N = 2 at rs = 2, in angstrom


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["fit", "experiment=smoke", "optimizer=adam", *QUIET, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edited(run: Path, name: str, value: float) -> None:
    """Set a field of all walkers in the last checkpoint."""
    file = run / "checkpoints" / "last.ckpt"
    content = torch.load(file)
    content["walkers"]["fields"][name].fill_(value)
    file.unlink()  # step-N.ckpt is a second name of it
    torch.save(content, file)


def test_a_resume_that_is_refused_keeps_the_config(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(trained, "run"))
    before = (run / "config.yaml").read_bytes()
    resume = ["fit", "ckpt_path=last", "run_dir=run", "trainer.max_steps=6"]
    line = error_line([*resume, "optimizer=natural_gradient"], capsys)
    assert line == "optimizer = NaturalGradient but the checkpoint was trained with Adam; " + (
        "resume with that, or start a new run"
    )
    edited(run, "kT", 1.0)  # seen once the walkers are read, after config.yaml is written
    assert "other values of kT" in error_line([*resume, "optimizer.decay_steps=3"], capsys)
    assert (run / "config.yaml").read_bytes() == before
    edited(run, "stratum", 7)
    for words in (resume, ["test", "run_dir=run"]):
        line = error_line(words, capsys)
        assert line.startswith("ckpt_path = run/checkpoints/last.ckpt holds walkers of other states than this run")


def test_a_new_run_that_is_refused_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    head = f'2\nLattice="{EDGE} 0 0 0 {EDGE} 0 0 0 {EDGE}" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
    frames = [f"{head}H 0.3 0.2 0.1\nH {1 + 0.01 * number} 0.9 0.7\n" for number in range(20)]
    words = [*FLOW, "data.source.trajectory=h.xyz", "run_dir=run"]
    Path("h.xyz").write_text(frames[0])
    for existed in (False, True):
        assert "configurations = 1 of data.source are too few" in error_line(words, capsys)
        assert Path("run").is_dir() == existed
        assert not existed or not any(Path("run").iterdir())
        Path("run").mkdir(exist_ok=True)
    Path("h.xyz").write_text("".join(frames))
    assert main(words) == 0, "the same command with more frames"


def test_a_new_run_with_training_steps_is_kept() -> None:
    """A command that is refused after steps, but before its first save: nothing that was computed is deleted."""
    plan = Plan("fit", OmegaConf.create({"name": "a"}), Path("run"), None, is_new=True)

    def train() -> None:
        with _prepared_folder(plan):
            Path("run/metrics.csv").write_text("step\n0\n")
            raise CommandError("late")

    with pytest.raises(CommandError, match="late"):
        train()
    assert sorted(path.name for path in Path("run").iterdir()) == ["config.yaml", "metrics.csv"]


@pytest.mark.parametrize("experiment", ["potential_rs1p25_6000K", "flow_mle_rs1p25_6000K"])
@pytest.mark.parametrize(("group", "name"), [("adam", "Adam"), ("natural_gradient", "NaturalGradient")])
def test_optimizers_of_two_networks_train_none_on_data(
    experiment: str, group: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(["fit", f"experiment={experiment}", *QUIET, f"optimizer={group}"], capsys)
    assert line.startswith(f"optimizer = {name} trains flow and wavefunction together; choose optimizer=adamw_cosine")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "words",
    [["report", "runs=[a,b]"], ["eos", "a"], ["fit"], ["fit", "-m", "seed=1,2"], ["test"], ["label"], ["fit", "--cfg"]],
)
def test_a_working_directory_that_is_gone(
    words: list[str], empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "gone").mkdir()
    monkeypatch.chdir(empty_folder / "gone")
    (empty_folder / "gone").rmdir()
    assert main(words) == 2
    line = "the working directory is gone (No such file or directory); change into a folder that exists, with cd"
    assert capsys.readouterr().err == f"error: {line}\n"
    assert main(["--version"]) == 0


def test_tasks_of_slurm_without_their_number_on_a_node(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"NTASKS": "2", "JOB_NAME": "h54", "JOB_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for words in ([], ["trainer.devices=2", "trainer.strategy=ddp"]):
        line = error_line(["fit", "experiment=smoke", *QUIET, *words, "run_dir=run"], capsys)
        assert line.startswith("SLURM_NTASKS = 2 in the environment is not enough")
        assert "submit with --ntasks-per-node in place of --ntasks; for one process, unset SLURM_NTASKS" in line
        assert not Path("run").exists()
