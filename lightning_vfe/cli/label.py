"""The verb `label`: sample configurations, label them by a calculator, and store them in a database."""

import hashlib
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.workflows.guards import instantiate, key_errors
from lightning_vfe.workflows.paths import check_file
from lightning_vfe.workflows.system import strata_of

FAILED = 1
INTERRUPTED = 130
VMC = "lightning_vfe.labels.calculators.vmc.VMCLabeller"


def run(config: DictConfig) -> int:
    """Label as the config says; returns the exit code.

    Raises:
        CommandError: a calculator that cannot be built.
        ValueError: a setting out of its range, or a database that was begun with others.
    """
    from lightning_vfe.labels.database import LabelStore
    from lightning_vfe.labels.rounds import LabelRun

    label = config.label
    if label.database is not None:
        check_file("label.database", label.database)
    states = states_of(config)
    labeller, settings, program = build_labeller(config, states)
    parts = _parts(config, states)
    path = Path(label.database or Path(config.run_dir) / "labels.db")
    store = LabelStore(path, states, settings)
    if label.retry_failed:
        store.retry_failed()
    commands = [*store.metadata.get("command", []), shlex.join(["lightning-vfe", *sys.argv[1:]])]
    store.update_metadata(code_version=__version__, program=program, command=commands)
    try:
        LabelRun(store, labeller, states, **parts).run()
    except KeyboardInterrupt:
        _say(store)
        print("interrupted; the same command goes on with what is left")
        return INTERRUPTED
    except RuntimeError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return FAILED
    _say(store)
    return 0


def build_labeller(config: DictConfig, states: list[Any]) -> tuple[Any, dict[str, Any], str]:
    """What labels configurations, the calculator's `_target_` with its settings, and its program with its version.

    Raises:
        CommandError: the calculator does not exist, or does not take these settings.
    """
    import ase

    from lightning_vfe.labels.workers import ProcessLabeller

    settings: Any = OmegaConf.to_container(config.calculator, resolve=True)
    if settings.get("_target_") == VMC:
        return _vmc_labeller(config, settings, states)
    make_calculator = _build(config.calculator, _partial_=True)
    try:
        calculator = make_calculator()  # a missing program or a wrong setting is known before anything is sampled
    except (TypeError, ImportError) as error:
        raise SettingError("calculator._target_", settings["_target_"], f": {one_line(error)}") from error
    if not hasattr(calculator, "implemented_properties"):
        raise SettingError("calculator._target_", settings["_target_"], "is no ASE calculator", "give the class of one")
    program = getattr(calculator, "program_version", settings["_target_"])
    return ProcessLabeller(make_calculator, config.label.num_processes), settings, f"{program}, ASE {ase.__version__}"


def _vmc_labeller(config: DictConfig, settings: dict[str, Any], states: list[Any]) -> tuple[Any, dict[str, Any], str]:
    """The same for the wavefunction in a checkpoint, built from the config in it."""
    from lightning_vfe.labels.label import by_length
    from lightning_vfe.workflows.checkpoints import check_same_shapes, embedded_config, load_checkpoint

    if not config.calculator.ckpt_path:
        raise SettingError(
            "calculator.ckpt_path", None, "must name the run whose wavefunction labels: its folder or .ckpt"
        )
    path = Path(config.calculator.ckpt_path)
    path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    content = load_checkpoint(path, key="calculator.ckpt_path")
    trained = embedded_config(content)
    if trained is None or "wavefunction" not in trained:
        raise SettingError(
            "calculator.ckpt_path", path, "holds no config with a wavefunction", "give a run made by fit"
        )
    densities = [point.rs for point in strata_of(trained).points]
    for state in states:
        if state.num_atoms != trained.system.num_atoms or state.rs not in densities:
            raise SettingError(
                "calculator.ckpt_path",
                path,
                f"is of num_atoms = {trained.system.num_atoms}, rs = {trained.system.rs}",
                f"set system.num_atoms={trained.system.num_atoms} system.rs={densities[0]}, not {state.num_atoms} and "
                f"{state.rs}",
            )
    wavefunction, system = instantiate(trained.wavefunction), instantiate(trained.particles)
    prefix = "wavefunction."
    state_dict = {
        key.removeprefix(prefix): value for key, value in content["state_dict"].items() if key.startswith(prefix)
    }
    check_same_shapes(wavefunction.state_dict(), state_dict)
    wavefunction.load_state_dict(state_dict)
    settings["checkpoint_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    node = config.calculator.copy()
    node._set_parent(config)
    del node.ckpt_path
    make = _build(node, _partial_=True)
    settings_of = {"system": system, "wavefunction": wavefunction}
    each = {
        state.cell.length: make(**settings_of, rs=state.rs, seed=config.calculator.seed + number)
        for number, state in enumerate(states)
    }
    return by_length(each), settings, f"lightning-vfe {__version__}"


def states_of(config: DictConfig) -> list[Any]:
    """Every number of atoms at every density, all at the system's temperature."""
    from lightning_vfe.labels.database import State

    temperature = strata_of(config).single.temperature_kelvin
    states = [State(n, float(rs), temperature) for n in config.label.num_atoms for rs in config.label.rs]
    if not states or len(set(states)) < len(states):
        raise CommandError("label.num_atoms and label.rs must be lists of different numbers, such as [8,16] and [1.25]")
    for state in states:
        state.cell  # noqa: B018  refuses impossible numbers
    return states


def _build(node: DictConfig, **arguments: Any) -> Any:
    from hydra.errors import InstantiationException

    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        raise SettingError("calculator._target_", node._target_, f"cannot be used: {one_line(error)}") from error


def _parts(config: DictConfig, states: list[Any]) -> dict[str, Any]:
    """What LabelRun takes beside the store, the labeller and the states."""
    import torch

    from lightning_vfe.labels.files import read_configurations
    from lightning_vfe.resources import data_file

    label = config.label
    given = None
    if label.configurations_path is not None:
        given = read_configurations(data_file(label.configurations_path), states, label.num_configurations)
    with key_errors(config, "label.start_potential"):
        start_potential = instantiate(label.start_potential)
        for state in states:
            start_potential.check(torch.zeros(state.num_atoms, 3), state.cell)
    return {
        "start_potential": start_potential,
        "num_configurations": label.num_configurations,
        "rounds": label.rounds,
        "given": given,
        "train": instantiate(label.trainer),
        "chains": instantiate(label.chains),
        "committee": instantiate(label.committee),
        "num_force_checks": label.num_force_checks,
        "seed": config.seed,
    }


def _say(store: Any) -> None:
    counts = {state: store.count(state=state) for state in ("done", "failed", "pending")}
    print(f"{store.path}: {counts['done']} labels, {counts['failed']} failed, {counts['pending']} still to do")
