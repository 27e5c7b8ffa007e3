"""The board says what it means: what is settled, what is a tie, how many cases, what chance gives, how to go on."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from results.board.test_leaderboard import by_curriculum, render_text, with_table
from results.board.test_paired import kept, predicted
from rich.console import Console

from dermsearch.cli.running import show
from dermsearch.results.board.leaderboard import leaderboard, render
from dermsearch.results.board.settled import above_none, further, settled


def board(results) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(render(leaderboard(results), "title", results))
    return " ".join(console.file.getvalue().split())


VALUES = {"no pre-training": 0.5, "moco_v2": 0.7, "odc": 0.52, "relative_location": 0.3}


def test_one_line_says_what_is_settled_and_the_next_how_to_go_on(make_study):
    results = make_study(longest=1, values=VALUES, study={"name": "skin", "train": {"epochs": 4}})
    rows = leaderboard(results)
    first, ((why, then), (_, longer)) = settled(rows), further(rows, results)
    assert first == (
        "1 of 3 curricula is above no pre-training, 1 below; moco_v2 is the best. "
        "One seed: what stages have by luck is in none of this."
    )
    folder = results.folder
    assert why == "To go on, 3 seeds are recommended"
    assert then == f"dermsearch run {folder}/study.yaml 'search.seeds=[0, 1, 2]' --out {folder}"
    assert "train.epochs=8 name=skin-longer" in longer
    assert first in board(results)


def test_the_commands_that_go_on_stand_whole_on_lines_of_their_own(make_study):
    """However narrow the terminal: they are there to be copied."""
    results = make_study(longest=1, values=VALUES, study={"name": "skin", "train": {"epochs": 4}})
    rows, console = leaderboard(results), Console(width=60, file=io.StringIO())
    show(console, rows, "title", results)
    lines = console.file.getvalue().splitlines()
    for why, command in further(rows, results):
        assert len(command) > 60 and lines[lines.index(f"{why}:") + 1] == f"  {command}"


def test_a_quick_look_settles_nothing_and_advises_nothing(make_study):
    results = make_study(longest=1, values=VALUES, study={"name": "skin-quick", "train": {"epochs": 4}})
    rows = leaderboard(results)
    assert "its scores tell nothing" in board(results) and "above no pre-training" not in board(results)
    assert further(rows, results) == [] and "runs without --quick" in settled(rows, results)


def test_seeds_and_draws_are_spelt_out(make_study):
    results = make_study(longest=1)
    rows = [replace(row, draws=3) for row in leaderboard(results)]
    assert "1 x 3: seeds x draws of labels" in render_text(rows)
    assert "draws of labels" not in render_text(leaderboard(results))


def test_of_one_curriculum_it_is_said_where_it_stands(make_study):
    def told(value: float) -> str:
        results = make_study(tasks=("odc",), longest=1, values={"no pre-training": 0.5, "odc": value})
        rows = leaderboard(results)
        assert further(rows, results)
        return settled(rows)

    assert told(0.7).startswith("odc is above no pre-training. One seed")
    assert told(0.3).startswith("odc is below") and told(0.51).startswith("odc cannot be told from")


@pytest.mark.parametrize("width", [72, 80])
def test_no_name_of_a_task_is_cut_where_the_terminal_is_narrow(width, make_study):
    """At 80 columns a task stands on one line; narrower, it goes on below."""
    console, results = Console(width=width, file=io.StringIO()), make_study(seeds=(0, 1, 2))
    console.print(render([replace(row, draws=3) for row in leaderboard(results)], "title", results))
    lines = console.file.getvalue().splitlines()
    assert "…" not in console.file.getvalue() and max(map(len, lines)) <= width
    assert any("relative_location" in line for line in lines) == (width == 80)


def test_of_many_curricula_it_is_said_how_many_chance_alone_puts_above(make_study):
    best, *_, worst = [row for row in leaderboard(make_study(longest=1, values=VALUES)) if row.length]
    assert above_none([best] + 39 * [worst]).startswith(
        "1 of 40 curricula is above no pre-training (1 of so many would be by chance, were none better), 39 below"
    )
    assert "chance" not in above_none([best] + 9 * [worst]) and "chance" not in above_none(40 * [worst])


def test_longer_training_is_that_of_tasks_with_epochs_of_their_own_too(make_study):
    tasks = {"moco_v2": {"epochs": 6, "lr": 0.1}, "odc": None, "relative_location": {"epochs": {"choice": [1, 2]}}}
    study = {"name": "skin", "train": {"epochs": 4}, "curriculum": {"tasks": tasks}}
    results = make_study(longest=1, values=VALUES, study=study)
    *_, (_, longer) = further(leaderboard(results), results)
    assert "study.yaml train.epochs=8 curriculum.tasks.moco_v2.epochs=12 name=skin-longer" in longer


def test_three_seeds_need_no_advice_to_take_three(make_study):
    results = make_study(longest=2, seeds=(3, 4, 5))
    ((why, then),) = further(leaderboard(results), results)
    assert "One seed" not in settled(leaderboard(results)) and "recommended" not in why
    assert "'search.seeds=[3, 4, 5, 0, 1, 2]'" in then


def test_what_cannot_be_told_from_the_best_has_its_rank(make_study):
    values = VALUES | {"odc": 0.69, "relative_location": 0.68}
    results = make_study(longest=1, values=values)
    rows = leaderboard(results)
    assert [(row.curriculum, row.rank, row.ties) for row in rows[:3]] == [
        ("moco_v2", 1, False),
        ("odc", 1, True),
        ("relative_location", 1, True),
    ]
    assert "which is best cannot be told" in settled(rows) and "1= moco_v2" in board(results)
    apart = leaderboard(make_study(longest=1, values=VALUES))
    assert [row.rank for row in apart] == [1, 2, None, 3] and "1=" not in render_text(apart)


def test_the_best_is_held_against_the_best_task_alone(make_study):
    values = VALUES | {"moco_v2 > odc": 0.9} | dict.fromkeys(("odc > moco_v2", "odc > relative_location"), 0.3)
    results = make_study(longest=2, values=values)
    assert "the best is above moco_v2, the best task alone" in settled(leaderboard(results))
    results = make_study(longest=2, values={**values, "moco_v2 > odc": 0.71})
    assert "the best is not above moco_v2, the best task alone" in settled(leaderboard(results))


def test_without_predictions_differences_are_said_to_be_unpaired(make_study):
    results = make_study(longest=1, values=VALUES)
    row = by_curriculum(leaderboard(results))["moco_v2"]
    assert row.to_none.half == pytest.approx(np.hypot(0.029, 0.029)) and not row.to_none.paired
    assert "+20.0 ± 4.1" in board(results) and "unpaired: as if each had other patients" in board(results)


def test_with_predictions_differences_are_paired(make_study):
    results = make_study(longest=1)
    stages = [s["key"] for s in results.stages.to_pylist()]
    given = {key: {(0, 0): {"diagnosis": predicted(i + 1)}} for i, key in enumerate(["root-0", *stages])}
    results = results.__class__(results.folder, results.study, results.tables | {"predictions": kept(given)})
    rows = leaderboard(results)
    assert all(row.to_none.paired for row in rows if row.length)
    assert "unpaired" not in board(results)


def test_cases_chance_data_and_groups_are_named(make_study):
    results = make_study(longest=1, study={"data": {"source": "synthetic", "cases": 600}})
    recall = [
        s | {"class": c, "metric": "recall", "n": n, "groups": "lesions"}
        for s in results.scores.to_pylist()
        if s["class"] == "" and s["metric"] == "macro_f1"
        for c, n in (("a", 300), ("b", 99), ("c", 1), ("d", 0))
    ]
    known = [s | {"groups": "lesions"} for s in results.scores.to_pylist()]
    said = board(with_table(results, "scores", [*known, *recall]))
    assert "balanced accuracy of diagnosis (chance 33.3 %)" in said
    assert "400 cases of split val of 600 built-in cases" in said
    assert "bootstrap over lesions" in said and "patients" not in said


def test_orders_are_spelt_out(make_study):
    said = board(make_study())
    for each in ("C: a curriculum, its tasks' own scores rise along it", "MC: mixed, neither rising nor falling"):
        assert each in said
    assert "AC: an anti-curriculum, its tasks' own scores fall along it" in said, "it may be told without the first"
    assert "its tasks' own scores" not in board(make_study(longest=1))


def test_the_best_is_held_against_those_with_its_seeds_alone(make_study):
    results = make_study(longest=1, seeds=(0, 1), values=VALUES | {"odc": 0.69})
    lost = {"moco_v2": 1, "odc": 0}  # of each another seed failed: they share none
    kept = [s for s in results.scores.to_pylist() if s["seed"] != lost.get(s["curriculum"])]
    results = with_table(results, "scores", kept)
    assert "moco_v2 is the best of those that it can be held against." in settled(leaderboard(results))


def test_going_on_leaves_no_seed_behind_that_only_some_have(make_study):
    tasks = ("relative_location", "moco_v2", "odc", "simclr")
    results = make_study(tasks=tasks, longest=1, seeds=(0, 1, 2, 3))
    own = {name: seed for seed, name in enumerate(tasks)}  # of each the others failed
    kept = [s for s in results.scores.to_pylist() if s["seed"] == own.get(s["curriculum"], s["seed"])]
    results = with_table(results, "scores", kept)
    assert any("'search.seeds=[0, 1, 2, 3]'" in command for _, command in further(leaderboard(results), results))
