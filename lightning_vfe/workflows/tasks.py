"""What the trainings have in common for a run, and the little in which they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from omegaconf import DictConfig
from typing_extensions import override

from lightning_vfe.errors import SettingError
from lightning_vfe.workflows.build import build_state, check_structure, resume_structure, round_walkers
from lightning_vfe.workflows.guards import instantiate, key_errors
from lightning_vfe.workflows.memory import check_features, check_memory, check_walkers
from lightning_vfe.workflows.restore import check_same_potential
from lightning_vfe.workflows.run_config import embedded_config
from lightning_vfe.workflows.shipped_wavefunction import choose_start
from lightning_vfe.workflows.system import check_protons, strata_of

Rows = list[tuple[str, str]]


class Task(Protocol):
    """One kind of training: how its config becomes a LightningModule and a LightningDataModule, and what is checked.

    A config needs the nodes `module` and `datamodule`; what they offer beyond Lightning is looked for, not demanded.
    """

    def prepare(self, config: DictConfig, may_round: bool) -> str:
        """Look at numbers that need no network, before slow imports; returns what was changed, or nothing.

        Args:
            config: the composed config; may be changed.
            may_round: the number of proton walkers is a default, which may be raised to one that can be dealt.
        """
        ...

    def build(self, config: DictConfig) -> tuple[Any, Any]:
        """The LightningModule and the LightningDataModule, in the current default dtype."""
        ...

    def resume(self, config: DictConfig, module: Any, content: Mapping[str, Any]) -> str:
        """Take from a checkpoint what the module is built with; returns a line for the user, or nothing.

        Raises:
            SettingError: what the module was built with is not what the checkpoint's run had.
        """
        ...

    def check(self, config: DictConfig, module: Any, datamodule: Any, trainer: Any) -> None:
        """Look over what the run computes with before its folder is made.

        Raises:
            SettingError: something cannot be used.
        """
        ...

    def describe(self, verb: str, module: Any, datamodule: Any, num_processes: int) -> Rows:
        """What the banner says."""
        ...


class VariationalTask(Task):
    """Flow and wavefunction: module and datamodule share one state, that is networks, moves and walkers."""

    @override
    def prepare(self, config: DictConfig, may_round: bool) -> str:
        """System, state points and number of walkers."""
        check_protons(config)
        if config.sampler.num_groups < 1:
            raise SettingError("sampler.num_groups", config.sampler.num_groups, "must be at least 1")
        with key_errors(config):
            strata = strata_of(config)
            check_memory(config.system.num_atoms)
            check_features(config)
            check_walkers(config)
            choose_start(config, strata.points)
            return round_walkers(config) if may_round else ""

    @override
    def build(self, config: DictConfig) -> tuple[Any, Any]:
        """Both with one state."""
        state = build_state(config)
        return instantiate(config.module, state=state), instantiate(config.datamodule, state=state)

    @override
    def resume(self, config: DictConfig, module: Any, content: Mapping[str, Any]) -> str:
        """The protons' structure, and the potential of the base."""
        check_same_potential(config, module, content)
        note, stored = resume_structure(config, module.state, content), embedded_config(content)
        if stored is None or stored.system.structure == config.system.structure:
            return note
        began, remedy = stored.system.structure, "drop it, or start a new run with fit"
        if note:
            reason = f"holds other positions than those of the checkpoint, which began at {began}"
            raise SettingError("system.structure", config.system.structure, reason, remedy)
        if not module.state.is_fixed:
            reason = f"has no effect, since the walkers of the checkpoint continue, which began at {began}"
            remedy += " init_from=RUN trainer.max_steps=1"
            raise SettingError("system.structure", config.system.structure, reason, remedy)
        return note

    @override
    def check(self, config: DictConfig, module: Any, datamodule: Any, trainer: Any) -> None:
        """Walker groups divide into the processes, and the protons' structure fits the cell."""
        module.state.counts.share(trainer.world_size)
        if isinstance(module.state.structure, str) and module.state.system.num_protons:
            check_structure(config, module.state.strata)

    @override
    def describe(self, verb: str, module: Any, datamodule: Any, num_processes: int) -> Rows:
        """System, walkers, networks, and for `fit` the cost of an update."""
        from lightning_vfe.training.variational.description import describe_state, describe_updates

        rows = describe_state(module.state, num_processes)
        if verb == "fit":
            rows += describe_updates(module.optimizer_settings, module.state, num_processes)
        return rows


class DataTask(Task):
    """Any training on given data, such as a potential on labels or a flow on configurations."""

    @override
    def prepare(self, config: DictConfig, may_round: bool) -> str:
        """Nothing to look at before the data are read."""
        return ""

    @override
    def build(self, config: DictConfig) -> tuple[Any, Any]:
        """Each of its own node."""
        return instantiate(config.module), instantiate(config.datamodule)

    @override
    def resume(self, config: DictConfig, module: Any, content: Mapping[str, Any]) -> str:
        """The potential that a correction is added to."""
        check_same_potential(config, module, content)
        return ""

    @override
    def check(self, config: DictConfig, module: Any, datamodule: Any, trainer: Any) -> None:
        """The data can be read, and fit the module."""
        if hasattr(datamodule, "read"):
            datamodule.read(trainer.world_size)
        if hasattr(module, "check"):
            module.check(datamodule)

    @override
    def describe(self, verb: str, module: Any, datamodule: Any, num_processes: int) -> Rows:
        """What datamodule and module say of themselves."""
        parts = [part.description() for part in (datamodule, module) if hasattr(part, "description")]
        return [row for part in parts for row in part.items()]


def task_of(config: DictConfig) -> Task:
    """The task of a config: one with a variational state has walkers, any other has data."""
    return VariationalTask() if "state" in config else DataTask()
