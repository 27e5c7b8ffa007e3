"""What mkdocs needs beside docs/: pages that stand elsewhere in the repository, and files that pages point to.

A page that the list of pages in mkdocs.yml does not have is put under 'More', so that none is out of reach.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # of the repository: their place in the site
    "README.md": "index.md",
    "clusters/README.md": "clusters.md",
    "results/published/README.md": "published.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Pages that are not listed get a place."""
    listed = str(config["nav"])
    more = [p.name for p in sorted((ROOT / "docs").glob("*.md")) if f"'{p.name}'" not in listed]
    if more:
        config["nav"].append({"More": more})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from elsewhere, and every file that a page points to."""
    for origin, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / origin).read_text("utf-8")))
    for page in [file for file in files if file.is_documentation_page()]:
        for match in LINK.finditer(CODE.sub("", page.content_string)):
            found = target_of(match[3], page.src_uri)
            if found is not None and found.startswith("files/") and files.get_file_from_path(found) is None:
                files.append(File.generated(config, found, content=(ROOT / found[6:]).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that lead out of docs/ lead to where the thing stands in the site; of a folder the words stay."""

    def led(match: re.Match[str]) -> str:
        found = target_of(match[3], page.file.src_uri)
        if found is None:
            return match[0]
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"{match[1]}[{match[2]}]({posixpath.relpath(found, start)}{match[4] or ''})" if found else match[2]

    return "".join(part if part.startswith("```") else LINK.sub(led, part) for part in CODE.split(markdown))


def target_of(target: str, place: str) -> str | None:
    """Where a link leads to in the site; empty where that is a folder; None where mkdocs knows better."""
    if "://" in target or target.startswith(("mailto:", "/")):
        return None
    origin = next((o for o, p in PAGES.items() if p == place), f"docs/{place}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir() and not path.startswith(".."):
        return ""
    return f"files/{path}" if (ROOT / path).is_file() and not path.startswith("..") else None
