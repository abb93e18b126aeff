"""The calculator of a config, as what labels configurations."""

from __future__ import annotations

import hashlib
import pydoc
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.errors import SettingError, one_line
from lightning_vfe.labels.calculators.vmc import VMCLabeller
from lightning_vfe.labels.database import LabelState
from lightning_vfe.labels.label import Labeller, by_length
from lightning_vfe.labels.workers import ProcessLabeller
from lightning_vfe.physics.twists import twist_grid
from lightning_vfe.workflows.checkpoints import checkpoint_of, load_checkpoint
from lightning_vfe.workflows.guards import instantiate
from lightning_vfe.workflows.restore import restore
from lightning_vfe.workflows.run_config import check_readable, embedded_config
from lightning_vfe.workflows.system import strata_of

KEY = "calculator._target_"


def build_labeller(config: DictConfig, states: list[LabelState]) -> tuple[Labeller, dict[str, Any], str]:
    """What labels configurations, the calculator's `_target_` with its settings, and its program with its version.

    Raises:
        CommandError: the calculator does not exist, or does not take these settings.
    """
    import ase

    settings: Any = OmegaConf.to_container(config.calculator, resolve=True)
    target = settings.get("_target_")
    if _class_of(target) is VMCLabeller:
        return _vmc_labeller(config, settings, states)
    make_calculator = _build(config.calculator, _partial_=True)
    try:
        calculator = make_calculator()  # a missing program or a wrong setting is known before anything is sampled
    except (TypeError, ImportError) as error:
        raise SettingError(KEY, target, f": {one_line(error)}") from error
    if not hasattr(calculator, "implemented_properties"):
        raise SettingError(KEY, target, "is no ASE calculator", "give the class of one")
    program = getattr(calculator, "program_version", target)
    return ProcessLabeller(make_calculator, config.label.num_processes), settings, f"{program}, ASE {ase.__version__}"


def _class_of(target: Any) -> Any:
    """The object that a `_target_` names, or None."""
    return pydoc.locate(str(target))


def _vmc_labeller(
    config: DictConfig, settings: dict[str, Any], states: list[LabelState]
) -> tuple[Labeller, dict[str, Any], str]:
    """The same for the wavefunction in a checkpoint, built from the config in it."""
    key = "calculator.ckpt_path"
    if not config.calculator.ckpt_path:
        raise SettingError(key, None, "must name the run of a trained wavefunction: its folder or a .ckpt file")
    path = checkpoint_of(config.calculator.ckpt_path)
    content = load_checkpoint(path, key=key)
    trained = embedded_config(content)
    if trained is None or "wavefunction" not in trained:
        raise SettingError(key, path, "holds no config with a wavefunction", "give a run made by fit")
    check_readable(trained, path)
    densities = [point.rs for point in strata_of(trained).points]
    for state in states:
        if state.num_atoms != trained.system.num_atoms or state.rs not in densities:
            raise SettingError(
                key,
                path,
                f"is of num_atoms = {trained.system.num_atoms}, rs = {trained.system.rs}",
                f"set system.num_atoms={trained.system.num_atoms} system.rs={densities[0]}, not {state.num_atoms} and "
                f"{state.rs}",
            )
    _check_twists(config, trained)
    wavefunction, system = instantiate(trained.wavefunction), instantiate(trained.particles)
    restore(wavefunction, content, "wavefunction", key, path)
    settings["checkpoint_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    node = config.calculator.copy()
    node._set_parent(config)
    del node.ckpt_path
    make = _build(node, _partial_=True)
    given = {"system": system, "wavefunction": wavefunction}
    each = {
        state.cell.length: make(**given, rs=state.rs, seed=config.calculator.seed + number)
        for number, state in enumerate(states)
    }
    return by_length(each), settings, f"lightning-vfe {__version__}"


def _check_twists(config: DictConfig, trained: DictConfig) -> None:
    """A wavefunction is trained at its twists: at others its energies are far too high."""
    given, known = twist_grid(config.calculator.twists), strata_of(trained).twists
    if known.is_random or given.is_same_average(known):
        return
    of_run = trained.system.twists
    if any(trained.system.twist_shift):  # a list of vectors with their weights says the same
        of_run = torch.cat([known.fractions, known.weights.unsqueeze(-1)], dim=-1).tolist()
    reason = f"are not the twists of the wavefunction in {config.calculator.ckpt_path}"
    raise SettingError("system.twists", config.calculator.twists, reason, f"set system.twists={of_run}")


def _build(node: DictConfig, **arguments: Any) -> Any:
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        raise SettingError(KEY, node._target_, f"cannot be used: {one_line(error)}") from error
