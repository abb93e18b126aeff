"""The words `key=value` of the command line: read them, and apply them to a config; `schema.py` checks the types."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_vfe.errors import CommandError, SettingError, nearest, one_line
from lightning_vfe.resources import resource_folder, user_path
from lightning_vfe.workflows.keys import followed, walk

# last parts of the keys that hold the path of a file or folder
PATH_ENDINGS = ("path", "run_dir", "structure", "database", "trajectory", "flow_ckpt", "wavefunction_ckpt", "init_from")
FIXED_KEYS = ("schema", "version")
"""Keys that describe a config, and change nothing in a run."""
OWN_PATHS = ("run_dir", "ckpt_path")
"""Keys that are read before the config is composed."""
TAKE_FOLDERS = ("eos", "report")
"""Verbs after which folders may stand without a key."""
NAME_LISTS = ("runs", "labels")
"""Keys that hold a list of folders or names; an entry with a comma stands in quotes."""
_ENTRY = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,])+""")
# groups whose entries are optional parts of a run
DELETABLE = ("callbacks", "logger")


@dataclass(frozen=True)
class Overrides:
    """The overrides of one command: group choices (`experiment=NAME`), single keys in order, and the words as given."""

    groups: dict[str, str | None] = field(default_factory=dict)
    keys: list[Override] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """The last value given to a key on the command line, or None."""
        values = [override.value() for override in self.keys if override.key_or_group == key]
        return values[-1] if values else None


def group_options() -> dict[str, list[str]]:
    """Config groups and their options, from the folders and files of `configs`."""
    folders = sorted(folder for folder in resource_folder("configs").iterdir() if folder.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def is_path_key(key: str) -> bool:
    """Whether a key holds the path of a file or folder, or null for none."""
    last = key.rpartition(".")[2]
    return last.endswith(PATH_ENDINGS)


def quote_path(word: str) -> str:
    """Put the value of a path key in quotes: Hydra's grammar refuses `~`, `=` and other characters of file names."""
    key, _, value = word.partition("=")
    if key in NAME_LISTS and value[:1] == "[" and value[-1:] == "]":
        return f"{key}=[{','.join(quote(name.strip()) for name in _ENTRY.findall(value[1:-1]))}]"
    if not is_path_key(key) or value in ("", "null"):
        return word
    return f"{key}={quote(value)}"


def quote(path: str) -> str:
    """A path in double quotes, as Hydra's grammar reads it; one in quotes stays as it is."""
    if path[:1] in ("'", '"'):
        return path
    # in Hydra's grammar a backslash is one of its own but in front of a quote
    given = str(user_path(path))
    inner = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), given)
    return f'"{inner}"'


def with_runs(verb: str, words: Sequence[str]) -> list[str]:
    """The words of a verb that takes folders beside key=value, with the folders gathered in `runs=[...]`."""
    folders = [word for word in words if "=" not in word] if verb in TAKE_FOLDERS else []
    if not folders:
        return list(words)
    given = [word for word in words if word.startswith("runs=")]
    if given:
        raise CommandError(f"'{folders[0]}' and '{given[0]}' both name runs; write all of them into runs=[...]")
    return [f"runs=[{','.join(map(quote, folders))}]", *(word for word in words if "=" in word)]


def parse(words: Iterable[str]) -> Overrides:
    """Read `key=value` words.

    Raises:
        CommandError: a word that is no override, a sweep, or a group option that does not exist.
    """
    options = group_options()
    parser = OverridesParser.create()
    overrides = Overrides()
    for word in words:
        overrides.words.append(word)
        if not _is_text(word):
            reason = f"holds bytes that are no text in {sys.getfilesystemencoding()}"
            raise CommandError(f"{word!a} {reason}; rename the file, or choose another language by LC_ALL")
        if "=" not in word and not word.startswith("~"):
            raise CommandError(f"'{word}' is not of the form key=value{nearest(word, options)}")
        try:
            override = parser.parse_override(quote_path(word))
        except HydraException as error:
            raise CommandError(
                f"cannot read '{word}': {one_line(error)}; put quotes around special characters"
            ) from error
        if override.is_sweep_override():
            raise CommandError(
                f"'{word}' gives several values; write a list as [1,2], or add --multirun for a run with each value"
            )
        if is_path_key(override.key_or_group) and override.value() == "":
            raise CommandError(f"'{word}' names no file or folder; give its path, or leave {override.key_or_group} out")
        if override.key_or_group in (*OWN_PATHS, *NAME_LISTS) and "${" in str(override.value()):
            reason = "holds ${, with which references to other keys begin"
            raise SettingError(override.key_or_group, override.value(), reason, "write the path out, without a $")
        if override.key_or_group in options and not override.is_delete() and not isinstance(override.value(), dict):
            _add_group(overrides, override, options)
        else:
            overrides.keys.append(override)
    return overrides


def _is_text(word: str) -> bool:
    """Whether a word of the command line could be decoded: Python puts surrogates for what could not."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _add_group(overrides: Overrides, override: Override, options: dict[str, list[str]]) -> None:
    group, option = override.key_or_group, override.value()
    if option is not None and str(option) not in options[group]:
        names = ", ".join(options[group])
        raise SettingError(group, option, f"does not exist{nearest(str(option), options[group])} (there is: {names})")
    if option is None and group != "experiment":
        raise SettingError(group, None, f"is not possible (there is: {', '.join(options[group])})")
    overrides.groups[group] = None if option is None else str(option)


def apply(config: DictConfig, overrides: Iterable[Override]) -> None:
    """Apply single-key overrides to a composed config, in place.

    Raises:
        CommandError: a key that does not exist, that follows another one, or that is a group of keys.
    """
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if key in FIXED_KEYS:
            raise SettingError(key, value, "is written by fit for later versions, and changes nothing", "drop it")
        try:
            if override.is_delete():
                _require(config, key)
                if key.partition(".")[0] not in DELETABLE or "." not in key:
                    raise CommandError(f"~{key} is not possible, the code reads {key}; ~ is for ~callbacks.NAME alone")
                _delete(config, key)
            elif override.is_add() or override.is_force_add():
                OmegaConf.update(config, key, value, force_add=True)
            else:
                _change(config, key, value)
        except OmegaConfBaseException as error:
            raise SettingError(key, value, f"is not possible: {one_line(error)}") from error


def _change(config: DictConfig, key: str, value: Any) -> None:
    old = _require(config, key, value)
    if isinstance(old, dict) and isinstance(value, dict) and "_target_" in value:
        # another class, whose arguments are its own
        OmegaConf.update(config, key, value, merge=False, force_add=True)
        return
    if isinstance(old, dict) and isinstance(value, dict):
        for name, child in value.items():
            _change(config, f"{key}.{name}", child)
        return
    other = followed(old)
    if other is not None:
        raise SettingError(key, value, f"is not possible: the key follows {other}", f"set {other}")
    if isinstance(old, dict) and value is not None:
        raise SettingError(key, value, "is a group of keys", f"set one of them, such as {key}.{next(iter(old), 'KEY')}")
    OmegaConf.update(config, key, value, force_add=True)


def _require(config: DictConfig, key: str, value: Any = None) -> Any:
    """The raw value of a key that must exist."""
    nodes = dict(walk(OmegaConf.to_container(config, resolve=False)))
    if key not in nodes:
        # those that follow another key are no good advice
        choices = [name for name, value in nodes.items() if followed(value) is None]
        remedy = nearest(key, choices).removeprefix("; ") or "--print-config shows all keys"
        raise SettingError(key, value, "is not a key", remedy)
    return nodes[key]


def _delete(config: DictConfig, key: str) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    OmegaConf.set_struct(node, False)
    del node[name]
