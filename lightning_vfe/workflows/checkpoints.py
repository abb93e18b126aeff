"""Look into a checkpoint before a run uses it: is it whole, and of the same system and networks?"""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_vfe import __version__
from lightning_vfe.errors import CommandError, SettingError, one_line
from lightning_vfe.resources import data_file
from lightning_vfe.workflows.overrides import is_path_key
from lightning_vfe.workflows.schema import check_types

# these keys shape the walkers, which are those of the checkpoint
WALKER_KEYS = ("sampler.num_proton_walkers", "sampler.num_electron_walkers", "sampler.num_groups")
# a resumed run keeps its random numbers (or its split into training and test data) and its dtype
RUN_KEYS = ("dtype", "seed")
TRAINING_ENTRIES = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
"""What Lightning writes into the checkpoint of a run that can be resumed."""
_OTHER = "take another checkpoint, such as the step-N.ckpt beside it"
SCHEMA = 2
"""Layout of the config: configs/config.yaml says the same."""
OF_THE_USE = ("system.", "reference.", "num_plane_waves", "open_shell")
"""Keys of the networks that say where they are used, not what they are."""
MODEL_GROUPS = ("system", "base", "flow", "wavefunction", "potential")


def checkpoint_of(path: str | Path) -> Path:
    """The last checkpoint of a run folder, or the file itself."""
    return Path(path) / "checkpoints" / "last.ckpt" if Path(path).is_dir() else Path(path)


def load_checkpoint(path: Path, key: str = "ckpt_path") -> dict[str, Any]:
    """The content of the checkpoint that a key names, on the CPU.

    A damaged one is not replaced in silence by the one before: a killed run leaves whole files, so that damage points
    to a disk or a copy that went wrong, and the user should know.

    Raises:
        CommandError: the file is missing, damaged, or not a checkpoint of this package.
    """
    if path.is_dir():
        advice = f"give run_dir={path} for the last checkpoint of a run" if key == "ckpt_path" else "give a .ckpt file"
        raise SettingError(key, path, "is a folder", advice)
    if not path.is_file():
        other = ", or ckpt_path=last" if key == "ckpt_path" else ""
        raise SettingError(key, path, "does not exist", f"give a .ckpt file{other}")
    try:
        content = _read(path)
    except _Damaged as error:
        older = newest_whole(path)
        advice = f"the newest whole one beside it is {key}={older}" if older else "take a copy, or start again with fit"
        raise SettingError(key, path, f"is damaged {error}", advice) from error
    except pickle.UnpicklingError as error:
        reason = "holds objects that could run code when loaded, which no checkpoint of lightning-vfe does"
        raise SettingError(key, path, reason, "give one that fit wrote") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise SettingError(key, path, "is not a checkpoint of lightning-vfe", "give one that fit wrote")
    return content


def newest_whole(damaged: Path) -> Path | None:
    """The checkpoint of the latest step in the folder of a damaged one that can be read."""
    from lightning_vfe.training.run.checkpoint_files import checkpoints_by_step

    for _, file in sorted(checkpoints_by_step(damaged.parent).items(), reverse=True):
        try:
            if not file.samefile(damaged) and isinstance(_read(file), dict):
                return file
        except (_Damaged, pickle.UnpicklingError):
            continue
    return None


class _Damaged(Exception):
    """What is wrong with a file, in brackets."""


def _read(path: Path) -> Any:
    """What torch reads from a file whose checksums are right."""
    import torch

    try:
        if not zipfile.is_zipfile(path):
            raise _Damaged("(cut short, or no checkpoint at all)")
        with zipfile.ZipFile(path) as archive:
            broken, names = archive.testzip(), [name.rpartition("/")[2] for name in archive.namelist()]
        if broken is not None:
            raise _Damaged(f"(wrong checksum in {broken})")
        if "constants.pkl" in names or all(name.endswith(".npy") for name in names):
            return None  # a module of TorchScript, or arrays of NumPy
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, KeyError) as error:
        raise _Damaged(f"({one_line(error)[:120]})") from error


def saved_fields(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of the walkers in a checkpoint, such as protons and electrons; empty where it has none."""
    walkers = content.get("walkers")
    fields = walkers.get("fields") if isinstance(walkers, Mapping) else None
    return fields if isinstance(fields, Mapping) else {}


def check_content(content: Mapping[str, Any], path: object, parameters: Iterable[str], resumes: bool) -> None:
    """Refuse a checkpoint that has lost entries, or holds numbers that are not finite, in one line.

    Args:
        content: of the checkpoint.
        path: its file, for the message.
        parameters: names of the parameters of the module.
        resumes: it is to be trained on, and not only measured.

    Raises:
        SettingError: the first thing that is wrong.
    """
    missing = [name for name in TRAINING_ENTRIES if resumes and name not in content]
    if missing:
        raise SettingError("ckpt_path", path, f"has no {missing[0]}, which a resumed run needs", _OTHER)
    for saved in content["optimizer_states"] if resumes else ():
        if not _is_optimizer_state(saved):
            raise SettingError("ckpt_path", path, "holds an optimizer state that is damaged", _OTHER)
    fields = saved_fields(content)
    numbers = {name: content["state_dict"].get(name) for name in parameters}
    numbers |= {name: fields[name] for name in ("protons", "electrons") if name in fields}
    widths = content["walkers"].get("log_widths") if fields else None
    if isinstance(widths, Mapping):
        numbers |= {f"the width of the moves of {name}": each for name, each in widths.items()}
    for name, value in numbers.items():
        if value is not None and not hasattr(value, "isfinite"):
            raise SettingError("ckpt_path", path, f"holds no tensor in {name}", _OTHER)
        if value is not None and not bool(value.isfinite().all()):
            raise SettingError("ckpt_path", path, f"holds numbers that are not finite in {name}", _OTHER)


def _is_optimizer_state(saved: Any) -> bool:
    """Whether an entry has the layout of `torch.optim.Optimizer.state_dict`."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
        return False
    groups = saved.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(each, Mapping) and "params" in each for each in groups):
        return False
    numbers = [number for group in groups for number in group["params"]]
    return set(saved["state"]) <= set(numbers) and all(isinstance(each, Mapping) for each in saved["state"].values())


def embedded_config(content: Mapping[str, Any]) -> DictConfig | None:
    """The config that the run wrote into its checkpoint; None for one written without the command line."""
    from lightning_vfe.training.run.run_folder import CONFIG_KEY

    text = content.get(CONFIG_KEY)
    if text is None:
        return None
    try:
        config = OmegaConf.create(text)
    except Exception as error:  # YAML and OmegaConf each have errors of their own
        raise CommandError(f"the config in the checkpoint cannot be read: {one_line(error)[:200]}") from error
    if not isinstance(config, DictConfig):
        raise CommandError("the checkpoint holds no settings of a run; give one that fit wrote")
    check_schema(config, "the checkpoint")
    return config


def check_schema(config: Mapping[str, Any], where: object) -> None:
    """Refuse the config of a run that a version with another layout has made.

    Raises:
        CommandError: it is one.
    """
    found = config.get("schema", 1)
    if found != SCHEMA:
        raise CommandError(
            f"{where} was made by another version of lightning-vfe (its config has schema {found}, this version, "
            f"{__version__}, has {SCHEMA}); continue and measure it with that version, or start a new run with fit"
        )


def check_readable(config: DictConfig, where: object) -> None:
    """Refuse the config of a run that has keys which this version does not take.

    Raises:
        CommandError: it has one; the message names the version that made the run.
    """
    check_schema(config, where)
    try:
        check_types(config)
    except SettingError as error:
        made = config.get("version")
        if made == __version__:
            raise CommandError(f"{where}: {error}") from error
        by = f"version {made}" if made else "another version"
        raise CommandError(
            f"{where} was made by {by} of lightning-vfe, and this is version {__version__}: {error}; continue and "
            "measure it with that version, or start a new run with fit"
        ) from error


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
    """Refuse to resume with another class of optimizer or scheduler of PyTorch; settings of a class may change.

    Raises:
        CommandError: the first class that differs.
    """
    here, there = _flat(config), _flat(checkpoint_config)
    if here.get("optimizer._target_") != there.get("optimizer._target_"):
        return  # the training refuses it, by the name that the checkpoint holds
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
