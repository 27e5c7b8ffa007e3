"""Imports go one way through the house, and only a few rooms know Ray or torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dermsearch"
ANYONE = {"config", "errors", "world", "studyfile", "__init__"}
ALLOWED = {
    "cli": {
        "search",
        "training",
        "downstream",
        "results",
        "pretext",
        "models",
        "data",
        "cli_data",
        "cli_results",
        "cli_search",
        "cli_store",
    },
    "cli_data": {"search", "data"},
    "cli_results": {"results"},
    "cli_search": {"search"},
    "cli_store": {"search", "data"},
    "__main__": {"cli"},
    "search": {"training", "downstream", "results", "pretext", "models", "data"},
    "training": {"pretext", "models", "data"},
    "downstream": {"models", "data"},
    "results": {"data"},  # the vocabulary of cases
    "pretext": {"models", "data"},
    "models": {"data"},
    "data": set(),
    "config": {"data"},  # the vocabulary of cases
    "studyfile": set(),
    "errors": set(),
    "world": set(),
    "__init__": set(),
}
RAY = {"search/cluster.py", "search/shards.py", "search/searcher.py", "training/distributed.py"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    modules = imported(path)
    rooms = {m.split(".")[1] for m in modules if m.startswith("dermsearch.")} - {"__version__"}
    assert rooms - ANYONE - {room} <= ALLOWED[room], f"{relative} reaches into {rooms - ANYONE - ALLOWED[room]}"
    if any(m.split(".")[0] == "ray" for m in modules):
        assert str(relative) in RAY, f"{relative} knows Ray"
    if room in (
        "results",
        "cli",
        "cli_data",
        "cli_results",
        "cli_search",
        "cli_store",
        "config",
        "studyfile",
        "errors",
    ):
        assert not any(m.split(".")[0] in ("torch", "timm") for m in modules), f"{relative} knows torch"


def test_no_file_is_long() -> None:
    lengths = sorted(len(p.read_text().splitlines()) for p in FILES)
    assert lengths[-1] <= 600
    assert lengths[len(lengths) // 2] <= 160
