"""The command line: help texts, and one clear line with exit code 2 for every bad input."""

import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.cli import main
from lightning_vfe.cli.help import TRAINER_VERBS, VERBS, fitted_help, verb_help
from lightning_vfe.errors import SettingError
from lightning_vfe.resources import resource_folder
from lightning_vfe.training.run.run_folder import CONFIG_KEY
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.overrides import parse
from tests.helpers.refusals import error_line

EXPERIMENTS = sorted(file.stem for file in (resource_folder("configs") / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_checkpoint(file: Path, *words: str) -> Path:
    """A checkpoint with the config of these overrides and no parameters."""
    file.parent.mkdir(parents=True, exist_ok=True)
    config = compose_config(parse(words))
    torch.save({"state_dict": {}, CONFIG_KEY: OmegaConf.to_yaml(config)}, file)
    return file


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_verbs_groups_experiments_keys(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    parts = ["fit ", "validate ", "test ", "flow ", "geminal", "system.num_atoms", "ckpt_path", "lightning-vfe fit exp"]
    for part in [*parts, *EXPERIMENTS]:
        assert part in text, f"{part!r} is missing in the help"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: lightning-vfe {verb} ")
    assert "run_dir" in text
    assert ("system.rs" in text) == (verb not in ("sample", "report", "eos"))  # which reads the system from the runs


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in (*TRAINER_VERBS, "sample", "report", "eos")])
def test_commands_read_their_settings_alike(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([verb, "--print-config", "system.num_atoms=6"]) == 0
    assert OmegaConf.create(capsys.readouterr().out).system.num_atoms == 6
    for words, parts in [
        (["rs=2"], ["rs = 2", "did you mean 'system.rs'"]),
        (["system.num_atoms=many"], ["system.num_atoms = many", "a whole number"]),
        (["wavefunction=geminal"], [f"wavefunction = geminal is not possible with {verb}", "system"]),
        (["seed=-1"], ["seed = -1"]),
    ]:
        line = error_line([verb, *words], capsys)
        for part in parts:
            assert part in line, f"{part!r} is not in: {line}"
    seen = []

    def work(config: DictConfig, *rest: object) -> NoReturn:
        seen.append((config.run_dir, torch.get_default_dtype()))
        raise SettingError("rs", config.system.rs, "is too dense", "raise\nit")

    monkeypatch.setattr(f"lightning_vfe.workflows.verbs.{verb.replace('-', '_')}_with", work)
    for folder in ("~/here", "~nobody-of-this-name"):
        assert main([verb, f"run_dir={folder}", "dtype=float64"]) == 2
    capsys.readouterr()
    assert seen == [(folder, torch.float64) for folder in (str(Path.home() / "here"), "~nobody-of-this-name")]
    assert error_line([verb, "system.rs=0.5"], capsys) == "system.rs = 0.5 is too dense; raise it"


def test_help_fits_a_terminal_and_loses_no_word() -> None:
    text = verb_help("fit")
    for width in (80, 120):
        fitted = fitted_help(text, width)
        assert max(map(len, fitted.splitlines())) <= width
        assert fitted.split() == text.split()
    rows = fitted_help("  fit   " + "train a run " * 8, 60).splitlines()
    assert rows[1] == "        train a run train a run train a run train a run"


def test_help_is_quick_and_the_module_runs() -> None:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lightning_vfe", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "experiments" in done.stdout
    assert time.perf_counter() - start < 5.0, "the help must not import torch"
    done = subprocess.run([sys.executable, "-m", "lightning_vfe", "fti"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown verb 'fti'; did you mean 'fit'?")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_print_config_runs_nothing(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--print-config", "experiment=n2_exact", "flow.num_blocks=3", "trainer.max_steps=7"]) == 0
    config = OmegaConf.create(capsys.readouterr().out)
    assert (config.name, config.flow.num_blocks, config.trainer.max_steps) == ("n2_exact", 3, 7)
    assert config.run_dir == "runs/n2_exact"
    assert not list(empty_folder.iterdir())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["fti"], ["fti", "did you mean 'fit'"]),
        (["system.rs=2"], ["system.rs=2", "is no verb"]),
        (["fit", "--hlep"], ["--hlep", "did you mean '--help'"]),
        (["fit", "bare"], ["'bare'", "key=value"]),
        (["fit", "experiment=h14"], ["experiment = h14", "did you mean 'h14_6000K'", "smoke"]),
        (["fit", "experiment=h15_6000K"], ["did you mean 'h14_6000K'"]),
        (["fit", "flow=equivarant"], ["flow = equivarant", "did you mean 'equivariant'"]),
        (["fit", "flow=null"], ["flow = null", "equivariant"]),
        (["fit", "system.num_atom=8"], ["system.num_atom", "did you mean 'system.num_atoms'"]),
        (["fit", "rs=2"], ["rs = 2", "did you mean 'system.rs'"]),
        (["fit", "max_step=2"], ["did you mean 'trainer.max_steps'"]),
        (["fit", "system={rss:2}"], ["system.rss", "did you mean 'system.rs'"]),
        (["fit", "strata.rs=2"], ["strata.rs = 2", "set system.rs"]),
        (["fit", "particles.num_atoms=2"], ["particles.num_atoms = 2", "set system.num_atoms"]),
        (["fit", "cell.rs=2"], ["cell.rs = 2", "did you mean 'system.rs'"]),
        (["fit", "system.rs=dense"], ["system.rs = dense", "a number"]),
        (["fit", "system.num_atoms=8.5"], ["system.num_atoms = 8.5", "a whole number"]),
        (["fit", "system.twists=4"], ["system.twists = 4 is not a list", "[4, 4, 4]"]),
        (["fit", "flow.cutoff=far"], ["flow.cutoff = far", "a number"]),
        (["fit", "flow=equivariant", "flow=3"], ["flow = 3"]),
        (["fit", "system.rs=1,2"], ["'system.rs=1,2'", "several values"]),
        (["fit", "system.twists=[1"], ["'system.twists=[1'"]),
        (["fit", "dtype=float16"], ["dtype = float16", "float64 or float32"]),
        (["fit", "seed=-1"], ["seed = -1"]),
        (["fit", "optimizer=adam", "optimizer.flow_learning_rate=inf"], ["optimizer.flow_learning_rate = inf must be"]),
        (["fit", "~optimizer"], ["~optimizer is not possible", "~callbacks.NAME"]),
        (["fit", "~system.rs"], ["~system.rs is not possible"]),
        (["fit", "~callbacks"], ["~callbacks is not possible"]),
        (["fit", "seed=4294967296"], ["seed = 4294967296", "at most 4294967295"]),
        (["fit", "system.protons=frozen"], ["system.protons = frozen", "sampled, fixed"]),
        (["fit", "+new.key=3"], ["new.key = 3 is read by nothing"]),
        (["fit", "version=3"], ["version = 3 is written by fit"]),
        (["fit", "schema=1"], ["schema = 1 is written by fit"]),
        (["fit", "run_dir=a${b}c"], ["run_dir = a${b}c holds ${"]),
        (["log-z", "system.protons=fixed"], ["system.protons = fixed has no effect", "drop it"]),
        (["log-z", "system.twists=[2,2,2]"], ["system.twists = [2, 2, 2] has no effect"]),
        (["label", "system.structure=sc"], ["system.structure = sc has no effect"]),
        (["label", "system.num_atoms=7"], ["label.num_atoms = 7 must be even"]),
        (["label", "system.num_atoms=7", "system.twists=[1,1,1]"], ["label.num_atoms = 7 must be even"]),
        (
            ["label", "calculator=pyscf", "system.twists=[1,1,1]"],
            ["has no effect, since this calculator does not read it"],
        ),
        (["label", "system.num_atoms=100000000"], ["label.num_atoms = 100000000 needs at least", "GiB"]),
        (["log-z", "system.num_atoms=100000000"], ["system.num_atoms = 100000000 needs at least", "GiB"]),
        (["fit", "base=uniform", "system.states=[[2,6000]]", "system.rs=3"], ["system.rs = 3 has no effect", "states"]),
        (["fit", "experiment=n2_mol_rs2", "flow.num_blocks=2"], ["flow.num_blocks = 2 has no effect", "fixed protons"]),
        (["fit", "task=potential", "experiment=smoke"], ["task = potential is not that of experiment=smoke"]),
        (["fit", "task=potential", "base=uniform"], ["base = uniform is not possible"]),
        (["report", "runs=[null]"], ["null does not exist"]),
        (["report", "runs=[1,2]"], ["1 does not exist"]),
        (["report", "runs=[größe,b c]"], ["größe does not exist"]),
    ],
)
def test_bad_words_end_in_one_line(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(words, capsys)
    for part in parts:
        assert part in line, f"{part!r} is not in: {line}"


JELLIUM = "system.protons=none"


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("system.num_atoms=7", ["system.num_atoms = 7", "even"]),
        ("system.rs=-1", ["system.rs = -1", "positive"]),
        ("system.rs=0", ["system.rs = 0", "positive"]),
        ("system.rs=1e-300", ["system.rs = 1e-300", "from 0.001 to 10000 bohr"]),
        ("name=..", ["name = .. is no name of a folder in runs"]),
        ("name=", ["name = '' is no name of a folder in runs"]),
        ("name=a/b", ["name = a/b is no name of a folder in runs"]),
        ("callbacks.checkpoint.dirpath=/proc/here", ["callbacks.checkpoint.dirpath = /proc/here cannot be written"]),
        ("system.temperature_kelvin=0", ["system.temperature_kelvin = 0", "positive"]),
        ("system.temperature_kelvin=-5.0", ["system.temperature_kelvin = -5.0", "positive"]),
        ("system.temperature_kelvin=inf", ["system.temperature_kelvin = inf", "finite"]),
        ("system.twists=[100000,100000,100000]", ["system.twists = [100000, 100000, 100000] is a grid of"]),
        ("sampler.num_proton_walkers=9", ["sampler.num_proton_walkers = 9", "multiple of"]),
        ("sampler.num_groups=0", ["sampler.num_groups = 0"]),
        ("trainer.max_time=soon", ["trainer.max_time = soon is no duration; give DD:HH:MM:SS"]),
        ("trainer.max_time={weeks:a}", ["trainer.max_time = {'weeks': 'a'}"]),
        ("trainer.max_time={years:1}", ["trainer.max_time = {'years': 1} is no duration"]),
        ("system.twists=[5,1,1] sampler.num_proton_walkers=8", ["walkers = 8 must be a multiple of the 3 twists", "9"]),
        (
            "system.rs=[1,2,3] sampler.num_proton_walkers=8",
            ["walkers = 8 must be a multiple of the 3 state points", "9"],
        ),
        ("system.twists=[a,b]", ["system.twists"]),
        ("system.protons=gone", ["system.protons = gone does not exist; there is: sampled, fixed, none"]),
        ("system.protons=none wavefunction=geminal", ["protons = none leaves no protons", "set wavefunction=jellium"]),
        ("system.protons=none wavefunction=molecular", ["system.protons = none leaves no protons"]),
        ("wavefunction=jellium", ["wavefunction = jellium has no protons", "set system.protons=none"]),
        (f"{JELLIUM} flow.num_steps=2", ["flow.num_steps = 2 has no effect, since system.protons=none has no protons"]),
        (f"{JELLIUM} flow.cutoff=2", ["flow.cutoff = 2 has no effect"]),
        (f"{JELLIUM} system.temperature_kelvin=5000", ["system.temperature_kelvin = 5000 has no effect"]),
        (f"{JELLIUM} system.structure=bcc", ["system.structure = bcc has no effect"]),
        (f"{JELLIUM} system.nucleus=D", ["system.nucleus = D has no effect"]),
        ("system.structure=nowhere.xyz", ["system.structure = nowhere.xyz"]),
        ("system.structure=bcc", ["system.structure = bcc", "16"]),
        ("sampler.proton_proposal=cauchy", ["sampler.proton_proposal = ", "langevin"]),
        ("+trainer.colour=1", ["trainer.colour = 1", "no argument of lightning.Trainer"]),
        ("trainer.accelerator=abacus", ["abacus"]),
        ("trainer.devices=none", ["trainer: "]),
        ("trainer.devices=3", ["sampler.num_groups = 2", "multiple of the 3 processes"]),
        ("state.ewald_accuracy=0", ["state.ewald_accuracy = 0 must lie between 1e-14 and 1"]),
        ("optimizer.flow_learning_rate=inf", ["optimizer.flow_learning_rate = inf", "finite, such as 20.0"]),
        ("optimizer.flow_damping=0", ["optimizer.flow_damping = 0", "such as 0.01"]),
        ("flow.cutoff=1000", ["flow.cutoff = 1000 must be positive and at most", "2.5 is usual"]),
        ("flow.cutoff=inf", ["flow.cutoff = inf must be positive and at most"]),
        ("optimizer=torch optimizer.optimizer._partial_=null", ["optimizer.optimizer._partial_ = null must be true"]),
        ("trainer.max_steps=0", ["trainer.max_steps = 0 must be at least 1, or -1"]),
        ("trainer.max_epochs=0", ["trainer.max_epochs = 0 must be at least 1, or -1"]),
        ("callbacks.checkpoint.every_n_steps=0", ["callbacks.checkpoint.every_n_steps = 0"]),
        ("trainer.log_every_n_steps=0", ["trainer.log_every_n_steps = 0 must be at least 1"]),
        ("system.num_atoms=100000000", ["system.num_atoms = 100000000 needs at least", "GiB are free"]),
        ("sampler.num_electron_walkers=10000000000", ["sampler.num_electron_walkers = 10000000000 needs at least"]),
        (
            "wavefunction.single_width=1000000",
            ["wavefunction.single_width = 1000000 makes state.wavefunction too large"],
        ),
    ],
)
def test_bad_values_end_in_one_line(word: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "experiment=smoke", "trainer.accelerator=cpu", "system.num_atoms=4", *word.split()]
    line = error_line(words, capsys)
    for part in parts:
        assert part in line, f"{part!r} is not in: {line}"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("folder", "parts"),
    [
        ("/proc/here", ["(", "give another folder with run_dir=..."]),
        ("taken", ["taken is a file; give another folder"]),
        ("taken/inside", ["taken is a file"]),
        ("n" * 300, ["File name too long"]),
        ("", ["'run_dir=' names no file or folder"]),
    ],
)
def test_a_run_folder_that_cannot_be_written(
    verb: str, folder: str, parts: list[str], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").touch()
    checkpoint = write_checkpoint(Path("whole.ckpt"), "experiment=smoke")
    given = [] if verb not in ("test", "validate") else [f"ckpt_path={checkpoint}"]
    line = error_line([verb, *given, f"run_dir={folder}"], capsys)
    assert line.startswith(f"run_dir = {folder} cannot be written" if folder else "'run_dir=' ")
    for part in parts:
        assert part in line, f"{part!r} is not in: {line}"
    if verb in TRAINER_VERBS and len(folder) < 300:
        line = error_line([verb, "--multirun", "system.rs=1.2,1.3", f"run_dir={folder}"], capsys)
        assert parts[-1] in line


def test_missing_and_damaged_checkpoints(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'lightning-vfe fit' first" in error_line(["test"], capsys)
    line = error_line(["fit", "experiment=smoke", "ckpt_path=last"], capsys)
    assert "'lightning-vfe fit experiment=smoke' first" in line
    assert "nowhere" in error_line(["test", "run_dir=nowhere"], capsys)
    assert "absent.ckpt does not exist" in error_line(["test", "ckpt_path=absent.ckpt"], capsys)
    Path("run").mkdir()
    line = error_line(["test", "ckpt_path=run"], capsys)
    assert line == "ckpt_path = run is a folder; give run_dir=run for the last checkpoint of a run"
    whole = write_checkpoint(Path("whole.ckpt"), "experiment=smoke").read_bytes()
    half = len(whole) // 2
    damaged = {"empty": b"", "cut": whole[:half], "text": b"no checkpoint\n"}
    damaged["flipped"] = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    for name, content in damaged.items():
        Path(f"{name}.ckpt").write_bytes(content)
        line = error_line(["test", f"ckpt_path={name}.ckpt"], capsys)
        assert f"ckpt_path = {name}.ckpt is damaged" in line
    torch.save({"weights": 1}, "foreign.ckpt")
    assert "not a checkpoint of lightning-vfe" in error_line(["test", "ckpt_path=foreign.ckpt"], capsys)
    torch.save({"state_dict": {}, "code": torch.nn.Linear}, "unsafe.ckpt")
    assert "could run code" in error_line(["test", "ckpt_path=unsafe.ckpt"], capsys)


def test_a_damaged_checkpoint_names_the_newest_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not replaced in silence, and neither another name of it nor a damaged one is named."""
    folder = Path("runs/smoke/checkpoints")
    for step in (10, 20, 30, 40):
        file = write_checkpoint(folder / f"step-{step:08d}.ckpt", "experiment=smoke")
        if step >= 30:
            file.write_bytes(file.read_bytes()[:-500])
    (folder / "last.ckpt").hardlink_to(folder / "step-00000040.ckpt")
    line = error_line(["fit", "experiment=smoke", "ckpt_path=last"], capsys)
    assert "last.ckpt is damaged" in line
    assert f"ckpt_path={folder}/step-00000020.ckpt" in line
    assert f"ckpt_path={folder}/step-00000020.ckpt" in error_line(["test", "run_dir=runs/smoke"], capsys)
    for step in (10, 20):
        (folder / f"step-{step:08d}.ckpt").unlink()
    assert "start again with fit" in error_line(["test", "run_dir=runs/smoke"], capsys)


def test_checkpoint_of_another_system(capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(Path("runs/smoke/checkpoints/last.ckpt"), "experiment=smoke")
    for verb, word, parts in [
        ("test", "system.rs=1.5", ["system.rs = 1.5 here but 2.0"]),
        ("test", "system.num_atoms=4", ["system.num_atoms = 4 here but 2"]),
        ("test", "system.rs=[1.9,2.0]", ["system.rs = [1.9, 2.0] here but 2.0"]),
        ("fit", "system.nucleus=D", ["system.nucleus = D here but H"]),
        ("fit", "system.states=[[2.0,6000]]", ["system.states = [[2.0, 6000]] here but None"]),
        ("validate", "system.twist_symmetry=cubic", ["system.twist_symmetry = cubic here but time_reversal"]),
        ("validate", "system.twists=[2,2,2]", ["system.twists = [2, 2, 2] here but [1, 1, 1]"]),
        ("test", "wavefunction.single_width=5", ["wavefunction.single_width = 5 here but 4"]),
        ("fit", "flow.num_blocks=2", ["flow.num_blocks = 2 here but 1"]),
        ("fit", "sampler.num_electron_walkers=4", ["sampler.num_electron_walkers = 4 here but 2"]),
        ("test", "sampler.num_proton_walkers=16", ["sampler.num_proton_walkers = 16 here but 8", "test_steps"]),
        ("test", "experiment=n2_exact", ["experiment = n2_exact is not that of"]),
        ("test", "flow.num_steps=3", ["flow.num_steps = 3 here but 1"]),
        ("test", "dtype=float32", ["dtype = float32 here but float64", "mix two runs"]),
        ("fit", "dtype=float32", ["dtype = float32 here but float64"]),
        ("fit", "seed=7", ["seed = 7 here but 42", "would change nothing"]),
        ("test", "seed=1.5", ["seed = 1.5 must be a whole number"]),
        ("validate", "seed=-1", ["seed = -1 must be at least 0"]),
        ("test", "target_error=0", ["target_error = 0 must be positive; give"]),
        ("test", "target_error=-0.001", ["target_error = -0.001 must be positive"]),
        ("test", "target_error=small", ["target_error = small must be a number"]),
        ("test", "target_error={presure_gpa:2}", ["presure_gpa is no term", "did you mean 'pressure_gpa'"]),
        ("test", "target_error={pressure_gpa:0}", ["target_error = {'pressure_gpa': 0} must be positive"]),
        ("test", "datamodule.max_test_steps=9", ["max_test_steps = 9 has no effect, since target_error is null"]),
    ]:
        line = error_line([verb, "ckpt_path=runs/smoke/checkpoints/last.ckpt", word], capsys)
        for part in parts:
            assert part in line, f"{part!r} is not in: {line}"
    # no config inside: the shapes of the parameters tell
    torch.save({"state_dict": {"wavefunction.extra": torch.zeros(3)}}, "bare.ckpt")
    assert "here but absent in the checkpoint" in error_line(
        ["test", "ckpt_path=bare.ckpt", "experiment=smoke"], capsys
    )


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("trainer.max_steps=2", "trainer.max_steps = 2 but the checkpoint is at step 4; raise trainer.max_steps"),
        ("trainer.max_steps=4", "trainer.max_steps = 4 but the checkpoint is at step 4; raise trainer.max_steps"),
        ("trainer.max_epochs=2", "trainer.max_epochs = 2 but the checkpoint is at the end of epoch 2; raise "),
    ],
)
def test_a_run_that_is_done_does_not_go_on(word: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_checkpoint(Path("runs/smoke/checkpoints/last.ckpt"), "experiment=smoke")
    loops = {"fit_loop": {"epoch_loop.batch_progress": {"is_last_batch": True}}}
    torch.save(torch.load(file) | {"global_step": 4, "epoch": 1, "loops": loops}, file)
    words = ["fit", "experiment=smoke", "ckpt_path=last", "trainer.max_steps=-1", word]
    assert error_line(words, capsys).startswith(line)


def test_a_run_without_a_checkpoint_names_no_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "experiment=smoke", "trainer.accelerator=cpu", "logger=csv", "+trainer.limit_train_batches=0"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("no checkpoint in runs/smoke/checkpoints; there is nothing to test\n")


def test_unexpected_exception_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lightning_vfe.workflows.run.build_trainer", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["fit", "experiment=smoke"])


@pytest.mark.parametrize("flag", ["--help", "--print-config"])
def test_a_page_may_be_closed_early(flag):
    """`lightning-vfe fit --help | head -1` ends without a word."""
    command = [sys.executable, "-m", "lightning_vfe", "fit", flag]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
