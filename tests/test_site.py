"""The documentation site builds without a warning, from pages that the navigation names, and needs no network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_vfe as lv

ROOT = Path(__file__).parents[1]
LOADED = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(?P<address>https?://[^\"\s>]+)[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_navigation_names_every_page() -> None:
    named = set(re.findall(r": (\w+)\.md$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= named


def test_the_reference_has_all_public_names(site: Path) -> None:
    text = (site / "api" / "index.html").read_text()
    missing = [name for name in lv.__all__ if name != "__version__" and f'.{name}"' not in text]
    assert not missing


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = {match["address"] for page in site.rglob("*.html") for match in LOADED.finditer(page.read_text())}
    assert not loaded


def test_links_out_of_the_folder_lead_to_pages(site: Path) -> None:
    assert (site / "index.html").is_file()
    assert 'href="../examples/"' in (site / "own_parts" / "index.html").read_text()
    assert 'href="../data/' in (site / "results" / "index.html").read_text()
    assert (site / "examples" / "own_move.py").is_file()
