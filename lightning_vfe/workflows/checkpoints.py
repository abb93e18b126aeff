"""Read a checkpoint before a run uses it: is it whole?"""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_vfe.errors import SettingError, one_line

TRAINING_ENTRIES = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step")
"""What Lightning writes into the checkpoint of a run that can be resumed."""
_OTHER = "take another checkpoint, such as the step-N.ckpt beside it"


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
        advice = (
            f"the newest complete one beside it is {key}={older}" if older else "take a copy, or start again with fit"
        )
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
    states = content["optimizer_states"] if resumes else ()
    if resumes and not (isinstance(states, list) and states and all(map(_is_optimizer_state, states))):
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


def check_counters(content: Mapping[str, Any], path: object) -> None:
    """Make sure that the counters of a checkpoint are counts: from them follows what is left to do.

    Raises:
        SettingError: the first one that is not.
    """
    for name in ("epoch", "global_step"):
        count = content.get(name, 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise SettingError("ckpt_path", path, f"holds {name} = {repr(count)[:40]}, which is no count", _OTHER)


def _is_optimizer_state(saved: Any) -> bool:
    """Whether an entry has the layout of `torch.optim.Optimizer.state_dict`."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
        return False
    groups = saved.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(each, Mapping) and "params" in each for each in groups):
        return False
    numbers = [number for group in groups for number in group["params"]]
    return set(saved["state"]) <= set(numbers) and all(isinstance(each, Mapping) for each in saved["state"].values())
