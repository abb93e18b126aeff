"""Write docs/keys.md, the reference of all keys, from the comments in configs/*.yaml.

    python docs/make_keys.py

Every line `key: default  # comment` of a config file becomes an entry. A key whose default is a reference `${...}`
follows another key and cannot be set, so that it is left out. So is a group of keys of which none is left.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS, PAGE = ROOT / "configs", ROOT / "docs" / "keys.md"
WIDTH = 120
LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<default>.*?)\s+# (?P<comment>.*)")
REFERENCE = re.compile(r"\$\{[\w.]+\}")
TASKS = {"variational": "the free energy", "potential": "a potential", "flow_mle": "a flow, by maximum likelihood"}
GROUPS = (
    "system", "base", "flow", "wavefunction", "sampler", "optimizer", "trainer", "callbacks", "logger", "potential",
    "data",
)  # fmt: skip
VERBS = {
    "label": ("label", "calculator"),
    "log-z": ("log_z",),
    "sample": ("sample",),
    "report": (),
    "eos": (),
}
REMOVABLE = ("callbacks.", "logger.")
"""Parts that a run may leave out."""
HEAD = """\
# All keys

`docs/make_keys.py` writes this page from the comments in `configs/`. A number or word in brackets is the default.

- Set a key on the command line: `lightning-vfe fit trainer.max_steps=200`.
- Choose an option of a config group in the same way: `lightning-vfe fit optimizer=adam`.
- Remove a callback or a logger with `~`: `lightning-vfe fit ~callbacks.progress_bar`.
- Add a key that a part takes but its config does not list with `+`: `lightning-vfe fit +trainer.profiler=simple`.
- `lightning-vfe fit --print-config` prints the composed config and runs nothing.

Keys that follow another key are not listed. `flow.system` follows `system.num_atoms`, for example.
"""


def entries(file: Path, prefix: str = "") -> list[str]:
    """Lines of Markdown, one entry for each key of a config file."""
    rows, parents = [], [prefix]
    for line in file.read_text().splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            continue
        depth, default = len(match["indent"]) // 2, match["default"].strip()
        name = f"{parents[depth]}{match['key']}"
        parents[depth + 1 :] = [f"{name}."]
        if not REFERENCE.fullmatch(default):
            rows.append((name, default, match["comment"]))
    found = []
    for name, default, comment in rows:
        has_keys = any(other.startswith(f"{name}.") for other, *_ in rows)
        if default or has_keys or name.startswith(REMOVABLE):
            shown = f" [`{default}`]" if default else ""
            found += _wrapped(f"- `{name}`{shown}: {comment}", "  ")
    return found


def description(file: Path) -> str:
    """The first comment of a config file."""
    first = next(line for line in file.read_text().splitlines() if re.match(r"# (?!@)", line))
    return first.removeprefix("# ")


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## fit, validate, test", "", *entries(CONFIGS / "config.yaml"), ""]
    for task, what in TASKS.items():
        lines += [f"### `task={task}`: train {what}", "", *_wrapped(description(CONFIGS / "task" / f"{task}.yaml"))]
        lines += ["", *entries(CONFIGS / "task" / f"{task}.yaml"), ""]
    for group in GROUPS:
        lines += _group(group, "###")
    for verb, groups in VERBS.items():
        lines += [f"## {verb}", "", *_wrapped(description(CONFIGS / f"{verb}.yaml"))]
        lines += ["", *entries(CONFIGS / f"{verb}.yaml"), ""]
        for group in groups:
            lines += _group(group, "###")
    lines += ["## Experiments", "", "`experiment=NAME` sets several keys at once; its file shows which.", ""]
    for file in sorted((CONFIGS / "experiment").glob("*.yaml")):
        lines += _wrapped(f"- `{file.stem}`: {description(file)}", "  ")
    return "\n".join(lines) + "\n"


def _group(group: str, marks: str) -> list[str]:
    """A section for each option of a config group."""
    lines = []
    for file in sorted((CONFIGS / group).glob("*.yaml")):
        keys = entries(file, f"{group}.")
        lines += [f"{marks} `{group}={file.stem}`", "", *_wrapped(description(file)), ""]
        lines += [*keys, ""] if keys else []
    return lines


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
