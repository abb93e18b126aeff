"""Is a checkpoint of the same system and networks as a config, and is there something left to do?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import SettingError
from lightning_vfe.resources import data_file
from lightning_vfe.workflows.overrides import is_path_key

# these keys shape the walkers, which are those of the checkpoint
WALKER_KEYS = ("sampler.num_proton_walkers", "sampler.num_electron_walkers", "sampler.num_groups")
# a resumed run keeps its random numbers (or its split into training and test data) and its dtype
RUN_KEYS = ("dtype", "seed")
OF_THE_USE = ("system.", "reference.", "num_plane_waves", "open_shell")
"""Keys of the networks that say where they are used, not what they are."""
MODEL_GROUPS = ("system", "base", "flow", "wavefunction", "potential")


def check_same_model(config: DictConfig, checkpoint_config: DictConfig, other_seed: bool = False) -> None:
    """Compare system, base, flow, wavefunction and the numbers of walkers of a config with the checkpoint's.

    Args:
        config: of the command.
        checkpoint_config: of the run that wrote the checkpoint.
        other_seed: the seed may be another one.

    Raises:
        CommandError: the first key that differs, with both values.
    """
    here, there = _flat(config), _flat(checkpoint_config)
    groups: tuple[str, ...] = MODEL_GROUPS
    if here.get("system.protons") == there.get("system.protons") and here.get("system.protons") in ("fixed", "none"):
        groups = ("system", "wavefunction")
    keys = [key for key in {**here, **there} if key.partition(".")[0] in groups]
    for key in (*keys, *WALKER_KEYS, *(key for key in RUN_KEYS if not (other_seed and key == "seed"))):
        if is_path_key(key) and here.get(key) is not None and data_file(here[key]).is_file():
            continue  # what a file holds is compared later, not where it lies
        if key == "system.structure" and here.get("system.protons") != "fixed":
            continue  # only where the sampled protons once began
        if here.get(key) != there.get(key):
            advice = f"keep that of the checkpoint, use the checkpoint of such a run, or start one with fit {key}=..."
            if key in WALKER_KEYS:
                advice = "keep that of the checkpoint, which brings walkers; datamodule.test_steps gives more samples"
            if key in RUN_KEYS:
                advice = f"keep it, the other would change nothing or mix two runs; a new run takes fit {key}=..."
            raise SettingError(key, here.get(key), f"here but {there.get(key)} in the checkpoint", advice)


def check_same_optimizer(config: DictConfig, checkpoint_config: DictConfig) -> None:
    """Refuse to resume with another class of optimizer or of PyTorch's scheduler; settings of a class may change.

    Raises:
        CommandError: the first class that differs.
    """
    here, there = _flat(config), _flat(checkpoint_config)
    own, trained = (str(flat.get("optimizer._target_")).rpartition(".")[2] for flat in (here, there))
    if own != trained:
        reason = f"but the checkpoint was trained with {trained}"
        raise SettingError("optimizer", own, reason, "resume with that, or start a new run")
    for part in ("optimizer", "scheduler"):
        new, old = (flat.get(f"optimizer.{part}._target_") for flat in (here, there))
        if new != old:
            reason = f"but the checkpoint was trained with {old or 'none'}"
            raise SettingError(f"optimizer.{part}", new, reason, "resume with that, or start a new run with fit")


def check_steps_left(config: DictConfig, content: Mapping[str, Any]) -> None:
    """Make sure that `fit` has something to do beyond a checkpoint.

    Raises:
        CommandError: the checkpoint is at the last step or epoch already.
    """
    batches = content.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    done = {
        "step": ("trainer.max_steps", content.get("global_step", 0)),
        "the end of epoch": ("trainer.max_epochs", content.get("epoch", 0) + bool(batches.get("is_last_batch"))),
    }
    for what, (key, count) in done.items():
        limit = OmegaConf.select(config, key)
        if limit is not None and 0 < limit <= count:
            raise SettingError(key, limit, f"but the checkpoint is at {what} {count}", f"raise {key}")


def check_same_network(config: DictConfig, checkpoint_config: DictConfig, group: str, path: Path) -> None:
    """Compare the settings of the flow or the wavefunction with those of a checkpoint; where they are used may differ.

    Raises:
        CommandError: the first key that differs, with both values.
    """
    here, there = _flat(config), _flat(checkpoint_config)
    for key in here:
        if not key.startswith(f"{group}.") or key.removeprefix(f"{group}.").startswith(OF_THE_USE):
            continue
        if here[key] != there.get(key):
            is_class = key == f"{group}._target_"
            advice = f"give a run with the same {group}" if is_class else f"start with {key}={there.get(key)}"
            raise SettingError(key, here[key], f"here but {there.get(key)} in {path}", advice)


def _flat(config: DictConfig) -> dict[str, Any]:
    """Dotted leaves of the resolved config; equal numbers compare equal whether whole or not."""
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                walk(child, f"{prefix}.{key}" if prefix else str(key))
        else:
            flat[prefix] = node

    walk(OmegaConf.to_container(config, resolve=True), "")
    return flat
