"""Look before the work whether its results can be written at the requested place."""

import tempfile
from pathlib import Path

from lightning_vfe.errors import SettingError


def check_folder(key: str, path: str | Path | None) -> None:
    """Make sure that the folder which a key names can be made, or written into where it exists; nothing stays behind.

    Raises:
        CommandError: no folder is named, a file stands in its way, or the place refuses new files.
    """
    if path is None:
        raise SettingError(key, None, "must name a folder", f"give {key}=FOLDER")
    _check_place(key, Path(path), Path(path), f"give another folder with {key}=...")


def check_file(key: str, path: str | Path) -> None:
    """Make sure that the file which a key names can be made or replaced.

    Raises:
        CommandError: it is a folder, or its own folder cannot be written into.
    """
    if Path(path).is_dir():
        raise SettingError(key, path, "is a folder", "give the name of a file in it")
    _check_place(key, Path(path), Path(path).parent, f"give another file with {key}=...")


def _check_place(key: str, path: Path, folder: Path, fix: str) -> None:
    """The folder, or the nearest one above it that exists, must take a new file."""
    try:
        for place in (folder, *folder.parents):
            if not _exists(place):
                continue
            if not place.is_dir():
                raise SettingError(key, path, f"cannot be written, {place} is a file", fix)
            # permissions alone don't tell: root passes them, and a file system may be read-only
            with tempfile.TemporaryFile(dir=place):
                return
    except OSError as error:
        raise SettingError(key, path, f"cannot be written ({error.strerror})", fix) from error


def _exists(path: Path) -> bool:
    """Whether something stands there, a broken link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
