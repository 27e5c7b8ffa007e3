"""Lines whose loss a test must notice: each is broken in a copy of the project, and the tests named for it must fail.

    python benchmarks/mutants.py [WORD ...]

All of `mutants.yaml` and every part of every key, or those with one of the words in what is said of them. Before any
line is broken all tests must pass. A mutant of which none of its tests fails has survived, and so has one whose tests
could not be run: exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = ("dermsearch", "tests", "benchmarks", "search_spaces", "docs", "results", "pyproject.toml", "README.md")
HEAVY = ("torchvision", "timm", "pandas", "pyarrow.dataset", "sklearn.linear_model", "scipy.optimize", "optuna")
PATIENCE = 300  # seconds for a test
KEYS = "tests/storage/test_keys.py::test_"


class Mutant(NamedTuple):
    """Something that a line does, the line, which stands in the file once, what takes its place, and what must fail."""

    what: str
    file: str
    line: str
    broken: str
    tests: tuple[str, ...]


def keys() -> Iterator[Mutant]:
    """Every part of every key, left out."""
    file = ROOT / "dermsearch" / "storage" / "keys.py"
    made = re.findall(r"digest\(\"(\w+)\", (.+)\)", file.read_text())
    for kind, parts in made:
        whole = f'digest("{kind}", {parts})'
        for name in parts.split(", "):
            less = re.sub(rf", {name}\b", "", whole)
            test = f"{KEYS}nothing_that_a_key_is_made_of_is_left_out[{kind}_key]"
            yield Mutant(f"key of a {kind}: {name}", "storage/keys.py", whole, less, (test,))
    parts, field = "nothing_that_a_key_is_made_of_is_left_out[root_key]", "a_field_changes_the_keys_of_what_it_decides"
    seen = {name: f"{field}[data.ours.{name}]" for name in ("modalities", "size", "border", "normalise")}
    for name, line, less, test in (
        ("of a root: architecture", '"name": encoder, ', "", parts),
        ("of a root: branches", '"branches": branches, ', "", parts),
        ("of a root: weights", ', "weights": weights', "", parts),
        ("of a root: seed", "        seed,\n    )\n\n\ndef st", "    )\n\n\ndef st", parts),
        ("of a root: data", "**view(data, fingerprint), ", "", parts),
        ("of a root: transductive", ', "transductive": data.transductive', "", f"{field}[data.ours.transductive]"),
        ("of data: fingerprint", '"cases": fingerprint,', "", "content_decides_and_not_where_it_lies"),
        *((f"of data: {name}", f'"{name}": data.{name},', "", test) for name, test in seen.items()),
    ):
        yield Mutant(f"key {name}", "storage/keys.py", line, less, (KEYS + test,))


def table() -> Iterator[Mutant]:
    """Those of the file beside this one."""
    for row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()):
        tests = row.pop("tests")
        tests = [tests] if isinstance(tests, str) else tests
        yield Mutant(**row, tests=tuple(f"tests/{test}" for test in tests))


class Noted:
    """What pytest says of the tests: those that failed, and how many ran."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.ran = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call" or report.failed
        if report.failed:
            self.failed.append(report.nodeid.removeprefix("tests/"))


def outcome(copy: Path, tests: Sequence[str], stop: bool) -> tuple[int, Noted]:
    """pytest's exit code in a fork of this process, where the copy is what is imported; and what it noted."""
    note = copy / "noted.json"
    note.unlink(missing_ok=True)
    if pid := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        noted = Noted()
        if note.exists():
            noted.failed, noted.ran = json.loads(note.read_text())
        return code, noted
    os.chdir(copy)
    sys.path[0] = os.environ["PYTHONPATH"] = str(copy)
    with open(copy / "said.txt", "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    import pytest

    words = ["-q", "-n0", "--tb=short", "-m", "long or not long", f"--timeout={PATIENCE}", *["-x"] * stop, *tests]
    noted = Noted()
    code = pytest.main(words, plugins=[noted])
    note.write_text(json.dumps([noted.failed, noted.ran]))
    os._exit(code)


def copied(place: Path) -> Path:
    """What tests need of the project, in that folder."""
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place / name)
    return place


def fate(code: int, noted: Noted) -> tuple[str, bool]:
    """What a mutant died of, and whether it did."""
    if code == 1 and noted.failed:
        return noted.failed[0], True
    return (f"SURVIVED {noted.ran} tests" if not code else f"NOT RUN: exit code {code}"), False


def main() -> None:
    """Break them one after the other and print what they died of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mutants that are described with one of these")
    given = parser.parse_args()
    chosen = [m for m in (*keys(), *table()) if not given.words or any(word in m.what for word in given.words)]
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True  # a file changes within a second
    for name in HEAVY:
        import_module(name)
    assert "dermsearch" not in sys.modules
    with tempfile.TemporaryDirectory() as place:
        copy = copied(Path(place))
        code, noted = outcome(copy, sorted({test for m in chosen for test in m.tests}), stop=False)
        if code:
            sys.exit(
                f"unbroken, {len(noted.failed)} of {noted.ran} tests fail: {' '.join(noted.failed)}\n"
                + (copy / "said.txt").read_text()[-3000:]
            )
        print(f"{len(chosen)} mutants; unbroken, {noted.ran} tests pass", flush=True)
        survived, wide = 0, max(len(m.what) for m in chosen)
        for m in chosen:
            file, began = copy / "dermsearch" / m.file, time.monotonic()
            text = file.read_text()
            if text.count(m.line) != 1:
                said, fine = f"NOT BROKEN: its line stands {text.count(m.line)} times in {m.file}", False
            else:
                file.write_text(text.replace(m.line, m.broken))
                code, noted = outcome(copy, m.tests, stop=True)
                file.write_text(text)
                said, fine = fate(code, noted)
            survived += not fine
            print(f"{m.what:<{wide}}  {said}  ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - survived} killed, {survived} survived")
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
