import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console
from scipy import stats

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.results.board.leaderboard import leaderboard, ordering, render, summary
from dermsearch.results.tables.schema import Results, build

SCORES = {"a": 0.5, "b": 0.6, "c": 0.7}


def render_text(rows: list, results: Results | None = None) -> str:
    """The leaderboard as it reaches a file 100 columns wide."""
    console = Console(width=100, file=io.StringIO())
    console.print(render(rows, "title", results))
    return console.file.getvalue()


def by_curriculum(rows):
    return {row.curriculum: row for row in rows}


@pytest.mark.parametrize(
    ("tasks", "mark"),
    [
        ("a", ""),
        ("ab", "C"),
        ("ba", "AC"),
        ("abc", "C"),
        ("cba", "AC"),
        ("acb", "MC"),
        ("bac", "MC"),
        ("ax", "?"),
    ],
)
def test_ordering(tasks, mark):
    assert ordering(Curriculum(tuple(tasks)), SCORES) == mark


def test_ordering_is_strict():
    assert ordering(Curriculum(("a", "b")), {"a": 0.5, "b": 0.5}) == "MC"
    assert ordering(Curriculum(("a", "b", "c")), {"a": 0.5, "b": 0.5, "c": 0.6}) == "MC"
    assert ordering(Curriculum(("x",)), {}) == ""


def test_one_seed(make_study):
    rows = leaderboard(make_study())
    ties = [row.ties for row in rows[:15]]
    assert ties == [False, *[True] * 6, *[False] * 8]  # the intervals of one seed, unpaired
    assert [row.rank for row in rows] == [*[1] * 7, *range(8, 16), None]
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)
    assert rows[-1].curriculum == "no pre-training"
    assert rows[-1].length == 0 and rows[-1].order == "" and rows[-1].delta_none is None
    row = by_curriculum(rows)["odc > moco_v2"]
    assert (row.rank, row.order, row.length, row.seeds) == (1, "C", 2, (0,))
    assert row.score == pytest.approx(0.7544)
    assert (row.low, row.high) == pytest.approx((0.7244, 0.7824))  # the bootstrap interval of the table
    assert row.delta_first == pytest.approx(0.1192)
    assert row.delta_none == pytest.approx(0.7544 - 0.4927)
    assert by_curriculum(rows)["odc"].delta_first is None
    assert by_curriculum(rows)["moco_v2 > odc > relative_location"].delta_first == pytest.approx(-0.0574)


def test_where_less_is_better_the_least_comes_first(make_study):
    """As of the share of runs that collapsed into one class: most of it was ranked first."""
    results = make_study(longest=2, values={"odc": 0.1, "moco_v2 > odc": 0.12, "no pre-training": 0.5})
    scores = [s | {"metric": s["metric"].replace("balanced_accuracy", "collapsed")} for s in results.scores.to_pylist()]
    results = with_table(results, "scores", scores)
    rows = leaderboard(results, metric="collapsed")
    assert [row.curriculum for row in rows[:2]] == ["odc", "moco_v2 > odc"]
    assert [row.score for row in rows] == sorted(row.score for row in rows)
    assert [(row.rank, row.ties) for row in rows[:4]] == [(1, False), (1, True), (None, False), (3, False)]
    text = " ".join(render_text(rows, results).split())
    assert "less is better" in text and "2 of 9 curricula are below no pre-training" in text
    assert "the best is not below" not in text


def test_no_pre_training_stands_in_its_place(make_study):
    rows = leaderboard(make_study(longest=1, values={"no pre-training": 0.7}))
    assert [(row.curriculum, row.rank) for row in rows] == [
        ("moco_v2", 1),
        ("no pre-training", None),
        ("relative_location", 1),  # cannot be told from it
        ("odc", 3),
    ]


def test_seeds_are_replicates(make_study):
    results = make_study(seeds=(3, 4, 5))
    rows = by_curriculum(leaderboard(results))
    assert len(rows) == 16
    frame = results.pandas("scores")
    frame = frame[(frame.protocol == "knn") & (frame.metric == "balanced_accuracy") & (frame.split == "val")]
    of = {name: group.set_index("seed").value for name, group in frame.groupby("curriculum")}
    row = rows["odc > moco_v2"]
    assert row.seeds == (3, 4, 5)
    assert row.score == pytest.approx(of["odc > moco_v2"].mean())
    assert row.delta_first == pytest.approx((of["odc > moco_v2"] - of["odc"]).mean())
    # The spread between seeds is that of all curricula together; of this root the seeds agree, so it tells nothing.
    variance = sum(values.var() for name, values in of.items() if name != "no pre-training") / 15
    half = stats.t(30).ppf(0.975) * (variance / 3) ** 0.5
    low, high = math.hypot(0.03, half), math.hypot(0.028, half)
    assert (row.low, row.high) == pytest.approx((row.score - low, row.score + high), abs=1e-12)


def test_seeds_that_all_agree_are_one_measurement(make_study):
    """As weights from a file have it: nothing is pooled into the interval of a root that differs by no seed."""
    rows = leaderboard(make_study(seeds=(0, 1, 2), longest=1, values={"no pre-training": 0.6}))
    row = by_curriculum(rows)["no pre-training"]
    assert len(row.seeds) == 3 and (row.low, row.high) == pytest.approx((0.57, 0.628))
    assert by_curriculum(rows)["odc"].spread.freedom == 6


def test_differences_use_only_shared_seeds(make_study):
    results = make_study(seeds=(0, 1), longest=1, values={"no pre-training": 0.4, "odc": 0.5})
    scores = [
        s | {"value": 0.1} if s["seed"] == 1 and s["curriculum"] == "no pre-training" else s
        for s in results.scores.to_pylist()
        if not (s["curriculum"] == "odc" and s["seed"] == 1)
    ]
    row = by_curriculum(leaderboard(with_table(results, "scores", scores)))["odc"]
    assert row.seeds == (0,)
    assert row.delta_none == pytest.approx(0.1)


def with_table(results, name, rows):
    return Results(results.folder, results.study, results.tables | {name: build(name, rows)})


def test_searched_settings_make_rows_of_their_own(make_study):
    settings = {"moco_v2": [{"lr": 0.03, "epochs": 5}, {"lr": 0.1, "epochs": 5}]}
    results = make_study(longest=2, settings=settings, seeds=(0, 1))
    stages = {s["key"]: s for s in results.stages.to_pylist()}

    def value(score):
        """moco_v2 with the higher rate is 10 points better wherever it is the first task."""
        stage = stages.get(score["stage"])
        first = stages.get(stage["parent"], stage) if stage else None
        high = first and first["task"] == "moco_v2" and json.loads(first["settings"])["lr"] == 0.1
        return 0.6 if high else 0.5

    scores = [s | {"value": value(s)} for s in results.scores.to_pylist()]
    rows = leaderboard(with_table(results, "scores", scores))
    chains = [row for row in rows if row.curriculum == "moco_v2 > odc"]
    assert [len(row.seeds) for row in chains] == [2, 2]
    assert [row.score for row in chains] == pytest.approx([0.6, 0.5])
    assert [row.delta_first for row in chains] == pytest.approx([0, 0])  # each to the first task of its own lineage
    assert [json.loads(row.settings[0])["lr"] for row in chains] == [0.1, 0.03]
    # The best row of moco_v2 alone decides the order: 0.6 > 0.5 of odc.
    assert {row.order for row in chains} == {"AC"}
    text = render_text(rows)
    assert "moco_v2: lr=0.1" in text and "epochs" not in text


def test_failed_and_dropped_stand_at_the_bottom(make_study):
    failed = {"relative_location > odc": "failed", "moco_v2": "pruned"}
    rows = leaderboard(make_study(failed=failed))
    assert len(rows) == 16
    states = {row.curriculum: row.status for row in rows if row.score is None}
    assert states == {
        "moco_v2": "pruned",
        "relative_location > odc": "failed",
        "moco_v2 > odc": "dropped",
        "moco_v2 > relative_location": "dropped",
        "moco_v2 > odc > relative_location": "dropped",
        "moco_v2 > relative_location > odc": "dropped",
        "relative_location > odc > moco_v2": "dropped",
    }
    assert all(row.score is None and row.rank is None for row in rows[-7:])
    assert by_curriculum(rows)["relative_location > odc"].error == "the loss is not finite in epoch 3"
    assert by_curriculum(rows)["odc > moco_v2"].order == "?"
    assert by_curriculum(rows)["relative_location > odc > moco_v2"].error == "dropped: relative_location > odc failed"
    text = " ".join(render_text(rows).split())
    assert "pruned: dropped" not in text and "dropped: relative_location > odc failed" in text
    assert "failed: the loss is not finite in epoch 3" in text and "?: a task has no score alone" in text


def test_a_seed_that_failed_is_said_and_not_counted(make_study):
    results = make_study(seeds=(0, 1, 2), longest=1)
    broken = next(s for s in results.stages.to_pylist() if s["curriculum"] == "odc" and s["seed"] == 1)
    stages = [
        s | {"status": "failed", "error": "out of memory"} if s["key"] == broken["key"] else s
        for s in results.stages.to_pylist()
    ]
    scores = [s for s in results.scores.to_pylist() if s["stage"] != broken["key"]]
    row = by_curriculum(leaderboard(with_table(with_table(results, "stages", stages), "scores", scores)))["odc"]
    assert (row.status, row.seeds, row.error) == ("done", (0, 2), "seed 1 failed: out of memory")


def test_other_measures(make_study):
    results = make_study()
    knn, linear = (by_curriculum(leaderboard(results, protocol=p))["odc"].score for p in ("knn", "linear"))
    assert linear - knn == pytest.approx(0.04)
    assert by_curriculum(leaderboard(results, split="test"))["odc"].score == pytest.approx(knn - 0.02)
    assert by_curriculum(leaderboard(results, metric="macro_f1"))["odc"].score == pytest.approx(knn - 0.05)
    with pytest.raises(UserError, match="protocol 'linea': did you mean 'linear'"):
        leaderboard(results, protocol="linea")
    with pytest.raises(UserError, match="metric 'auc'"):  # only one class has it
        leaderboard(results, metric="auc")
    with pytest.raises(UserError, match="protocol: must be named, for there are several: knn, linear"):
        leaderboard(Results(results.folder, {}, results.tables))
    with pytest.raises(UserError, match="no encoder has been scored"):
        leaderboard(with_table(results, "scores", []))


def test_text_is_aligned_and_fits(make_study):
    failed = {"odc > moco_v2": "failed"}
    for options in ({}, {"seeds": (0, 1, 2)}, {"failed": failed}):
        text = render_text(leaderboard(make_study(**options)))
        assert max(map(len, text.splitlines())) <= 100
    lines = render_text(leaderboard(make_study())).splitlines()
    best = next(line for line in lines if line.strip().startswith("1= "))
    assert " ".join(best.split()) == "1= odc > moco_v2 C 75.4 [72.4, 78.2] +26.2 ± 4.1 +2.7 ± 4.1 1"
    assert "-0.0" not in render_text(leaderboard(make_study()))  # moco_v2 > odc is 0.02 points below moco_v2


def test_footnotes_say_where_the_interval_comes_from(make_study):
    one, several = (render_text(leaderboard(make_study(seeds=seeds))) for seeds in ((0,), (0, 1)))
    assert "balanced accuracy of diagnosis, protocol knn, split val" in one
    assert "bootstrap" in one and "Student" not in one
    assert "Student" in several and "one seed" not in several


def test_rich_table(make_study):
    rows = leaderboard(make_study())
    table = render(rows, "Leaderboard")
    assert table.row_count == 16
    assert [row.style for row in table.rows] == ["bold", *[""] * 14, "dim"]
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table)
    shown = capture.get()
    assert "relative_location > odc > moco_v2" in shown  # on one line
    assert "75.4 [72.4, 78.2]" in shown and "+26.2 ± 4.1" in shown


def test_summary_is_json(make_study):
    rows = leaderboard(make_study(failed={"moco_v2 > odc": "failed"}))
    out = json.loads(json.dumps(summary(rows)))
    assert out["best"] == "odc > moco_v2"
    assert out["no_pre_training"] == pytest.approx(0.4927)
    assert out["objective"]["protocol"] == "knn"
    assert len(out["rows"]) == 16
    assert out["mean_by_order"]["C"] == pytest.approx((0.7410 + 0.6823 + 0.7336 + 0.7544) / 4)
    assert out["mean_by_last_task"]["relative_location"] == pytest.approx((0.6672 + 0.6823 + 0.6573) / 3)
    assert summary([])["best"] is None


def test_rows_are_immutable_and_hashable(make_study):
    row = leaderboard(make_study(longest=1))[0]
    assert hash(row) == hash(replace(row))
    with pytest.raises(AttributeError):
        row.score = 1.0
