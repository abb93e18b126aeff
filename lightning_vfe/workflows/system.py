"""The keys `system.*` as objects."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def strata_of(config: DictConfig) -> Any:
    """System and state points of the keys `system.*`, checked.

    Raises:
        ValueError: a value is out of its range.
    """
    from lightning_vfe.physics.strata import Strata
    from lightning_vfe.physics.system import System

    keys: Any = OmegaConf.to_container(config.system, resolve=True)
    System(keys.pop("num_atoms"), keys.pop("nucleus"))
    keys.pop("structure")
    return Strata.of(**keys)
