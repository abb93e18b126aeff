"""Where the configs and data that come with the package lie."""

import os
from pathlib import Path


def resource_folder(name: str) -> Path:
    """Folder of the package's `configs` or `data`: inside an installed wheel, beside the package in a checkout.

    Raises:
        FileNotFoundError: neither place has the folder, so the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name!r} of lightning_vfe is missing; install the package again with pip")


def user_path(path: str | Path) -> Path:
    """A path as the user gives it, with ~ for the home; ~NAME of nobody is a name, where `Path.expanduser` fails."""
    return Path(os.path.expanduser(path))


def data_file(path: str | Path) -> Path:
    """A path as it is given where a file is there, else the file `data/...` that the package ships, if there is one."""
    given = user_path(path)
    if given.exists():
        return given
    shipped = _shipped(given)
    return shipped if shipped.is_file() else given


def data_folder(path: str | Path) -> Path:
    """As `data_file`, for a folder, such as the run `data/runs/eos_h8_tabc`.

    Its name begins with `data`: a missing `runs/NAME` is a run of the user, which no shipped one stands in for.
    """
    given = user_path(path)
    if given.exists() or given.parts[:1] != ("data",):
        return given
    shipped = _shipped(given)
    return shipped if shipped.is_dir() else given


def _shipped(path: Path) -> Path:
    """Where the package would ship a path, which may begin with `data`; an absolute one stays itself."""
    return resource_folder("data").joinpath(*path.parts[1:] if path.parts[:1] == ("data",) else path.parts)


def is_shipped(path: str | Path) -> bool:
    """Whether a path lies inside the data of the package."""
    return Path(path).resolve().is_relative_to(resource_folder("data"))
