"""The documentation as a site: built without a warning and without a network, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Page(HTMLParser):
    """What a page links to, what it fetches, and the names that it can be entered at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {key: value or "" for key, value in attrs}
        self.names |= {told[key] for key in ("id", "name") if key in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        if tag in FETCHED and FETCHED[tag] in told and told.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(told[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    calm = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # about the future of the tool, not about these pages
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=calm)
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_every_page_of_the_repository_is_in_it(site: Path) -> None:
    docs = ROOT / "docs"
    missing = [p for p in docs.rglob("*.md") if not (site / p.relative_to(docs)).with_suffix(".html").is_file()
               and p.name != "README.md"]  # fmt: skip
    assert not missing and (site / "log" / "index.html").is_file()
    assert all((site / f"{name}.html").is_file() for name in ("index", "clusters", "published", "changes"))


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
                wrong.append(f"{path.name}: {link} (no such place)")
    assert not [each for each in wrong if not each.startswith("404.html")]


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert not {link for page in pages.values() for link in page.fetched if urlsplit(link).netloc}


def test_lists_and_tables_came_out_as_such(pages: dict[Path, Page]) -> None:
    """Markdown that GitHub takes for a list is none here without an empty line before it."""
    for path in pages:
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
        loose = re.findall(r"<p>[^<]*\n(?:\* |- |\d\. |\|).*", text)
        assert not loose, f"{path.name}: {loose[:2]}"


def test_commands_stand_in_blocks(pages: dict[Path, Page], site: Path) -> None:
    text = (site / "start.html").read_text("utf-8")
    assert len(re.findall(r"<pre.*?dermsearch", text, re.DOTALL)) >= 5
