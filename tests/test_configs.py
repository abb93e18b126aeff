"""Every experiment composes and builds; every key of the configs says what it is; the wheel carries them all."""

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lightning_vfe.cli.help import MAIN_KEYS, TRAINER_VERBS, VERBS, describe, key_comment, verb_help
from lightning_vfe.errors import SettingError
from lightning_vfe.models.base.log_z import LogZEntry, log_z_file, store_entry
from lightning_vfe.models.potential.storage import load_potential, potential_hash, save_potential
from lightning_vfe.models.potential.yukawa import YukawaPotential
from lightning_vfe.physics.cell import PeriodicCell
from lightning_vfe.physics.structures import make_structure
from lightning_vfe.resources import resource_folder
from lightning_vfe.workflows.build import build_trainer, check_structure, locate_structure
from lightning_vfe.workflows.compose import compose_config, groups_of
from lightning_vfe.workflows.effects import check_effects
from lightning_vfe.workflows.keys import followed, walk
from lightning_vfe.workflows.overrides import group_options, parse
from lightning_vfe.workflows.plan import make_plan
from lightning_vfe.workflows.system import strata_of
from lightning_vfe.workflows.tasks import task_of

CONFIGS = resource_folder("configs")
FILES = sorted(CONFIGS.rglob("*.yaml"))
OPTIONS = [(group, option) for group, options in group_options().items() for option in options]
EXPERIMENTS = group_options()["experiment"]
PROJECT = Path(__file__).parents[1]
REFERENCE = PROJECT / "tests" / "exact" / "reference" / "electronic.json"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_key_has_one_comment(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert describe(file), f"{file} must begin with a comment of one line"
    if file.parent.name == "experiment":
        return  # its keys are those of the groups
    for line in lines:
        match = re.match(r"\s*(\w+):", line)
        if match and match[1] not in ("_target_", "defaults"):
            assert len(re.findall(r"(?:^|\s)# ", line)) == 1, f"{file}: give the key of this line one comment: {line}"


def test_help_finds_its_keys() -> None:
    for name, _, keys in MAIN_KEYS:
        for key in keys:
            assert all(key_comment(CONFIGS / name, key))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    roots = [file.stem for file in CONFIGS.glob("*.yaml") if group in groups_of(file.stem)]
    assert roots, f"no root config has the group {group} in its defaults list"
    for root in roots:
        tasks = group_options()["task"] if root == "config" else []
        for words in [[f"task={task}"] for task in tasks if group in groups_of(f"task/{task}")] or [[]]:
            config = compose_config(parse([*words, f"{group}={option}"]), root)
            assert OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in (*TRAINER_VERBS, "sample", "report", "eos")])
def test_every_command_has_its_config(verb: str) -> None:
    config = compose_config(parse(["system.num_atoms=6"]), root=verb)
    assert config.system.num_atoms == 6
    assert {"name", "seed", "dtype", "run_dir"} <= set(config)
    assert set(groups_of(verb)) <= set(group_options())


def use_potential(config: DictConfig, file: Path) -> None:
    """Put a potential with its ln Z where a config reads one that an earlier step of the user's makes."""
    save_potential(YukawaPotential(), file, {"rs_range": [0.5, 5.0], "temperature_kelvin": 6000.0, "label": {}})
    if OmegaConf.select(config, "potential.baseline"):
        config.potential.baseline.path = str(file)
    if OmegaConf.select(config, "data.target"):
        state = config.system.num_atoms, config.system.rs, config.system.temperature_kelvin
        store_entry(log_z_file(file), LogZEntry(*state, 1.0, 0.1, potential_hash(load_potential(file)[0]), True))
        config.data.target.potential_path = str(file)


@pytest.mark.parametrize("name", [None, *EXPERIMENTS])
def test_every_experiment_builds(name: str | None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    words = [f"run_dir={tmp_path}", "trainer.accelerator=cpu"] + ([f"experiment={name}"] if name else [])
    config = compose_config(parse(words))
    use_potential(config, tmp_path_factory.mktemp("potential") / "potential.pt")
    (module, datamodule) = task_of(config).build(config)
    trainer = build_trainer(config, "fit", print, progress=True)
    assert all(parameter.dtype == torch.float64 for parameter in module.parameters())
    assert trainer.max_steps == config.trainer.max_steps
    assert not list(tmp_path.iterdir()), "building must not write"
    if config.task != "variational":
        return
    strata, state = strata_of(config), module.state
    assert state.counts.share(num_ranks=1) == config.sampler.num_groups
    check_structure(config, strata)
    is_fixed = config.system.protons in ("fixed", "none")
    assert (module.proton_density is None) == state.is_fixed == is_fixed
    assert datamodule.state is state, "module and datamodule share networks and walkers"
    assert module.wavefunction is state.wavefunction
    assert module.proton_density is state.proton_density
    assert state.strata.points == strata.points
    assert torch.equal(state.strata.twists.fractions, strata.twists.fractions)
    densities, kelvins = (
        list(given) if OmegaConf.is_list(given) else [given]
        for given in (config.system.rs, 0.0 if is_fixed else config.system.temperature_kelvin)
    )
    pairs = [(rs, kelvin) for rs in densities for kelvin in kelvins]
    for point, (rs, kelvin) in zip(strata.points, pairs, strict=True):
        assert point.cell(state.system.num_atoms) == PeriodicCell(config.system.num_atoms, rs)
        assert point.temperature_kelvin == kelvin
    assert state.structure == locate_structure(config.system.structure)
    assert state.seed == config.seed


def test_shipped_structures_are_those_of_the_reference_energies() -> None:
    cells = json.loads(REFERENCE.read_text())["cells"]
    seen = []
    for name in EXPERIMENTS:
        config = compose_config(parse([f"experiment={name}"]))
        if not name.startswith(("n2_mol", "n2_diss", "n4")):
            continue
        cell = PeriodicCell(config.system.num_atoms, config.system.rs)
        positions = make_structure(locate_structure(config.system.structure), cell, 1, torch.Generator())[0].numpy()
        twist = [0, 0, 0] if list(config.system.twists) == [1, 1, 1] else list(config.system.twists[0])
        for number, reference in enumerate(cells):
            expected = np.array(reference["protons_bohr"])
            same = (reference["num_atoms"], reference["rs"]) == (cell.num_atoms, cell.rs)
            if same and reference["twist_fractional"] == twist and abs(positions - expected).max() < 1e-10:
                assert abs(cell.length - reference["box_length_bohr"]) < 1e-10
                seen.append(number)
    assert sorted(seen) == list(range(len(cells))), "every reference cell has its experiment"


def test_a_files_name_in_the_working_directory_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate_structure("n2_mol_rs2") == str(resource_folder("data") / "structures" / "n2_mol_rs2.xyz")
    Path("n2_mol_rs2").write_text("")
    assert locate_structure("n2_mol_rs2") == "n2_mol_rs2"
    assert locate_structure("bcc") == "bcc"


@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling, which builds the wheel, is missing"
)
def test_the_wheel_carries_configs_and_data(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run([*command, str(PROJECT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("configs", "data"):
        for file in (PROJECT / folder).rglob("*"):
            if file.is_file():
                assert f"lightning_vfe/{file.relative_to(PROJECT)}" in names, f"the wheel lacks {file}"
    assert not [name for name in names if name.startswith(("configs/", "data/", "tests/"))]
    # unpacked, the package finds what it carries
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "from lightning_vfe.cli import main; import lightning_vfe; print(lightning_vfe.__file__); main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr
    assert "experiment=NAME" in done.stdout, done.stderr


def test_fixed_protons_bring_their_sampler_along() -> None:
    """Where nobody chose a sampler; in an experiment of fixed protons, too."""
    fixed = compose_config(parse(["system.protons=fixed"]))
    assert fixed.sampler == compose_config(parse(["system.protons=fixed", "sampler=fixed"])).sampler
    assert (fixed.sampler.num_proton_walkers, fixed.sampler.num_electron_walkers) == (8, 64)
    chosen = compose_config(parse(["system.protons=fixed", "sampler=default"]))
    assert chosen.sampler.num_proton_walkers == compose_config(parse([])).sampler.num_proton_walkers
    plan = make_plan("fit", parse(["system.protons=fixed", "sampler.num_electron_walkers=32"]))
    assert plan.config.sampler.num_electron_walkers == 32
    assert "sampler=fixed, for system.protons=fixed" in plan.notes
    assert make_plan("fit", parse([])).notes == ()
    assert "sampler" not in compose_config(parse(["task=flow_mle", "system.protons=fixed"]))


def test_jellium_brings_its_wavefunction_and_sampler_along() -> None:
    jellium = compose_config(parse(["system.protons=none"]))
    assert jellium == compose_config(parse(["system.protons=none", "wavefunction=jellium", "sampler=fixed"]))
    plan = make_plan("fit", parse(["system.protons=none"]))
    assert plan.notes[-2:] == (
        "sampler=fixed, for system.protons=none",
        "wavefunction=jellium, for system.protons=none",
    )


def test_the_base_alone_is_enough() -> None:
    """A sampler beside base=schnet repeats what is there."""
    words = ["experiment=n2_exact", "base=schnet"]
    assert compose_config(parse(words)) == compose_config(parse([*words, "sampler=default"]))


@pytest.mark.parametrize(
    ("words", "is_read"),
    [
        (["system.twists=[1,1,1]"], True),
        (["system.twists=[2,2,2]", "system.twist_shift=[0.5,0.5,0.5]"], True),
        (["calculator=vmc", "system.twists=[1,1,1]"], True),
        (["calculator=vmc", "system.twist_shift=[0.5,0.5,0.5]"], False),
        (["calculator=pyscf", "system.twists=[1,1,1]"], False),
        (["calculator=ase", "system.twists=[1,1,1]"], False),
        (["system.twist_symmetry=none"], False),
    ],
)
def test_label_takes_the_twists_that_its_calculator_reads(words: list[str], is_read: bool) -> None:
    overrides = parse(words)
    config = compose_config(overrides, root="label")
    with nullcontext() if is_read else pytest.raises(SettingError, match="has no effect, since this calculator"):
        check_effects("label", config, overrides)


@pytest.mark.parametrize("verb", VERBS)
def test_help_all_lists_every_key_that_can_be_set(verb: str) -> None:
    """With its default and comment, in one line, which a search finds."""
    shown = verb_help(verb, with_all_keys=True)
    config = compose_config(parse([]), root="config" if verb in TRAINER_VERBS else verb)
    for name, value in walk(OmegaConf.to_container(config, resolve=False)):
        is_node, is_part = isinstance(value, dict), name.rpartition(".")[2].startswith("_")
        if not (is_node or is_part or isinstance(value, list) or followed(value)):
            assert re.search(rf"^  {re.escape(name)} \[.*\]  \w", shown, flags=re.MULTILINE), name
    assert ("RUN ... " in shown.splitlines()[0]) == (verb in ("report", "eos"))
