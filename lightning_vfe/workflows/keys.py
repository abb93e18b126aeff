"""From the argument that a part of the package refuses to the key of the config that the argument comes from."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def followed(raw: Any) -> str | None:
    """The key that a raw value `${key}` follows; None for any other value."""
    match = _REFERENCE.fullmatch(raw) if isinstance(raw, str) else None
    return match[1] if match else None


def references(raw: Any) -> set[str]:
    """All keys that the values below a raw node follow, also inside longer texts."""
    if isinstance(raw, dict):
        return set().union(*map(references, raw.values()))
    if isinstance(raw, list):
        return set().union(*map(references, raw))
    return set(_REFERENCE.findall(raw)) if isinstance(raw, str) else set()


def walk(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and raw values of all nodes under a plain dict."""
    found: list[tuple[str, Any]] = []
    if isinstance(node, dict):
        for key, child in node.items():
            found += [(f"{prefix}{key}", child), *walk(child, f"{prefix}{key}.")]
    return found


def locate(config: DictConfig, argument: str, node: str = "") -> str:
    """The key that a user sets to change an argument.

    References are followed to the key that holds the value: `state.num_groups`, which is `${sampler.num_groups}`,
    leads to `sampler.num_groups`.

    Args:
        config: the composed config.
        argument: name of an argument, or a whole key.
        node: key of the node whose constructor refused it; empty where that is not known.

    Returns:
        The key of the node's argument; else the only key of that name, one below `system` first; else the argument.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    known = (_source(raw, f"{node}.{argument}") if node else None) or _source(raw, argument)
    if known is not None:
        return known
    names = [name for name, _ in walk(raw) if name.rpartition(".")[2] == argument]
    sources = {source for name in names if (source := _source(raw, name)) is not None}
    system = f"system.{argument}"
    if system in sources:
        return system
    return sources.pop() if len(sources) == 1 else argument


def _source(raw: Any, key: str) -> str | None:
    """The key at the end of all references on the way to a key; None where the config has no such key."""
    node, parts = raw, key.split(".")
    for number, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
        other = followed(node)
        if other is not None:
            return _source(raw, ".".join([other, *parts[number + 1 :]]))
    return key
