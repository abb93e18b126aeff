"""All keys of a verb with their defaults and comments, read from the config files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lightning_vfe.resources import resource_folder

TASKS = {"variational": "the free energy", "potential": "a potential", "flow_mle": "a flow, by maximum likelihood"}
"""Tasks of `fit`, and what they train."""
GROUPS = (
    "system", "base", "flow", "wavefunction", "sampler", "optimizer", "trainer", "callbacks", "logger", "potential",
    "data",
)  # fmt: skip
"""Config groups of the tasks."""
VERBS = {
    "label": ("label", "calculator"),
    "log-z": ("log_z",),
    "sample": ("sample",),
    "report": (),
    "eos": (),
}
"""Config groups of the other verbs, besides the system."""
REMOVABLE = ("callbacks.", "logger.")
"""Parts that a run may leave out."""
_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<default>.*?)\s+# (?P<comment>.*)")
_REFERENCE = re.compile(r"\$\{[\w.]+\}")


class Key(NamedTuple):
    """A line `key: default  # comment` of a config file.

    Attributes:
        name: with the group, and dots.
        default: as text; empty for a node of further keys.
        comment: what it is.
    """

    name: str
    default: str
    comment: str

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.name} [{self.default}]  {self.comment}" if self.default else f"{self.name}  {self.comment}"


def keys_of(file: Path, prefix: str = "") -> list[Key]:
    """The keys of a config file that can be set: those that follow another key are left out.

    Args:
        file: YAML.
        prefix: what stands before each name.
    """
    rows, parents = list[Key](), [prefix]
    for line in file.read_text(encoding="utf-8").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        depth, default = len(match["indent"]) // 2, match["default"].strip()
        name = f"{parents[depth]}{match['key']}"
        parents[depth + 1 :] = [f"{name}."]
        if not _REFERENCE.fullmatch(default):
            rows.append(Key(name, default, match["comment"]))
    return [
        key
        for key in rows
        if key.default or key.name.startswith(REMOVABLE) or any(row.name.startswith(f"{key.name}.") for row in rows)
    ]


def all_keys(verb: str) -> list[str]:
    """A line for each key of a verb, under the option of the config group that has it."""
    configs = resource_folder("configs")
    if verb in VERBS:
        root, groups = configs / f"{verb}.yaml", VERBS[verb]
        groups = ("system", *groups) if "- system: " in root.read_text(encoding="utf-8") else groups
        parts = [(verb, root, "")]
    else:
        groups, parts = GROUPS, [("fit, validate, test", configs / "config.yaml", "")]
        parts += [(f"task={task}", configs / "task" / f"{task}.yaml", "") for task in TASKS]
    for group in groups:
        parts += [(f"{group}={file.stem}", file, f"{group}.") for file in sorted((configs / group).glob("*.yaml"))]
    lines = []
    for title, file, prefix in parts:
        lines += ["", f"{title}:", *(f"  {key.text}" for key in keys_of(file, prefix))]
    return lines
