"""Where what was never begun hangs, and that thousands of it are found a place for at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dermsearch.curriculum import Curriculum
from dermsearch.results.tables.lineages import Key, Lineage, by_curriculum, lineages, stopper
from dermsearch.results.tables.schema import Results, build


def line(tasks: str, status: str = "done", root: str = "", setting: str = "{}") -> Lineage:
    key = Key(Curriculum(tuple(tasks)), (setting,) * len(tasks), root)
    return Lineage(key, key.beginning, ({"status": status},))


def test_it_hangs_below_its_longest_beginning_and_of_two_below_what_stopped_it() -> None:
    known = by_curriculum(
        [line("a"), line("ab"), line("ab", "failed", setting="1"), line("abc"), line("abcd"), line("abc", root="r")]
    )

    def found(tasks: str, root: str = "") -> Lineage | None:
        return stopper(Curriculum(tuple(tasks)), root, known)

    assert found("abd") == line("ab", "failed", setting="1") and found("adb") == line("a")
    assert found("abcd") == line("abc") and found("abcx", "r") == line("abc", root="r")
    assert found("ba") is None and found("a") is None and found("ab", "r") is None


def test_thousands_of_dropped_proposals_are_not_held_against_thousands_of_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(Lineage, "curriculum", property(lambda self: looks.append(1) or self.key.curriculum))
    names = ["a", *(f"a > b{i}" for i in range(300))]
    done: dict[str, Any] = {"status": "done", "seed": 0, "settings": "{}"}
    stages = [done | {"key": name, "parent": name.rpartition(" > ")[0], "curriculum": name} for name in names]
    dropped = {"status": "dropped", "root": "", "settings": "{}", "keys": []}
    trials = [dropped | {"trial": i, "curriculum": f"a > b{i} > c"} for i in range(300)]
    tables = {"stages": build("stages", stages), "trials": build("trials", trials)}
    found = lineages(Results(Path(), {}, tables))
    below = [each for each in found.values() if each.status == "dropped"]
    assert len(below) == 300 and all(each.parent == found[each.parent].key for each in below)
    assert {str(each.parent.curriculum) for each in below} == {*names[1:]}
    assert len(looks) < 10 * len(found)
