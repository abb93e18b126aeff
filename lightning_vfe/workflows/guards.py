"""Around everything that a command builds and runs: its dtype, and one line for what the user can mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from lightning_vfe.workflows.errors import CommandError, one_line
from lightning_vfe.workflows.imports import import_parts
from lightning_vfe.workflows.overrides import all_keys

TRAINER = "lightning.Trainer"
DTYPES = ("float64", "float32")
LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""


def check_scalars(config: DictConfig) -> None:
    """Look at the keys that every verb has.

    Raises:
        CommandError: an unknown dtype, or a seed that is negative or longer than 32 bits.
    """
    if config.dtype not in DTYPES:
        raise CommandError(f"dtype = {config.dtype} does not exist; there is: {', '.join(DTYPES)}")
    if not 0 <= config.seed <= LARGEST_SEED:
        raise CommandError(f"seed = {config.seed} must be a whole number from 0 to {LARGEST_SEED}, such as 42")


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
def key_errors(config: DictConfig) -> Iterator[None]:
    """A ValueError that begins with a key of the config is the user's to mend, wherever it is raised."""
    keys = {"system", *all_keys(config)}
    try:
        yield
    except ValueError as error:
        if str(error).replace(":", " ").split(" ", 1)[0] in keys:
            raise CommandError(one_line(error)) from error
        raise


@contextmanager
def key_of(usual: str, actual: str) -> Iterator[None]:
    """Inside it, messages about a part that the config holds under another key than the usual one name that key."""
    try:
        yield
    except (CommandError, ValueError) as error:
        if not str(error).startswith(f"{usual}."):
            raise
        raise CommandError(actual + one_line(error).removeprefix(usual)) from error


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Build a node's `_target_`; what a constructor refuses becomes one line, everything else keeps its traceback.

    The modules that the whole config imports come first.
    """
    from lightning_vfe.training.run.launch import MisconfigurationException

    root = node._get_root()
    assert isinstance(root, DictConfig)
    import_parts(root)
    try:
        return hydra.utils.instantiate(node, **arguments)
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        target = str(node.get("_target_"))
        is_trainer = target == TRAINER
        if isinstance(cause, ValueError) and not is_trainer:
            raise CommandError(one_line(cause)) from error
        if is_trainer and isinstance(cause, (ValueError, TypeError, MisconfigurationException)):
            raise CommandError(f"trainer: {one_line(cause)}") from error
        if isinstance(cause, TypeError) and "argument" in str(cause):
            raise CommandError(f"{target}: {one_line(cause)}") from error
        raise
