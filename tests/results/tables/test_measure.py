"""Which number is compared: named by protocol, data set and labels, or completed by the study's objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermsearch.errors import UserError
from dermsearch.results import Results, load
from dermsearch.results.board.leaderboard import leaderboard, render
from dermsearch.results.explain.evidence import gather
from dermsearch.results.explain.explain import explain
from dermsearch.results.pictures.figures import curriculum_figure, tree_figure
from dermsearch.results.tables.measure import choose, judge_of, read_scores
from dermsearch.results.tables.schema import SCHEMAS, build, write

SETS = {"derm7pt": {"source": "store"}, "ham": {}, "pad": {"source": "store"}}
OBJECTIVE = {"protocol": "finetune@pad", "labelled": "20", "metric": "auc", "label": "mean"}
JUDGES = [  # protocol, data set, labels, draws
    ("linear", "derm7pt", "all", 1),
    ("linear", "ham", "all", 1),
    ("finetune", "pad", "5", 3),
    ("finetune", "pad", "20", 3),
]


def study(folder: Path, about: Mapping[str, Any] = {"data": SETS, "objective": OBJECTIVE}) -> Results:
    """One task on two seeds and two roots, judged on three data sets, once from few labels; its fits are stages."""
    stages, scores, judgements = [], [], []
    for root in ("random", "file"):
        for seed in (0, 1):
            start, key = f"{root}-root-{seed}", f"{root}-odc-{seed}"
            of = {"root": root, "seed": seed, "status": "done"}
            stages.append(of | {"key": key, "parent": start, "curriculum": "odc", "task": "odc", "settings": "{}"})
            for at, curriculum, worth in ((start, "no pre-training", 0.5), (key, "odc", 0.7)):
                worth += 0.1 * (root == "file") + 0.01 * seed
                for j, (protocol, data, labelled, draws) in enumerate(JUDGES):
                    for draw in range(draws):
                        own = {"protocol": protocol, "data": data, "labelled": labelled, "draw": draw, "split": "val"}
                        fit = f"{at}-{protocol}-{labelled}-{draw}" if protocol == "finetune" else at
                        row = own | {"stage": fit, "curriculum": curriculum, "root": root, "seed": seed}
                        value = worth + 0.02 * j + 0.03 * draw
                        ends = {"value": value, "ci_low": value - 0.04, "ci_high": value + 0.06, "n": 90}
                        scores.append(row | {"label": "mean", "class": "", "metric": "auc"} | ends)
                        if fit != at:
                            kind = {"kind": "fit", "task": protocol, "settings": "{}"}
                            stages.append(of | kind | {"key": fit, "parent": at, "curriculum": curriculum})
    failed = {"stage": "random-odc-1", "protocol": "knn", "data": "ham", "labelled": "all", "split": "val"}
    judgements.append(failed | {"status": "failed", "reason": "out of memory"})
    few = {"stage": "file-odc-0", "protocol": "knn", "data": "ham", "labelled": "all", "split": "val"}
    scores.append(few | {"root": "file", "curriculum": "odc", "seed": 0, "class": "", "label": "mean", "metric": "auc"})
    scores[-1] |= {"value": 0.8, "n": 90}
    rows = {"stages": stages, "scores": scores, "judgements": judgements}
    for name in SCHEMAS:
        write(build(name, rows.get(name, [])), folder / "tables" / f"{name}.arrow")
    (folder / "study.yaml").write_text(yaml.safe_dump(dict(about)))
    return load(folder)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("linear", ("linear", None, None)),
        ("linear@ham", ("linear", "ham", None)),
        ("finetune@pad:20", ("finetune", "pad", "20")),
        ("knn:10%", ("knn", None, "10%")),
        (None, (None, None, None)),
    ],
)
def test_a_judge_in_words(text: str | None, parts: tuple[str | None, ...]) -> None:
    assert tuple(judge_of(text).values()) == parts


@pytest.mark.parametrize("text", ["", "@ham", "linear@", "linear:20@ham", "linear@a@b"])
def test_what_is_no_judge_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="protocol: must be written as linear, linear@ham or finetune@pad:20, not '"):
        judge_of(text)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, "finetune@pad:20"),  # the objective
        ("finetune@pad:5", "finetune@pad:5"),
        ("finetune", "finetune@pad:20"),  # judged on one data set
        ("linear", "linear@derm7pt"),  # of several, the first of the study
        ("linear@ham", "linear@ham"),
    ],
)
def test_a_measure_is_completed(tmp_path: Path, asked: str | None, said: str) -> None:
    measure = choose(study(tmp_path), asked)
    assert measure.judge == said and (measure.metric, measure.label, measure.split) == ("auc", "mean", "val")


def test_what_is_not_there_or_not_told_is_said(tmp_path: Path) -> None:
    results = study(tmp_path)
    with pytest.raises(UserError, match="no scores with data 'hamm': did you mean 'ham'"):
        choose(results, "linear@hamm")
    with pytest.raises(UserError, match="no scores with labelled '50'"):
        choose(results, "finetune@pad:50")
    bare = Results(results.folder, {}, results.tables)
    with pytest.raises(UserError, match=r"data: must be named, .*: derm7pt, ham; as --protocol linear@derm7pt"):
        choose(bare, "linear")
    with pytest.raises(UserError, match=r"labelled: must be named, .*: 20, 5; as --protocol finetune@pad:20$"):
        choose(bare, "finetune@pad")


def test_a_fit_scores_the_stage_that_it_was_fitted_to_on_the_mean_over_draws(tmp_path: Path) -> None:
    results = study(tmp_path)
    scores, baselines = read_scores(results, choose(results))
    assert sorted(scores) == [f"{root}-odc-{seed}" for root in ("file", "random") for seed in (0, 1)]
    score = scores["random-odc-1"]
    assert score.values == pytest.approx((0.77, 0.80, 0.83)) and score.value == pytest.approx(0.8)
    assert (score.below, score.above, score.n) == (pytest.approx(0.04), pytest.approx(0.06), 90)
    assert baselines.keys() == {("no pre-training", "random"), ("no pre-training", "file")}
    assert baselines["no pre-training", "file"][1].value == pytest.approx(0.5 + 0.1 + 0.01 + 0.06 + 0.03)


def test_roots_are_compared_in_one_leaderboard(tmp_path: Path) -> None:
    results = study(tmp_path)
    rows = leaderboard(results)
    assert [(row.name, row.rank) for row in rows] == [
        ("file: odc", 1),
        ("random: odc", 2),
        ("file", None),
        ("random: no pre-training", None),
    ]
    assert all(row.draws == 3 and row.seeds == (0, 1) for row in rows)
    assert [row.delta_none for row in rows[:2]] == pytest.approx([0.2, 0.2])  # each against its own root
    given, random = rows[2:]
    assert given.to_none is not None and given.to_none.value == pytest.approx(0.1), (
        "weights from elsewhere by random ones"
    )
    assert random.to_none is None
    assert rows[0].spread.freedom == 4 and rows[0].spread.seeds
    table = render(rows, "t")
    assert "file: odc" in str([*table.columns[1].cells]) and "2 x 3" in str([*table.columns[6].cells])
    assert "protocol finetune@pad:20" in str(table.caption)


def test_a_failed_judgement_is_told(tmp_path: Path) -> None:
    rows = {row.name: row for row in leaderboard(study(tmp_path), "knn@ham")}
    assert rows["file: odc"].score == 0.8
    assert (rows["random: odc"].status, rows["random: odc"].error) == ("unscored", "out of memory")


def test_figures_and_explanations_hold_several_roots(tmp_path: Path) -> None:
    results = study(tmp_path)
    for draw in (curriculum_figure, tree_figure):
        svg = draw(results, tmp_path / draw.__name__)[1].read_text()
        assert "random" in svg and "file" in svg and "fine-tuning@pad:20" in svg
    found = explain(gather(results.folder, "linear@ham"))
    (odc,) = found.evidence.curricula
    assert odc.values == pytest.approx({("random", 0): 0.72, ("random", 1): 0.73, ("file", 0): 0.82, ("file", 1): 0.83})
