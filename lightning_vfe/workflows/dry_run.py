"""What a run would cost: a few of its steps, timed, which write nothing."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig

from lightning_vfe.progress import words
from lightning_vfe.workflows.build import build_trainer
from lightning_vfe.workflows.guards import default_dtype, instantiate, key_errors, memory_bound
from lightning_vfe.workflows.parts import build_parts, load_content
from lightning_vfe.workflows.plan import Plan
from lightning_vfe.workflows.run import Observer, silent
from lightning_vfe.workflows.schema import check_types
from lightning_vfe.workflows.tasks import Rows, task_of

ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto", "max_time": None}
"""Settings of the trainer that times the steps."""
PROBED_SWEEPS = 2


def dry_run(plan: Plan, observer: Observer) -> None:
    """Look over a run as `run` does, take a few steps, and say what all of them would cost.

    One process takes the steps, also for a run of several.

    Args:
        plan: what would run.
        observer: hears the lines and the rows of the banner.

    Raises:
        CommandError: as `run`.
    """
    config, task = plan.config, task_of(plan.config)
    check_types(config)
    note = task.prepare(config, plan.may_round_walkers)
    for line in (*plan.notes, *([note] if note else [])):
        observer.say(line)
    from lightning_vfe.training.run.launch import configure_logging_and_seed

    content = load_content(plan)
    configure_logging_and_seed(config.seed)
    with default_dtype(config.dtype), key_errors(config), memory_bound(config):
        module, datamodule = build_parts(plan, task, content, observer.say)
        real = build_trainer(config, plan.verb, silent, progress=False)
        task.check(config, module, datamodule, real)
        rows = task.describe(plan.verb, module, datamodule, real.world_size)
        rows += _cost(plan, config, module, datamodule, is_new=not content)
        observer.begin(plan, rows)


def _cost(plan: Plan, config: DictConfig, module: Any, datamodule: Any, is_new: bool) -> Rows:
    """Time and memory."""
    from lightning_vfe.physics.memory import free_memory, peak_memory, size_text
    from lightning_vfe.training.resumed_optimizer import ResumedOptimizer
    from lightning_vfe.training.run.cost_probe import CostProbe, Enough

    sweeps = getattr(datamodule, "equilibration_steps", 0) if is_new or plan.verb != "fit" else 0
    if sweeps:
        datamodule.equilibration_steps = min(sweeps, PROBED_SWEEPS)
    probe = CostProbe()
    given = {key: value for key, value in ONE_PROCESS.items() if key in config.trainer}
    given |= {"callbacks": [probe, ResumedOptimizer()], "logger": False}
    trainer = instantiate(config.trainer, enable_progress_bar=True, enable_checkpointing=False, **given)
    device = trainer.strategy.root_device
    free = free_memory(device)
    with suppress(Enough), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the checkpoint holds for other callbacks is not missed
        getattr(trainer, plan.verb)(module, datamodule=datamodule, ckpt_path=plan.ckpt_path, weights_only=True)
    if probe.num_steps is None:
        time = f"{probe.step_seconds:.3g} s for a step, without a limit on their number"
    else:
        total = probe.num_steps * probe.step_seconds + sweeps * probe.sweep_seconds
        time = f"about {words(total)}: {probe.num_steps} steps of {probe.step_seconds:.2g} s"
    if sweeps:
        time += f", and {sweeps} sweep{'s' if sweeps > 1 else ''} of {probe.sweep_seconds:.2g} s before them"
    if config.trainer.get("max_time"):
        time += f"; trainer.max_time={config.trainer.max_time} ends it earlier"
    memory = f"{size_text(peak_memory(device))} at most" + (f"; {size_text(free)} were free" if free else "")
    return [("time", time), ("memory", memory), ("timed on", f"1 process ({device.type})")]
