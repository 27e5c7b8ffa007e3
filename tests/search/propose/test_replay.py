"""Searches without training: what a table allows, what they cost, and what the command says of it."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.search.propose.replay import Replayed, TableSpace, cost, replay
from dermsearch.search.propose.replay_picture import regrets
from dermsearch.search.propose.tables import read_table
from dermsearch.study.config import Search

TABLE1, TABLE2 = read_table("aiseeme_table1"), read_table("aiseeme_table2")
NAMED = ("grid", "random", "tpe", "curriculum_prior")


def setting(sampler: str, together: int = 1) -> Search:
    return Search.model_validate({"sampler": sampler, "trials": 10**4, "lag": together})


def test_the_published_tables_are_whole() -> None:
    assert (len(TABLE1), sum(map(len, TABLE1))) == (15, 33)
    assert (len(TABLE2), sum(map(len, TABLE2))) == (22, 46)
    assert max(TABLE2, key=lambda c: TABLE2[c]) == Curriculum(("moco_v2", "swav", "rotation"))


def test_a_space_has_what_the_table_has_and_nothing_else() -> None:
    space = TableSpace(TABLE2, sorted({t for c in TABLE2 for t in c}))
    walked = {
        chain
        for length in (1, 2, 3)
        for chain in map(Curriculum, itertools.product(space.tasks, repeat=length))
        if all(t in space.may_follow(chain.prefix(i), left=length - 1 - i) for i, t in enumerate(chain))
    }
    assert walked == set(TABLE2) == {p.curriculum for p in space.every()}
    assert space.may_follow(Curriculum(), left=2) == ["moco_v2"], "the only first task of curricula of three"


@pytest.mark.parametrize("sampler", NAMED)
def test_every_sampler_finds_the_best_and_stops_at_the_whole_table(sampler: str) -> None:
    for table in (TABLE1, TABLE2):
        run = replay(table, setting(sampler), 0, to_the_end=True)
        assert run.spent == len(table), "every stage once"
        assert run.found is not None and run.found <= len(table)
        assert run.scores[-1] == max(table.values()) and list(run.scores) == sorted(run.scores)
        assert replay(table, setting(sampler), 0).found == run.found
        if table is TABLE2 and sampler == "tpe":
            continue  # seconds
        alone = replay(table, setting(sampler), 0, sharing=False, to_the_end=True)
        assert alone.spent == sum(map(len, table)), "every curriculum whole"


def test_the_prior_finds_the_best_of_table_1_in_a_fifth_of_the_stages() -> None:
    """Its settings come from made-up tables, see benchmarks/replay.py."""
    found = cost(TABLE1, [replay(TABLE1, setting("curriculum_prior"), seed) for seed in range(15)])
    assert found.exhaustive / found.median >= 5


def test_costs_are_summed_up_and_a_search_without_the_best_is_endless() -> None:
    table = {Curriculum.parse(c): s for c, s in {"a": 1.0, "b": 2.0, "a > b": 3.0}.items()}
    runs = [Replayed((1, 2), (1.0, 3.0), 2, 3), Replayed((1, 3), (2.0, 3.0), 3, 3), Replayed((1,), (1.0,), None, 1)]
    found = cost(table, runs)
    assert (found.found, found.median, found.exhaustive) == (2, 3, 4)
    assert found.ninetieth == float("inf")
    assert found.regret[2] == pytest.approx((0 + 1 + 2) / 3)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("curriculum,score\na,0.5\nb,0.6\na > b,0.8\nb>a,0.7\nno pre-training,0.4\n")
    table = read_table(str(path))
    assert {str(c): s for c, s in table.items()} == {"a": 0.5, "b": 0.6, "a > b": 0.8, "b > a": 0.7}
    path.write_text("curriculum,score\na,0.5\na > b,0.8\nb > a,0.7\n")
    with pytest.raises(UserError, match="'b > a' has one, but not 'b'"):
        replay(read_table(str(path)), setting("grid"), 0)
    path.write_text("curriculum,score\na,0.5\n")
    with pytest.raises(UserError, match="has 1 curriculum with a score"):
        read_table(str(path))
    with pytest.raises(UserError, match="did you mean 'aiseeme_table1'"):
        read_table("aiseeme_tabel1")


def test_the_command_tells_costs_and_writes_them(tmp_path: Path) -> None:
    out = tmp_path / "costs.csv"
    asked = ["replay", "aiseeme_table1", "--sampler", "grid", "--sampler", "curriculum_prior", "--repeats", "5"]
    said = CliRunner().invoke(app, [*asked, "--csv", str(out)])
    assert said.exit_code == 0, said.output
    assert "odc > moco_v2" in said.output and "33 stages" in said.output
    rows = list(csv.DictReader(out.open()))
    shared = {r["sampler"]: float(r["value"]) for r in rows if r["measure"] == "median" and r["sharing"] == "yes"}
    assert shared["curriculum_prior"] <= 33 / 5
    assert {float(r["value"]) for r in rows if r["measure"] == "regret" and r["stages"] == "15"} >= {0.0}
    wrong = CliRunner().invoke(app, ["replay", "aiseeme_table1", "--sampler", "curriculum_prio"])
    assert isinstance(wrong.exception, UserError) and "did you mean 'curriculum_prior'" in str(wrong.exception)


def test_it_tells_on_standard_error_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermsearch.data.prepare.progress.EVERY", -1)
    said = CliRunner().invoke(app, ["replay", "aiseeme_table1", "--sampler", "grid", "--repeats", "3"])
    assert said.exit_code == 0 and "searches/s" not in said.stdout
    told = [line.partition(",")[0] for line in said.stderr.splitlines()]
    assert told == [f"{n} of 6 searches" for n in range(1, 7)]


def test_the_figure_says_what_it_shows(tmp_path: Path) -> None:
    asked = ["replay", "aiseeme_table1", "--sampler", "grid", "--sampler", "random", "--repeats", "3"]
    said = CliRunner().invoke(app, [*asked, "--figure", str(tmp_path / "regret.pdf")])
    assert said.exit_code == 0, said.output
    assert all(f"regret.{kind}" in said.output for kind in ("png", "svg", "pdf"))
    words = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "regret.svg").read_text(encoding="utf-8"))
    assert {
        "grid",
        "random",
        "shared: a stage counts once",
        "stages trained",
        "aiseeme_table1: regret over stages",
    } <= set(words)
    assert any("median of 3 searches" in word for word in words)


def test_what_every_search_has_found_is_no_regret_below_zero() -> None:
    goal = 0.784
    assert fmean([goal] * 3) > goal, "a mean is rounded"
    table = {Curriculum.parse(c): s for c, s in {"a": 0.5, "b": goal}.items()}
    assert {*cost(table, [Replayed((1,), (goal,), 1, 2)] * 3).regret.values()} <= {0.0, goal - 0.5}


def test_regret_over_stages_is_that_of_the_searches() -> None:
    table = {Curriculum.parse(c): s for c, s in {"a": 0.5, "b": 0.6, "a > b": 0.8}.items()}
    runs = [Replayed((1, 2), (0.5, 0.8), 2, 3), Replayed((2, 3), (0.6, 0.8), 3, 3)]
    assert [runs[1].best(spent) for spent in (1, 2, 3)] == [float("-inf"), 0.6, 0.8]
    found = regrets(table, runs)
    assert [row[0] for row in found] == [2, 3], "from where both know a score"
    assert found[0][1:] == pytest.approx((2, 10, 18)) and found[1][1:] == (0, 0, 0)


def test_repeats_differ_and_each_is_repeatable() -> None:
    runs = [replay(TABLE1, setting("random"), seed).found for seed in range(12)]
    assert len(set(runs)) > 3
    assert runs == [replay(TABLE1, setting("random"), seed).found for seed in range(12)]
