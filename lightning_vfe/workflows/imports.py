"""Modules of the user: imported before anything is built, so that a config may name what they define."""

import importlib
import sys
from pathlib import Path

from omegaconf import DictConfig

from lightning_vfe.errors import SettingError, one_line


def import_parts(config: DictConfig) -> None:
    """Import the modules that the key `imports` names; those in the current directory are found, too.

    Own classes are then importable by their `_target_`, and calls such as `register_potential` have run.

    Raises:
        SettingError: a module is missing, or fails while it is imported.
    """
    names = config.get("imports") or ()
    here = str(Path.cwd())
    # At the end: a file of the user must not stand in front of a library of the same name.
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            importlib.import_module(str(name))
        except Exception as error:
            reason = f"cannot be imported ({type(error).__name__}: {one_line(error)})"
            remedy = f"give the name of a module that is installed or lies in {here}, without .py"
            raise SettingError("imports", name, reason, remedy) from error
