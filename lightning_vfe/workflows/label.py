"""Sample configurations, label them by a calculator, and store them in a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from lightning_vfe import __version__
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.labels.database import LabelState
from lightning_vfe.labels.files import read_configurations
from lightning_vfe.labels.label import LabellingFailed
from lightning_vfe.labels.region import region_points
from lightning_vfe.labels.rounds import LabelRun, check_counts
from lightning_vfe.labels.store import LabelStore
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.progress import Begin, Progress
from lightning_vfe.resources import data_file
from lightning_vfe.signals import signal_of
from lightning_vfe.workflows.guards import instantiate, key_errors
from lightning_vfe.workflows.labeller import build_labeller
from lightning_vfe.workflows.memory import check_memory
from lightning_vfe.workflows.paths import check_file
from lightning_vfe.workflows.system import strata_of

MAX_SHOWN = 4
"""States that the banner lists."""


@dataclass(frozen=True)
class LabelResult:
    """What a database holds after labelling.

    Attributes:
        database: its file.
        done, failed, pending: numbers of configurations.
        signal: number of the signal that ended the work, which the same settings continue; 0 where none did.
        failure: why no configuration could be labelled; empty otherwise.
    """

    database: Path
    done: int
    failed: int
    pending: int
    signal: int = 0
    failure: str = ""


def label_with(
    config: DictConfig, command: str, say: Callable[[str], None], progress: Progress, begin: Begin
) -> LabelResult:
    """Label as a composed config says.

    Args:
        config: of `configs/label.yaml`.
        command: kept in the database's metadata.
        say: called with a line for each part of the work.
        progress: called while configurations are sampled and labelled, and while potentials are trained.
        begin: called with the config and what the work is about, before the database is opened.

    Raises:
        CommandError: a calculator that cannot be built, a setting out of its range, or a database that was begun with
            others.
    """
    label = config.label
    if label.database is not None:
        check_file("label.database", label.database)
    states = states_of(config)
    labeller, settings, program = build_labeller(config, states)
    parts = _parts(config, states, progress)
    check_counts(label.num_configurations, label.rounds, label.num_force_checks)
    database = Path(label.database or Path(config.run_dir) / "labels.db")
    begin(config, _description(config, states, program, database))
    store = LabelStore(database, states, settings)
    if label.retry_failed:
        store.retry_failed()
    commands = [*store.metadata.get("command", []), command]
    store.update_metadata(code_version=__version__, program=program, command=commands)
    if label.rs_range is not None:
        store.update_metadata(region={"rs": list(label.rs_range), "temperature_kelvin": list(label.temperature_range)})
    run = LabelRun(store, labeller, states, **parts, report=say, progress=progress)
    try:
        run.run()
    except KeyboardInterrupt as error:
        return _result(store, signal=signal_of(error))
    except LabellingFailed as error:
        return _result(store, failure=one_line(error))
    return _result(store)


def _description(config: DictConfig, states: list[LabelState], program: str, database: Path) -> dict[str, str]:
    """What the banner says."""
    label, rounds = config.label, config.label.rounds + 1
    count = f"{label.num_configurations} of each state in {rounds} round{'s' * (rounds > 1)}"
    labels = label.num_configurations * len(states) * rounds
    work = f"{labels} calculations, {label.num_processes} at a time"
    if label.num_force_checks:
        work += f", and {2 * label.num_force_checks} to check forces"
    if rounds > 1:
        work += f"; {label.committee.size} potentials before each further round"
    shown = [f"N = {s.num_atoms}, rs = {s.rs:g}, T = {s.temperature_kelvin:g} K" for s in states]
    if len(shown) > MAX_SHOWN:
        shown[MAX_SHOWN:] = [f"and {len(shown) - MAX_SHOWN} more"]
    return {
        "states": "; ".join(shown),
        "calculator": program,
        "configurations": count,
        "work": work,
        "database": str(database),
    }


def _result(store: LabelStore, signal: int = 0, failure: str = "") -> LabelResult:
    done, failed, pending = (store.count(state=state) for state in ("done", "failed", "pending"))
    return LabelResult(Path(store.path), done, failed, pending, signal, failure)


def states_of(config: DictConfig) -> list[LabelState]:
    """Every number of atoms at every state point: those of the region, or the densities at the system's temperature."""
    label, single = config.label, strata_of(config).single
    if label.rs_range is None and label.temperature_range is None:
        points = [StatePoint(float(rs), single.temperature_kelvin) for rs in label.rs]
    elif label.rs_range is None or label.temperature_range is None:
        missing = "rs_range" if label.rs_range is None else "temperature_range"
        raise SettingError(f"label.{missing}", None, "is missing: a region needs both ranges", "give it, too")
    else:
        points = region_points(list(label.rs_range), list(label.temperature_range), label.num_states, config.seed)
    states = [LabelState(n, point.rs, point.temperature_kelvin) for n in label.num_atoms for point in points]
    if not states or len(set(states)) < len(states):
        raise CommandError("label.num_atoms and label.rs must be lists of different numbers, such as [8,16] and [1.25]")
    for state in states:
        state.cell  # noqa: B018  refuses impossible numbers
        if state.num_atoms % 2:
            reason = f"must be even in {list(config.label.num_atoms)}: half of the electrons are up, half are down"
            raise SettingError("label.num_atoms", state.num_atoms, reason, f"set it to {state.num_atoms + 1}")
        check_memory(state.num_atoms, "label.num_atoms")
    return states


def _parts(config: DictConfig, states: list[LabelState], progress: Progress) -> dict[str, Any]:
    """What LabelRun takes beside the store, the labeller and the states."""
    label = config.label
    given = None
    if label.configurations_path is not None:
        given = read_configurations(data_file(label.configurations_path), states, label.num_configurations)
    start_potential = instantiate(label.start_potential)
    with key_errors(config, "label.start_potential"):
        for state in states:
            start_potential.check(torch.zeros(state.num_atoms, 3), state.cell)
    return {
        "start_potential": start_potential,
        "num_configurations": label.num_configurations,
        "rounds": label.rounds,
        "given": given,
        "train": partial(instantiate(label.trainer), progress=partial(progress, "train a potential")),
        "chains": instantiate(label.chains),
        "committee": instantiate(label.committee),
        "num_force_checks": label.num_force_checks,
        "seed": config.seed,
    }
