"""Where the configs and data that come with the package lie."""

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
