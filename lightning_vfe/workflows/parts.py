"""Module and datamodule of a plan, with what a checkpoint or another run gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_vfe.workflows.boundary import base_note
from lightning_vfe.workflows.checkpoints import check_content, check_counters, load_checkpoint
from lightning_vfe.workflows.compatibility import check_same_model, check_same_optimizer, check_steps_left
from lightning_vfe.workflows.plan import Plan
from lightning_vfe.workflows.restore import check_same_shapes
from lightning_vfe.workflows.run_config import embedded_config
from lightning_vfe.workflows.start import start_networks
from lightning_vfe.workflows.tasks import Task


def load_content(plan: Plan) -> Mapping[str, Any]:
    """The checkpoint of a plan, which fits its config; empty where there is none.

    Raises:
        CommandError: it is damaged or edited, of another model or optimizer, or has no steps left to train.
    """
    config, content = plan.config, load_checkpoint(plan.ckpt_path) if plan.ckpt_path is not None else {}
    stored = embedded_config(content)
    if stored is not None:
        # a measurement with other random numbers; other tasks split their data by the seed
        check_same_model(config, stored, other_seed=plan.verb != "fit" and "state" in config)
        if plan.verb == "fit":
            check_same_optimizer(config, stored)
    if plan.verb == "fit":
        check_counters(content, plan.ckpt_path)
    if plan.verb == "fit" and not plan.may_be_done:
        check_steps_left(config, content)
    return content


def build_parts(plan: Plan, task: Task, content: Mapping[str, Any], say: Callable[[str], None]) -> tuple[Any, Any]:
    """The LightningModule and the LightningDataModule, in the current default dtype.

    Args:
        plan: what is run.
        task: of its config.
        content: of its checkpoint.
        say: called with lines on what they start from.

    Raises:
        CommandError: a value that a constructor refuses, or a checkpoint that does not fit.
    """
    config = plan.config
    module, datamodule = task.build(config)
    if plan.verb == "fit" and hasattr(datamodule, "check_fit"):
        datamodule.check_fit()
    if content:
        names = [name for name, _ in module.named_parameters()]
        check_content(content, plan.ckpt_path, names, resumes=plan.verb == "fit")
        check_same_shapes(module.state_dict(), content["state_dict"], plan.ckpt_path)
        lines = [task.resume(config, module, content)]
    else:
        lines = start_networks(module, config)
    if plan.verb == "fit":
        lines.append(base_note(config))
    for line in lines:
        if line:
            say(line)
    return module, datamodule
