"""Imports go one way through the house, without circles, and only a few rooms know Ray or torch."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dermsearch"
# From top to bottom. Who stands higher may import who stands lower, in a function and for types too.
ROOMS = [
    "__main__",
    "testing",
    "cli",
    "run",
    "engines",
    "search.tree",
    "search.propose",
    "search.space",
    "generate",
    "work",
    "upkeep",
    "training",
    "evaluate",
    "fit",
    "pretext",
    "data.open",
    "data.mixed",
    "data.inspect",
    "data.prepare",
    "data.drawn",
    "data.sources",
    "data.store",
    "data.decode",
    "data.views",
    "data.domain",
    "data.case",
    "storage",
    "models",
    "study",
    "results",
    "papers",
    # the ground:
    *("metrics", "nature", "settings", "curriculum", "registry", "numbers"),
    *("delimited", "regular", "words", "world", "errors"),
]
GROUND = {*ROOMS[ROOMS.index("metrics") :]} - {"world"}
TORCHLESS = {"results", "papers", "cli", "study", *GROUND}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module, below the package; of a package its folder."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").strip(".")


MODULES = {name_of(path): path for path in FILES}


def room_of(module: str) -> str | None:
    """The room that a module lies in; None of a folder that holds rooms."""
    return next((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), None)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def inside(path: Path) -> set[str]:
    """Those of the package itself: the module that is meant, not the folders above it."""
    named = {name.removeprefix("dermsearch.") for name in imported(path) if name.startswith("dermsearch.")}
    known = {name for name in named if name in MODULES}
    own = name_of(path)
    return {m for m in known if m != own and not any(other.startswith(f"{m}.") for other in known)}


def test_imports_go_down() -> None:
    lost, up = [], []
    for module, path in MODULES.items():
        if not module or (path.name == "__init__.py" and room_of(module) is None):
            continue
        if (room := room_of(module)) is None:
            lost.append(module)
        else:
            above = ROOMS[: ROOMS.index(room)]
            up += [f"{module} reaches up to {other}" for other in sorted(inside(path)) if room_of(other) in above]
    assert not lost, "these stand in no room"
    assert not up


def test_there_is_no_circle() -> None:
    graph = {name: inside(path) for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_only_a_few_rooms_know_ray_and_torch() -> None:
    packages = {module: {name.partition(".")[0] for name in imported(path)} for module, path in MODULES.items()}
    assert {module.partition(".")[0] for module, known in packages.items() if "ray" in known} == {"engines"}
    assert not {m for m, known in packages.items() if known & {"torch", "timm"} and m.partition(".")[0] in TORCHLESS}


def test_a_class_name_stands_once_in_the_package() -> None:
    homes: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert not twice


def test_no_file_is_long() -> None:
    lengths = sorted(len(p.read_text().splitlines()) for p in FILES)
    assert lengths[-1] <= 450
    assert lengths[len(lengths) // 2] <= 150


def test_one_file_reads_tables_of_text() -> None:
    readers = ("csv.reader", "DictReader", "read_csv", "loadtxt", "genfromtxt")
    assert [name for name, path in MODULES.items() if any(r in path.read_text() for r in readers)] == ["delimited"]


def test_what_is_imported_is_declared() -> None:
    """Also where another dependency happens to bring it along; and nothing of an extra without a word to the user."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    declared = {re.split(r"[^A-Za-z0-9_.-]", each)[0].lower().replace("_", "-") for each in asked}
    owners, found = packages_distributions(), set[str]()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    ours = found - set(sys.stdlib_module_names) - {"dermsearch", "pydantic_core"}  # the last is pydantic itself
    lacking = {m for m in ours if declared.isdisjoint(d.lower().replace("_", "-") for d in owners.get(m, [m]))}
    assert lacking == set() and len(ours) > 20
