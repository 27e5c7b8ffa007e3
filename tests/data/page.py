"""A package that a page of docs/ writes, as if it were installed."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dermsearch import registry

DOCS = Path(__file__).parents[2] / "docs"


def files(page: str) -> dict[str, str]:
    """The files that a page shows, by their names."""
    text = (DOCS / page).read_text()
    return dict(re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def install(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules, where Python finds them, and its entry points."""
    shown = files(page)
    for name, text in shown.items():
        (folder / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)  # of an earlier test
    monkeypatch.syspath_prepend(str(folder))
    groups = tomllib.loads(shown["pyproject.toml"])["project"]["entry-points"]
    entries = [EntryPoint(name, value, group) for group, each in groups.items() for name, value in each.items()]

    def entry_points(**wanted: str) -> list[EntryPoint]:
        return [e for e in entries if all(getattr(e, field) == value for field, value in wanted.items())]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry.Registry.find.cache_clear()
