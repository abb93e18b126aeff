"""The verb `label`: sample configurations, label them by a calculator, and store them in a database."""

import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe._cli.errors import CommandError, one_line
from lightning_vfe._cli.guards import instantiate

FAILED = 1
INTERRUPTED = 130


def run(config: DictConfig) -> int:
    """Label as the config says; returns the exit code.

    Raises:
        CommandError: a calculator that cannot be built.
        ValueError: a setting out of its range, or a database that was begun with others.
    """
    from lightning_vfe.labels.database import LabelStore

    label = config.label
    labeller, settings = build_labeller(config)
    states = states_of(config)
    path = Path(label.database or Path(config.run_dir) / "labels.db")
    store = LabelStore(path, states, settings)
    if label.retry_failed:
        store.retry_failed()
    known = store.metadata
    store.update_metadata(
        code_version=__version__,
        command=[*known.get("command", []), shlex.join(["lightning-vfe", *sys.argv[1:]])],
    )
    try:
        _label(config, store, labeller, states)
    except KeyboardInterrupt:
        _say(store)
        print("interrupted; the same command goes on with what is left")
        return INTERRUPTED
    except RuntimeError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return FAILED
    _say(store)
    return 0


def build_labeller(config: DictConfig) -> tuple[Any, dict[str, Any]]:
    """What labels configurations, and the calculator's `_target_` with its settings as they stand in the metadata.

    Raises:
        CommandError: the calculator does not exist, or does not take these settings.
    """
    from lightning_vfe.labels.workers import ProcessLabeller

    settings: Any = OmegaConf.to_container(config.calculator, resolve=True)
    make_calculator = _build(config.calculator, _partial_=True)
    try:
        make_calculator()  # a missing program or a wrong setting is known before anything is sampled
    except (TypeError, ImportError) as error:
        raise CommandError(f"calculator._target_ = {settings['_target_']}: {one_line(error)}") from error
    return ProcessLabeller(make_calculator, config.label.num_processes), settings


def states_of(config: DictConfig) -> list[Any]:
    """Every number of atoms at every density, all at the system's temperature."""
    from lightning_vfe.labels.database import State

    temperature = float(config.system.temperature_kelvin)
    if not temperature > 0:
        raise CommandError(f"system.temperature_kelvin = {temperature} must be positive")
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
        raise CommandError(f"calculator._target_ = {node._target_} cannot be used: {one_line(error)}") from error


def _label(config: DictConfig, store: Any, labeller: Any, states: list[Any]) -> None:
    from lightning_vfe.labels.rounds import LabelRun

    label = config.label
    LabelRun(
        store,
        labeller,
        states,
        start_potential=instantiate(label.start_potential),
        num_configurations=label.num_configurations,
        rounds=label.rounds,
        chains=instantiate(label.chains),
        committee=instantiate(label.committee),
        num_force_checks=label.num_force_checks,
        seed=config.seed,
    ).run()


def _say(store: Any) -> None:
    counts = {state: store.count(state=state) for state in ("done", "failed", "pending")}
    print(f"{store.path}: {counts['done']} labels, {counts['failed']} failed, {counts['pending']} still to do")
