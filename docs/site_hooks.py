"""Hooks of MkDocs: pages of the site that are not files of docs/, and links that lead out of docs/.

README.md is the front page. The pages of data/, examples/ and of the root keep their links. The reference of the public
names is made from `lightning_vfe/__init__.pyi`.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data/README.md": "data.md",
    "examples/README.md": "examples.md",
    "LICENSE": "LICENSE.txt",
    "CITATION.cff": "CITATION.txt",
}
"""Files of the repository outside docs/, with their names on the site."""
EXAMPLES = {file.relative_to(ROOT).as_posix(): f"examples/{file.name}" for file in (ROOT / "examples").glob("own_*.py")}
EXAMPLES |= {f"notebooks/{file.name}": file.name for file in (ROOT / "notebooks").glob("*.ipynb")}
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)#\s:]+)(?P<after>(?:#[^)\s]*)?\))")
PARTS = {
    "workflows": "Commands and runs",
    "analysis": "Equation of state",
    "physics": "System and physics",
    "models": "Networks, base and potentials",
    "sampling": "Moves",
    "state": "State",
    "training": "Training",
    "errors": "Errors",
}
"""Parts of the package in the order of the reference."""
API_HEAD = """\
# Public names

`import lightning_vfe as lv` gives these names as `lv.NAME`. They are stable; the files that hold them may move.
[The package in Python](python.md) shows how they work together.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not hold."""
    for source, name in {**ELSEWHERE, **EXAMPLES}.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "api.md", content=reference()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between files of the repository into links between pages."""
    name = page.file.src_uri
    source = next((file for file, uri in ELSEWHERE.items() if uri == name), f"docs/{name}")
    return LINK.sub(lambda match: match["before"] + site_link(match["target"], source) + match["after"], markdown)


def site_link(target: str, source: str) -> str:
    """Where a link of the file `source` leads on the site; all pages lie in one folder."""
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return {**ELSEWHERE, **EXAMPLES}.get(file, file.removeprefix("docs/"))


def public_names() -> dict[str, list[str]]:
    """Public names with their modules, such as `lightning_vfe.physics.system.System`, by part of the package."""
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for node in ast.parse((ROOT / "lightning_vfe" / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found[node.module.split(".")[1]] += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def reference() -> str:
    """The page of the public names, for mkdocstrings."""
    sections = [
        f"## {PARTS[part]}\n\n" + "\n".join(f"::: {name}\n" for name in names) for part, names in public_names().items()
    ]
    return "\n".join([API_HEAD, *sections])
