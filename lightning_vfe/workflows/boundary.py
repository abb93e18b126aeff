"""Whether a run's base belongs to the boundary conditions of its electrons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.labels.boundary import label_twists, twists_name
from lightning_vfe.models.base.log_z import shipped_potentials
from lightning_vfe.models.potential.storage import load_potential
from lightning_vfe.physics.state_point import StatePoint
from lightning_vfe.physics.twists import TwistGrid
from lightning_vfe.resources import data_file
from lightning_vfe.workflows.system import strata_of

BASE = "lightning_vfe.BoltzmannBase.from_files"


def base_note(config: DictConfig) -> str:
    """A line for the user where the labels of the base's potential had other twists than the electrons.

    Such a base is allowed: F remains an upper bound. The flow then has to learn the difference of the two energies.

    Args:
        config: of a variational run.

    Returns:
        The line; nothing where both agree, where there is no potential, or where its labels do not tell.
    """
    if OmegaConf.select(config, "base._target_") != BASE or config.system.protons != "sampled":
        return ""
    path, strata = config.base.potential_path, strata_of(config)
    labels = _label_twists(data_file(path))
    if labels is None or labels.is_same_average(strata.twists):
        return ""
    fitting = _shipped_for(strata.points, config.system.num_atoms, strata.twists)
    remedy = f"; base.potential_path={fitting} has those of the electrons" if fitting else ""
    return (
        f"labels of base.potential_path={path}: {twists_name(labels)}; electrons: {twists_name(strata.twists)}; "
        f"F stays an upper bound, but the correction of the base is larger{remedy}"
    )


def _label_twists(file: str | Path) -> TwistGrid | None:
    """Twists of the labels that a stored potential was fitted to."""
    label = load_potential(file)[1]["label"]
    calculator = label.get("calculator") if isinstance(label, Mapping) else None
    return label_twists(calculator) if isinstance(calculator, Mapping) else None


def _shipped_for(points: Sequence[StatePoint], num_atoms: int, twists: TwistGrid) -> str | None:
    """A shipped potential with labels of these twists and a ln Z at these state points, by its path inside data/."""
    each = [shipped_potentials(num_atoms, point.rs, point.temperature_kelvin) for point in points]
    for path in [path for path in each[0] if all(path in others for others in each)]:
        labels = _label_twists(data_file(path))
        if labels is not None and labels.is_same_average(twists):
            return path
    return None
