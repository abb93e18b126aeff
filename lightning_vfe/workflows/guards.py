"""Around all that a command builds and runs: its dtype, memory and disk, and one line for what the user can fix."""

import copy
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from lightning_vfe.errors import CommandError, RunError, SettingError, one_line
from lightning_vfe.workflows.imports import import_parts
from lightning_vfe.workflows.keys import locate

TRAINER = "lightning.Trainer"
LOGGERS = "lightning.pytorch.loggers."
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Of a disk that is full, beyond its quota, or broken."""
SIZES = (
    "system.num_atoms",
    "sampler.num_proton_walkers",
    "sampler.num_electron_walkers",
    "log_z.num_chains",
    "label.chains.num_chains",
)
"""Keys on which the memory depends most."""
CHUNKS = ("max_chunk_elements", "optimizer.score_chunk")
"""Keys that bound temporaries."""


@contextmanager
def default_dtype(name: str) -> Iterator[None]:
    """Inside it, new floating-point tensors have this dtype."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def memory_bound(config: DictConfig) -> Iterator[None]:
    """Set the bound of temporaries for this process; inside, an error of the memory becomes one line."""
    from lightning_vfe.physics.chunking import set_max_chunk_elements
    from lightning_vfe.physics.memory import is_out_of_memory

    set_max_chunk_elements(config.get("max_chunk_elements"))
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        sizes = {key: OmegaConf.select(config, key) for key in SIZES}
        shown = "".join(f", {key} = {value}" for key, value in sizes.items() if value is not None)
        chunks = [key for key in CHUNKS if OmegaConf.select(config, key, default="none") != "none"]
        remedy = f"lower {' or '.join(['one of them', *chunks])}, use fewer walkers, or more processes"
        if "log_z" in config or "label" in config:
            remedy = "lower it" if shown.count("=") == 1 else "lower one of them"
        raise CommandError(f"out of memory ({one_line(error)[:200]}){shown}; {remedy}") from error


@contextmanager
def breakdowns() -> Iterator[None]:
    """Inside it, a matrix that cannot be inverted or decomposed becomes one line.

    Raises:
        FloatingPointError: the numbers of the run are not finite.
    """
    from lightning_vfe.physics.numerics import is_breakdown

    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not is_breakdown(error):
            raise
        raise FloatingPointError(f"the numbers of the run are not finite ({one_line(error)[:120]})") from error


@contextmanager
def disk_errors(advice: Callable[[], str]) -> Iterator[None]:
    """Inside it, a disk that takes no more becomes one line.

    Args:
        advice: called then, for what to do once there is space.

    Raises:
        RunError: the disk is full or refuses to write.
    """
    try:
        yield
    except CommandError:
        raise  # says already which file is meant, and what to do
    except Exception as error:
        found = next((each for each in _chain(error) if _is_of_disk(each)), None)
        if found is None:
            raise
        file, reason = getattr(found, "filename", None), getattr(found, "strerror", None) or one_line(found)
        where = f"{os.fsdecode(file)} cannot be written" if file else "the files of the run cannot be written"
        raise RunError(f"{where} ({reason}); those written before are complete: free some space, {advice()}") from error


def _is_of_disk(error: BaseException) -> bool:
    if not isinstance(error, OSError | sqlite3.OperationalError):
        return False
    return getattr(error, "errno", None) in DISK_ERRORS or "disk is full" in str(error)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those behind it: at the end of a run, loggers hide the first one behind their own."""
    found: list[BaseException] = []
    behind: BaseException | None = error
    while behind is not None and behind not in found:
        found.append(behind)
        behind = behind.__cause__ or behind.__context__
    return found


@contextmanager
def kept_folder(folder: Path) -> Iterator[None]:
    """Inside it, a run folder that is deleted or moved becomes one line.

    Raises:
        RunError: the folder, or a file that is written into it, is gone.
    """
    before = threading.excepthook
    # a logger's own thread meets the error first, and hands it over to the run
    threading.excepthook = lambda given: None if isinstance(given.exc_value, OSError) else before(given)
    try:
        yield
    except Exception as error:
        missing = [each.filename for each in _chain(error) if isinstance(each, FileNotFoundError) and each.filename]
        inside = [file for file in map(os.fsdecode, missing) if Path(file).is_relative_to(folder)]
        if folder.exists() and not inside:
            raise
        gone = inside[0] if folder.exists() else folder
        raise RunError(f"{gone} was deleted or moved during the run; the steps since the last save are lost") from error
    finally:
        threading.excepthook = before


@contextmanager
def all_guards(config: DictConfig, advice: Callable[[], str]) -> Iterator[None]:
    """The dtype of a config, and one line for errors of keys, numbers, memory and disk; arguments as of the others."""
    with default_dtype(config.dtype), breakdowns(), key_errors(config), memory_bound(config), disk_errors(advice):
        yield


@contextmanager
def key_errors(config: DictConfig, node: str = "") -> Iterator[None]:
    """Inside it, a setting that is refused is named by its key in the config.

    Args:
        config: the composed config.
        node: key of the node that the arguments of the refused part belong to.
    """
    try:
        yield
    except SettingError as error:
        raise error.at(locate(config, error.key, node)) from error


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Build a node's `_target_`; what a constructor refuses becomes one line, everything else keeps its traceback.

    The modules that the whole config imports come first. The config stays as it is: Hydra would write values in the
    place of references such as `${trainer.max_steps}`, and a resumed run would keep the old values.

    Raises:
        CommandError: a constructor refuses an argument (a `SettingError` names the key of the config), or a module
            cannot be imported.
    """
    import_parts(_root(node))
    try:
        return hydra.utils.instantiate(_in_a_copy(node), **arguments)
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, SettingError):
            cause = cause.__cause__
        target = str(node.get("_target_"))
        if isinstance(cause, SettingError):
            raise cause.at(locate(_root(node), cause.key, _full_key(error))) from error
        if _is_out_of_memory(cause):
            raise _too_large(_root(node), _full_key(error), cause) from error
        if target == TRAINER:
            given = ", ".join(f"trainer.{key} = {node.get(key)}" for key in ("accelerator", "devices", "strategy"))
            raise CommandError(
                f"trainer: {one_line(cause)[:300]} ({given}; auto, 1 and auto suit any machine)"
            ) from error
        if isinstance(cause, ModuleNotFoundError) and not _is_own(error):
            remedy = "install it" + (", or choose logger=csv" if target.startswith(LOGGERS) else "")
            reason = f"needs a package that is not installed ({one_line(cause)[:120]})"
            raise CommandError(f"{target} {reason}; {remedy}") from error
        # what a class of somebody else refuses; a ValueError of our own is a bug
        if isinstance(cause, (TypeError, ValueError)) and not _is_own(error):
            raise CommandError(f"{target}: {one_line(cause)}") from error
        raise


def _in_a_copy(node: DictConfig) -> DictConfig:
    """A copy of a node below a copy of the whole config."""
    parent, own = node._get_parent(), copy.deepcopy(node)
    if parent is not None:
        key, whole = parent._get_full_key(None), copy.deepcopy(_root(node))
        own._set_parent(OmegaConf.select(whole, key) if key else whole)
    return own


def _is_out_of_memory(error: BaseException) -> bool:
    from lightning_vfe.physics.memory import is_out_of_memory

    return is_out_of_memory(error)


def _too_large(config: DictConfig, node: str, cause: BaseException) -> CommandError:
    """The mistake of a part that does not fit into the memory: its largest number is the one to lower."""
    values = OmegaConf.select(config, node) if node else config
    sizes = {str(name): value for name, value in values.items() if type(value) is int} if values is not None else {}
    if not sizes:
        return CommandError(f"out of memory ({one_line(cause)[:200]}) in {node or 'the config'}; lower its sizes")
    largest = max(sizes, key=lambda name: sizes[name])
    reason = f"makes {node} too large for the memory ({one_line(cause)[:200]})"
    return SettingError(locate(config, largest, node), sizes[largest], reason, "lower it")


def _is_own(error: InstantiationException) -> bool:
    return "Error in call to target 'lightning_vfe." in str(error)


def _root(node: DictConfig) -> DictConfig:
    root: DictConfig = node
    while (parent := root._get_parent()) is not None:
        root = cast(DictConfig, parent)
    return root


def _full_key(error: InstantiationException) -> str:
    """The node that Hydra could not build: the last line of its message says which."""
    match = re.search(r"^full_key: (\S+)$", str(error), flags=re.MULTILINE)
    return match[1] if match else ""
