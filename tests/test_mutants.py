"""The lines that `benchmarks/mutants.py` breaks are lines of today, and so are the tests that must notice."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.mutants import ROOT, Mutant, keys, table


@pytest.mark.parametrize("mutant", [*keys(), *table()], ids=lambda mutant: mutant.what)
def test_a_line_to_break_is_there_and_so_are_its_tests(mutant: Mutant) -> None:
    """A line that has moved on would make its mutant one that nobody tries."""
    assert (ROOT / "dermsearch" / mutant.file).read_text().count(mutant.line) == 1 and mutant.broken != mutant.line
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text()


def test_no_mutant_is_there_twice() -> None:
    every = [*keys(), *table()]
    assert len({mutant.what for mutant in every}) == len(every) >= 90
    assert {mutant.what.split(":")[0] for mutant in keys()} >= {f"key of a {kind}" for kind in ("stage", "fit", "root")}
