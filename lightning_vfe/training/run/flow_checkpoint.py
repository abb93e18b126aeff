"""Take the flow of one run's checkpoint into the module of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lightning_vfe.errors import SettingError

FLOW_PREFIX = "proton_density.flow."


def load_flow(flow: nn.Module, content: Mapping[str, Any], name: str) -> None:
    """Copy the flow's parameters from the content of a checkpoint, of a maximum-likelihood or of a variational run.

    Number of atoms and rs may differ, since no parameter's shape depends on them: the flow of a neighbouring state
    point is a fair start.

    Args:
        flow: gets the parameters, in place.
        content: of the checkpoint, with its `state_dict`.
        name: of the checkpoint, for messages.

    Raises:
        ValueError: the checkpoint has no flow, one of other sizes, or numbers that are not finite.
    """
    saved = {key[len(FLOW_PREFIX) :]: value for key, value in content["state_dict"].items() if FLOW_PREFIX in key}
    if not saved:
        raise SettingError(
            "flow_ckpt",
            name,
            "holds no flow",
            "give the checkpoint of a run with moving protons, such as experiment=flow_mle_rs1p25_6000K",
        )
    own = flow.state_dict()
    for key in [*own, *(key for key in saved if key not in own)]:
        here, there = (tuple(state[key].shape) if key in state else "absent" for state in (own, saved))
        if here != there:
            raise SettingError(
                "flow_ckpt",
                name,
                f"is of another flow: parameter {key} is {here} here but {there} in it",
                "set the keys flow.* as in that run",
            )
        if not bool(saved[key].isfinite().all()):
            raise SettingError(
                "flow_ckpt", name, f"holds numbers that are not finite in {key}", "take another checkpoint"
            )
    flow.load_state_dict(saved)
