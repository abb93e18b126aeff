"""The config as text, with the comment of every key from the files that it was composed of."""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from lightning_vfe.resources import resource_folder

_KEY = re.compile(r"^( *)([\w-]+):(?: ([^# ].*?))?(?:  # (.*))?$")


def commented_yaml(config: DictConfig, root: str) -> str:
    """The config as YAML, every key with the comment that its file has.

    Args:
        config: the composed config.
        root: name of the root config, without `.yaml`.
    """
    lines, comments = OmegaConf.to_yaml(config).splitlines(), comments_of(config, root)
    for key in _keys(lines):
        if key.path in comments:
            lines[key.number] += f"  # {comments[key.path]}"
    return "\n".join(lines)


def comments_of(config: DictConfig, root: str) -> dict[str, str]:
    """Comments by dotted key. Of a group, those of the option that has most keys and values of the config."""
    configs = resource_folder("configs")
    given = {key.path: key.value for key in _keys(OmegaConf.to_yaml(config).splitlines())}
    found = {key.path: key.comment for key in _read(configs / f"{root}.yaml")}
    for group in ("task", *(str(name) for name in config)):
        prefix = "" if group == "task" else f"{group}."
        options = [
            [key._replace(path=prefix + key.path) for key in _read(file)]
            for file in sorted((configs / group).glob("*.yaml"))
        ]
        if options:
            found |= {key.path: key.comment for key in max(options, key=partial(_likeness, given))}
    return {path: comment for path, comment in found.items() if comment}


class _Key(NamedTuple):
    """A line of YAML with a key: its number, dotted name, value and comment."""

    number: int
    path: str
    value: str
    comment: str


def _likeness(given: dict[str, str], option: list[_Key]) -> tuple[int, int, int]:
    """How much an option has in common with a config; of two that fit alike the one without further keys."""
    same = [key for key in option if key.path in given]
    return len(same), sum(given[key.path] == key.value for key in same), -len(option)


@cache
def _read(file: Path) -> list[_Key]:
    return _keys(file.read_text(encoding="utf-8").splitlines())


def _keys(lines: list[str]) -> list[_Key]:
    found, above = [], list[tuple[int, str]]()
    for number, line in enumerate(lines):
        match = _KEY.match(line)
        if match is None:
            continue
        depth = len(match[1])
        above = [(indent, name) for indent, name in above if indent < depth]
        above.append((depth, match[2]))
        path = ".".join(name for _, name in above)
        found.append(_Key(number, path, match[3] or "", match[4] or ""))
    return found
