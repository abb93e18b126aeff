"""What is computed, as checkpoints and summaries say it, and the published values of the same system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning_vfe.analysis.published import nearest_published
from lightning_vfe.analysis.states import State
from lightning_vfe.errors import SettingError
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.system import NO_PROTONS
from lightning_vfe.state.variational_state import VariationalState


def system_entry(state: VariationalState) -> dict[str, Any]:
    """What is computed, as checkpoints and summaries say it."""
    system, points = state.system, state.strata.points
    if system.num_protons:
        content: dict[str, Any] = {"num_atoms": system.num_atoms, "nucleus": system.nucleus}
        content["protons"] = "fixed" if state.is_fixed else "sampled"
    else:
        content = {"num_atoms": system.num_atoms, "protons": NO_PROTONS}
    if len(points) > 1:
        return content | {"states": [[point.rs, point.temperature_kelvin] for point in points]}
    content["rs"] = points[0].rs
    return content if state.is_fixed else content | {"temperature_kelvin": points[0].temperature_kelvin}


def check_same_system(state: VariationalState, saved: Mapping[str, Any]) -> None:
    """Compare the system with the entry of a checkpoint.

    Raises:
        SettingError: the first key that differs, with both values.
    """
    own = system_entry(state)
    if set(saved) != set(own):
        raise SettingError("system", own, f"but the checkpoint was made with {saved}", "choose one of this system")
    for key, value in own.items():
        if saved.get(key) != value:
            reason = f"but the checkpoint was made with {saved.get(key)}"
            remedy = f"set system.{key}={saved.get(key)} or choose the checkpoint of this system"
            raise SettingError(key, value, reason, remedy)


def published_values(state: VariationalState, point: StatePoint) -> list[dict[str, Any]]:
    """The published values nearest to a state point; none of jellium, since the table is that of hydrogen."""
    if not state.system.num_protons:
        return []
    twists = state.strata.twists
    num_twists = math.inf if twists.is_random else float(twists.num_averaged)
    if num_twists == 1 and not twists.is_gamma:
        num_twists = math.nan
    structure = state.structure if isinstance(state.structure, str) else ""
    return nearest_published(system_entry(state), State(point.rs, point.temperature_kelvin), num_twists, structure)
