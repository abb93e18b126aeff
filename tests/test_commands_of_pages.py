"""The commands of README and of the tutorials run, one after the other in one folder, with fewer steps and walkers."""

import re
import shlex
from pathlib import Path

import matplotlib
import pytest

from lightning_vfe.cli import main
from lightning_vfe.workflows.compose import compose_config
from lightning_vfe.workflows.effects import check_effects
from lightning_vfe.workflows.overrides import parse

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/first_result.md", "docs/pipeline.md", "docs/several_states.md")
NETWORKS = (
    "flow.num_steps=1 flow.num_layers=1 flow.num_channels=2 flow.num_radial=2 "
    "wavefunction.num_layers=1 wavefunction.single_width=4 wavefunction.pair_width=4"
)
FEWER = {
    r"fit experiment=(potential|delta_ml)": "trainer.max_steps=4 datamodule.batch_size=16",
    r"fit experiment=flow_mle": "trainer.max_steps=2 data.source.num_configurations=128 data.source.num_walkers=64 "
    "data.source.equilibration_steps=2 data.source.spacing=1",
    r"fit .*flow_ckpt": "trainer.max_steps=1 datamodule.equilibration_steps=1 sampler.num_electron_walkers=2",
    r"fit": f"trainer.max_steps=2 datamodule.equilibration_steps=1 sampler.num_electron_walkers=2 {NETWORKS}",
    r"test run_dir=runs/n2/potential": "",
    r"test experiment=flow_mle": "module.equilibration_sweeps=1 module.test_sweeps=4",
    r"test .*target_error": "datamodule.test_steps=4 datamodule.max_test_steps=4 datamodule.equilibration_steps=1",
    r"test": "datamodule.test_steps=4 datamodule.equilibration_steps=1",
    r"label": "calculator=ase label.num_configurations=12 label.rounds=1 label.chains.equilibration_steps=2 "
    "label.chains.spacing=5 label.committee.size=2 label.trainer.steps=3 label.num_force_checks=0",
    r"log-z": "log_z.num_sweeps=20 log_z.max_sweeps=20 log_z.pilot_sweeps=10 log_z.num_chains=8 "
    "log_z.target_error_per_atom=1.0",
    r"report": "",
}
"""Settings that shorten a command: those of the first pattern that matches its beginning."""
DROPPED = {"label": ("system.twists=",)}
"""Settings that belong to the calculator of the page and not to the one that stands in for it."""
ELSEWHERE = (
    "lightning-vfe fit\n",  # the default: tests/cli
    "lightning-vfe label calculator=vmc",  # tests/labels
)


def commands(page: str) -> list[str]:
    """The commands of the blocks of code, each in one line."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [" ".join(shlex.split(line, comments=True)) for line in lines if line.startswith("lightning-vfe ")]
    return [line for line in found if not f"{line}\n".startswith(ELSEWHERE)]


def shortened(command: str) -> list[str]:
    """The words of a command with fewer steps."""
    words = command.split()[1:]
    fewer = next(settings for pattern, settings in FEWER.items() if re.match(pattern, command.partition(" ")[2]))
    return [word for word in words if not word.startswith(DROPPED.get(words[0], ("-",)))] + fewer.split()


@pytest.mark.parametrize("page", ["README.md", "docs/pipeline.md", "docs/potentials.md"])
def test_label_takes_its_settings_as_they_stand(page: str) -> None:
    """With the calculator of the page, which may not be installed."""
    found = [command for command in commands(page) if command.startswith("lightning-vfe label ")]
    assert found
    for command in found:
        overrides = parse(command.split()[2:])
        check_effects("label", compose_config(overrides, root="label"), overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def done() -> set[str]:
    """Commands that have run: pages repeat some of them."""
    return set()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(
    page: str, folder: Path, done: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    matplotlib.use("Agg")
    shown = [command for command in commands(page) if command not in done]
    assert commands(page)
    for command in shown:
        code = main(shortened(command))
        printed = capsys.readouterr()
        assert code == 0 or (code == 1 and "NOT CONVERGED" in printed.out), f"{command}\n{printed.err}"
        done.add(command)
