"""Refuse settings of the command line that would change nothing."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import SettingError
from lightning_vfe.workflows.keys import references
from lightning_vfe.workflows.overrides import Overrides

TWISTS = ("system.twists", "system.twist_symmetry", "system.twist_shift")
UNUSED = {
    "label": {
        "system.protons": "label samples the protons",
        "system.structure": "label.configurations_path names given configurations",
        "system.states": "label.num_atoms and label.rs list the states",
        **dict.fromkeys(TWISTS, "this calculator does not read it"),
    },
    "log-z": {
        "system.protons": "log-z integrates over all protons",
        "system.structure": "log-z starts its chains at random",
        **dict.fromkeys(TWISTS, "a potential has no twists"),
    },
}
"""Keys that a verb does not read, with what holds in their place; a calculator of `label` may read some of them."""

OF_PROTONS = ("base", "flow", "system.nucleus", "system.structure", "system.temperature_kelvin")


def check_effects(verb: str, config: DictConfig, overrides: Overrides) -> None:
    """Refuse overrides without an effect.

    Args:
        verb: of the command.
        config: with the overrides.
        overrides: of the command line.

    Raises:
        SettingError: the first such key.
    """
    system, unused = config.get("system") or {}, dict(UNUSED.get(verb, {}))
    if system.get("states") is not None:
        unused |= dict.fromkeys(("system.rs", "system.temperature_kelvin"), "system.states lists the states")
    if "state" in config and system.get("protons") == "fixed":
        unused["system.temperature_kelvin"] = "fixed protons have no temperature"
        unused |= dict.fromkeys(("base", "flow"), "fixed protons have no distribution")
    if verb == "label":
        for key in references(OmegaConf.to_container(config.calculator, resolve=False)):
            unused.pop(key, None)
    if verb == "label" and config.label.rs_range is not None:
        unused |= dict.fromkeys(("system.rs", "label.rs"), "label.rs_range has the densities")
    if verb == "label" and config.label.rs_range is None:
        unused["label.num_states"] = "label.rs_range and label.temperature_range are null"
    if "state" in config and system.get("protons") == "none":
        unused |= dict.fromkeys(OF_PROTONS, "system.protons=none has no protons")
    if "target_error" in config and config.target_error is None:
        unused["datamodule.max_test_steps"] = "target_error is null"
    for override in overrides.keys:
        key = override.key_or_group
        home = next((name for name in unused if key == name or key.startswith(f"{name}.")), None)
        if home is not None:
            raise SettingError(key, override.value(), f"has no effect, since {unused[home]}", "drop it")
