"""Differences are paired over patients, seeds and draws, and hold the truth as often as they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dermsearch.curriculum import Curriculum
from dermsearch.evaluate import compare
from dermsearch.evaluate.predictions import predictions
from dermsearch.metrics import Measurement, case_weights, mean_over_labels, whole
from dermsearch.results.board.differences import differences, drawn, replicate_differences, weights_of
from dermsearch.results.board.intervals import Spread
from dermsearch.results.board.paired import Difference, by_replicate, patients, together
from dermsearch.results.tables.lineages import Key
from dermsearch.results.tables.measure import Measure, Score
from dermsearch.results.tables.said import Said, said
from dermsearch.results.tables.schema import Results
from dermsearch.results.tables.writer import joined

CLASSES = ("a", "b", "c")


@dataclass(frozen=True)
class Predicted:
    """What was said of one label of every case, and what they are."""

    truth: np.ndarray  # (cases,) class, -1 where unknown
    probabilities: np.ndarray  # (cases, classes)
    groups: np.ndarray  # (cases,) patients, or what stands for them


def resampled(labels: Sequence[Predicted], metric: str) -> np.ndarray:
    """A metric of whole labels on the cases and on every resample of their groups; over several labels the mean."""
    weights = case_weights(labels[0].groups)
    found = [whole(metric, each.truth, each.probabilities, weights) for each in labels]
    return next(mean_over_labels([Measurement("", "", metric, 0, values) for values in found], 0, {})).values


def paired_difference(a: dict, b: dict, metric: str, spread: Spread | None = None) -> Difference:
    """What `a` is above `b`, over the seeds and draws that both have, from what is said of the same cases."""
    ours, theirs = ({r: resampled(side[r], metric) for r in a} for side in (a, b))
    apart = by_replicate({r: float(ours[r][0] - theirs[r][0]) for r in a})
    spread = Spread.of_differences([("", apart)]) if spread is None else spread
    return Difference(float(np.mean(apart)), together(patients(ours, theirs), spread.half(len(apart))), True)


def predicted(seed: int, cases: int = 80, skill: float = 1.0, unknown: int = 0) -> Predicted:
    """Cases that are hard or easy for everybody, and what somebody of that skill says of them."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    truth = shared.integers(0, 3, cases)
    scores = skill * np.eye(3)[truth] + shared.normal(size=(cases, 3)) + 0.3 * own.normal(size=(cases, 3))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predicted(np.where(np.arange(cases) < unknown, -1, truth), probabilities, np.arange(cases) // 2)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "auc"])
def test_a_metric_is_that_of_the_scores_with_the_same_resamples(metric: str) -> None:
    labels = {"x": predicted(1), "y": predicted(2, unknown=30)}
    rows = compare(
        {name: each.truth for name, each in labels.items()},
        dict.fromkeys(labels, CLASSES),
        labels["x"].groups,
        {name: each.probabilities for name, each in labels.items()},
        "val",
    ).rows
    row = next(r for r in rows if (r["label"], r["class"], r["metric"]) == ("mean", "", metric))
    found = resampled(list(labels.values()), metric)
    assert found[0] == pytest.approx(row["value"], abs=1e-12)
    assert np.quantile(found[1:], [0.025, 0.975]) == pytest.approx([row["ci_low"], row["ci_high"]], abs=1e-12)


def test_what_makes_cases_hard_falls_out_of_a_difference() -> None:
    a, b = ({(s, 0): [predicted(10 * k + s, skill=skill)] for s in (1, 2, 3)} for k, skill in ((1, 1.3), (2, 1.0)))
    found = paired_difference(a, b, "balanced_accuracy", Spread())
    assert found.above and not found.below
    each = [resampled(side[1, 0], "balanced_accuracy")[1:] for side in (a, b)]
    apart = np.hypot(*(np.subtract(*np.quantile(drawn, [0.975, 0.025])) / 2 for drawn in each))
    assert found.half is not None and found.half < 0.6 * apart
    same = paired_difference(a, a, "balanced_accuracy")
    assert (same.value, same.half, same.above) == (0.0, 0.0, False)


def test_seeds_and_draws_are_inside_one_interval() -> None:
    """Three draws of one seed: the half width is the root of the squares of the patients' and of Student's."""
    from scipy import stats

    a, b = ({(0, d): [predicted(20 * k + d, skill=1.2)] for d in range(3)} for k in (1, 2))
    of_patients = paired_difference(a, b, "auc", Spread()).half
    assert of_patients is not None
    apart = [resampled(a[r], "auc")[0] - resampled(b[r], "auc")[0] for r in a]
    half = stats.t(2).ppf(0.975) * np.std(apart, ddof=1) / 3**0.5
    assert paired_difference(a, b, "auc").half == pytest.approx(np.hypot(of_patients, half))


def test_differences_to_one_reference_are_not_as_many_measurements() -> None:
    """Six curricula that begin with three stages, two seeds: 2 degrees of freedom, not 6."""
    found = Spread.of_differences([(i // 2, [0.0, 0.02]) for i in range(6)])
    assert found.variance == pytest.approx(2e-4) and found.freedom == pytest.approx(2.0)
    assert Spread.of_differences([(0, [0.0, 0.02])]).freedom == 1
    assert Spread.of_differences([(0, [0.5])]).freedom == 0


def score(value: float, seed: int, stage: str = "", below: float | None = 0.0) -> Score:
    return Score(stage, "a", "", seed, 100, (value,), below, below)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("handed_on", [0.0, 1.0])
def test_it_covers_the_truth_19_times_in_20(seeds: int, handed_on: float) -> None:
    """Of curricula that are worth the same as no pre-training, with luck that stages hand on or do not."""
    rng, held, trials = np.random.default_rng(seeds), [], 400
    tasks = [*"abc"]
    curricula = [(a,) for a in tasks] + [(a, b) for a in tasks for b in tasks if a != b]
    for _ in range(trials):
        luck = {c: rng.normal(0, 0.02, seeds) for c in [(), *curricula]}
        for c in curricula[3:]:
            luck[c] = luck[c] + handed_on * luck[c[:1]]
        keys = {c: Key(Curriculum(c), ("{}",) * len(c)) for c in luck}
        scores = {keys[c]: [score(0.5 + x, s) for s, x in enumerate(values)] for c, values in luck.items()}
        found = differences(scores, {keys[c]: keys[()] for c in curricula}, {})
        held += [abs(d.value) <= d.half for d in found.values() if d.half is not None]
    # With two seeds it is wider than need be: luck that is not handed on tells more of its size than it is taken for.
    assert len(held) == trials * len(curricula) and 0.94 < np.mean(held) < (0.985 if seeds > 2 else 0.999)


def test_two_seeds_never_span_everything() -> None:
    """Student's t of one degree of freedom is 12.7: pooled over curricula it is not."""
    rng = np.random.default_rng(0)
    tasks = [Key(Curriculum((t,)), ("{}",)) for t in "abcde"]
    scores = {key: [score(x, s) for s, x in enumerate(rng.normal(0.6, 0.02, 2))] for key in [*tasks, Key(Curriculum())]}
    for found in differences(scores, {key: Key(Curriculum()) for key in tasks}, {}).values():
        assert found.half is not None and found.half < 0.12 and not found.paired


def kept(stages: dict[str, dict[tuple[int, int], dict[str, Predicted]]]) -> pa.Table:
    """As a study keeps it: a row per case and class."""
    tables = []
    for stage, of in stages.items():
        for (seed, draw), labels in of.items():
            own = {"stage": stage, "curriculum": "a", "root": "", "seed": seed, "protocol": "knn", "data": "data"}
            own |= {"labelled": "all", "draw": draw, "split": "val"}
            own |= dict.fromkeys(("study", "version", "commit", "caveats"), "")
            names = np.array([f"case {i}" for i in range(80)])
            truth = {name: each.truth for name, each in labels.items()}
            said = {name: each.probabilities for name, each in labels.items()}
            groups = next(iter(labels.values())).groups
            tables.append((own, predictions(truth, dict.fromkeys(labels, CLASSES), groups, said, names)))
    return joined("predictions", tables)


@pytest.mark.parametrize("label", ["x", "mean"])
def test_scores_on_resampled_patients_come_from_the_table_of_predictions(label: str) -> None:
    given = {
        "s1": {
            (0, 0): {"x": predicted(1), "y": predicted(2, unknown=9)},
            (0, 1): {"x": predicted(3), "y": predicted(4)},
        }
    }
    results = Results(Path(), {}, {"predictions": kept(given)})
    found = drawn(results, Measure("knn", "auc", label, "val"))
    assert found.keys() == {"s1"} and found["s1"].keys() == {(0, 0), (0, 1)}
    for replicate, values in found["s1"].items():
        labels = given["s1"][replicate]
        expected = resampled([each for name, each in labels.items() if label in ("mean", name)], "auc")
        np.testing.assert_allclose(values, expected, atol=1e-6)  # probabilities are kept in single precision
    assert not drawn(results, Measure("knn", "named_auc", label, "val"))
    assert not drawn(results, Measure("linear", "auc", label, "val"))


def test_patients_are_drawn_once_for_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them anew for each stage took nine tenths of the leaderboard of a real study."""
    calls: list[int] = []

    def counted(groups: np.ndarray) -> np.ndarray:
        calls.append(len(groups))
        return case_weights(groups)

    monkeypatch.setattr("dermsearch.results.board.differences.case_weights", counted)
    weights_of.cache_clear()
    given = {f"s{i}": {(0, draw): {"x": predicted(i + draw)} for draw in range(3)} for i in range(4)}
    found = drawn(Results(Path(), {}, {"predictions": kept(given)}), Measure("knn", "auc", "x", "val"))
    assert found.keys() == given.keys() and calls == [80]


def test_a_measure_is_drawn_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report asks five times for that of the objective, which took nearly all of its time."""
    asked: list[Measure] = []

    def watched(results: Results, measure: Measure) -> list[Said]:
        asked.append(measure)
        return said(results, measure)

    monkeypatch.setattr("dermsearch.results.board.differences.said", watched)
    results = Results(Path(), {}, {"predictions": kept({"s": {(0, 0): {"x": predicted(1)}}})})
    measures = [Measure("knn", metric, "x", "val") for metric in ("auc", "auc", "balanced_accuracy", "auc")]
    found = [drawn(results, measure) for measure in measures]
    assert asked == [measures[0], measures[2]] and found[3] is found[0] is not found[2]
    drawn(replace(results), measures[0])  # with other tables, as those of the test split, it is another measure
    assert len(asked) == 3


def test_a_draw_that_one_of_two_lacks_moves_no_other_into_its_place() -> None:
    """Of each another draw has failed: what is left are as many, and not the same."""

    def drawn_in(*draws: int, above: float = 0.0) -> list[Score]:
        rows = [{"curriculum": "a", "root": "", "seed": 0, "draw": d, "n": 9} for d in draws]
        return [Score.of([row | {"value": above + row["draw"], "ci_low": None, "ci_high": None} for row in rows], "s")]

    ours = drawn_in(0, 1, 3, above=0.5)
    assert replicate_differences(ours, drawn_in(0, 1, 3)) == {(0, 0): 0.5, (0, 1): 0.5, (0, 2): 0.5}
    apart = replicate_differences(ours, drawn_in(0, 1, 2))
    assert apart == {(0, 0): pytest.approx(0.5 + 4 / 3 - 1)}, "their means, as where one has more draws"
