"""The keys `system.*` as objects."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import SettingError

JELLIUM = "lightning_vfe.JelliumWavefunction"
"""The wavefunction that takes no protons."""
HYDROGEN = ("lightning_vfe.GeminalWavefunction", "lightning_vfe.MolecularWavefunction")
"""The wavefunctions that need some."""


def strata_of(config: DictConfig) -> Any:
    """System and state points of the keys `system.*`, checked.

    Raises:
        ValueError: a value is out of its range.
    """
    from lightning_vfe.physics.strata import Strata
    from lightning_vfe.physics.system import System

    keys: Any = OmegaConf.to_container(config.system, resolve=True)
    System(keys.pop("num_atoms"), keys.pop("nucleus"), protons=keys["protons"])
    keys.pop("structure")
    return Strata.of(**keys)


def check_protons(config: DictConfig) -> None:
    """Refuse protons that do not exist, and those that do not fit to wavefunction or sampler.

    Raises:
        SettingError: names the key and the one to set.
    """
    from lightning_vfe.physics.system import NO_PROTONS, PROTONS

    protons, wavefunction = config.system.protons, config.wavefunction.get("_target_")
    if protons not in PROTONS:
        raise SettingError("system.protons", protons, "does not exist", f"there is: {', '.join(PROTONS)}")
    if protons == NO_PROTONS and wavefunction in HYDROGEN:
        reason = "leaves no protons for the wavefunction of hydrogen"
        raise SettingError("system.protons", NO_PROTONS, reason, "set wavefunction=jellium")
    if protons != NO_PROTONS and wavefunction == JELLIUM:
        reason = f"has no protons, but system.protons = {protons}"
        raise SettingError("wavefunction", "jellium", reason, "set system.protons=none, or wavefunction=geminal")
