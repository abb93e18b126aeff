"""Write docs/keys.md, the reference of all keys, from the comments in configs/*.yaml.

    python docs/make_keys.py

Every line `key: default  # comment` of a config file becomes an entry. A key whose default is a reference `${...}`
follows another key and cannot be set, so that it is left out. So is a group of keys of which none is left.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from lightning_vfe.cli.all_keys import GROUPS, TASKS, VERBS, keys_of

ROOT = Path(__file__).resolve().parent.parent
CONFIGS, PAGE = ROOT / "configs", ROOT / "docs" / "keys.md"
WIDTH = 120
HEAD = """\
# All keys

`docs/make_keys.py` writes this page from the comments in `configs/`. A number or word in brackets is the default.

- Set a key on the command line: `lightning-vfe fit trainer.max_steps=200`.
- Choose an option of a config group in the same way: `lightning-vfe fit optimizer=adam`.
- Remove a callback or a logger with `~`: `lightning-vfe fit ~callbacks.progress_bar`.
- Add a key that a part takes but its config does not list with `+`: `lightning-vfe fit +trainer.profiler=simple`.
- `lightning-vfe fit --print-config` prints the composed config and runs nothing.
- `lightning-vfe fit --help-all` prints the keys of this page: `lightning-vfe fit --help-all | grep walkers`.

Keys that follow another key are not listed. `flow.system` follows `system.num_atoms`, for example.
"""


def entries(file: Path, prefix: str = "") -> list[str]:
    """Lines of Markdown, one entry for each key of a config file."""
    found = []
    for key in keys_of(file, prefix):
        shown = f" [`{key.default}`]" if key.default else ""
        found += _wrapped(f"- `{key.name}`{shown}: {key.comment}", "  ")
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
