"""Metrics agree with scikit-learn, weights with repeated cases, and intervals cover the truth."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from pace import slowness
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from dermsearch import metrics
from dermsearch.data.domain import SEVEN_POINT, SKIN
from dermsearch.evaluate.base import compare

CLASSES = ("a", "b", "c")


def simulate(seed: int, cases: int = 90, classes: int = 3, digits: int | None = None) -> tuple:
    """Truth with unequal classes and probabilities that know a little of it; few digits make ties."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, size=cases, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    truth[:classes] = np.arange(classes)
    scores = np.exp(rng.normal(size=(cases, classes)) + 1.5 * np.eye(classes)[truth])
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return truth, probabilities if digits is None else probabilities.round(digits)


def values(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, classes=CLASSES) -> dict:
    found = metrics.measure("label", truth, probabilities, classes, weights)
    return {(m.metric, m.cls): m.values for m in found}


def ones(cases: int) -> np.ndarray:
    return np.ones((cases, 1))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [None, 1])
def test_unit_weights_agree_with_scikit_learn(seed: int, digits: int | None) -> None:
    truth, probabilities = simulate(seed, digits=digits)
    found = values(truth, probabilities, ones(len(truth)))
    predicted = probabilities.argmax(axis=1)
    areas = [roc_auc_score(truth == c, probabilities[:, c]) for c in range(3)]
    assert found["balanced_accuracy", ""][0] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["macro_f1", ""][0] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found["auc", ""][0] == pytest.approx(np.mean(areas))
    for c, name in enumerate(CLASSES):
        assert found["auc", name][0] == pytest.approx(areas[c])
        assert found["recall", name][0] == pytest.approx(recall_score(truth == c, predicted == c))
        assert found["specificity", name][0] == pytest.approx(recall_score(truth != c, predicted != c))
        assert found["precision", name][0] == pytest.approx(precision_score(truth == c, predicted == c))
    cells = np.zeros((3, 3))
    for true, taken, count in metrics.confusion(truth, probabilities):
        cells[true, taken] = count
    np.testing.assert_array_equal(cells, confusion_matrix(truth, predicted))
    if digits is None:  # scikit-learn wants rows that sum to one
        ovr = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
        assert found["auc", ""][0] == pytest.approx(ovr)


def test_classes_absent_from_the_truth_or_from_both_sides() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 1, 0])
    found = values(truth, np.eye(4)[predicted], ones(5), ("a", "b", "c", "d"))
    union = np.union1d(truth, predicted)
    f1 = f1_score(truth, predicted, labels=union, average="macro", zero_division=0)
    assert found["macro_f1", ""][0] == pytest.approx(f1)
    assert found["balanced_accuracy", ""][0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert np.isnan(found["auc", "c"][0]) and np.isnan(found["recall", "d"][0])
    assert found["auc", ""][0] == pytest.approx((found["auc", "a"][0] + found["auc", "b"][0]) / 2)


@pytest.mark.parametrize("digits", [None, 1])
def test_integer_weights_equal_repeated_cases(digits: int | None) -> None:
    truth, probabilities = simulate(7, digits=digits)
    counts = np.random.default_rng(0).integers(0, 4, size=(len(truth), 20)).astype(float)
    together = values(truth, probabilities, counts)
    for row, weights in enumerate(counts.T.astype(int)):
        again = np.repeat(np.arange(len(truth)), weights)
        alone = values(truth[again], probabilities[again], ones(len(again)))
        for key, vector in together.items():
            assert vector[row] == pytest.approx(alone[key][0], nan_ok=True), key


def test_auc_ties_count_half() -> None:
    positive = np.array([True, False, True, False])
    assert metrics.auc(positive, np.zeros(4), ones(4))[0] == 0.5
    assert metrics.auc(positive, np.array([1.0, 0.0, 0.5, 0.5]), ones(4))[0] == pytest.approx(3.5 / 4)
    assert metrics.auc(positive, np.array([1.0, 0.0, 1.0, 0.0]), ones(4))[0] == 1.0


def test_a_class_never_predicted_has_no_precision_and_full_specificity() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1])
    found = values(truth, np.eye(3)[predicted], ones(5))
    assert [found["precision", name][0] for name in CLASSES] == [1, 0.5, 0]
    assert [found["specificity", name][0] for name in CLASSES] == pytest.approx([1, 1 / 3, 1])
    assert found["recall", "c"][0] == 0 and (2, 1, 1) in set(metrics.confusion(truth, np.eye(3)[predicted]))
    n = {(m.metric, m.cls): m.n for m in metrics.measure("label", truth, np.eye(3)[predicted], CLASSES, ones(5))}
    assert [n["precision", c] for c in CLASSES] == [1, 4, 0] and [n["specificity", c] for c in CLASSES] == [3, 3, 4]


def test_named_classes_are_averaged_over_their_labels() -> None:
    weights, found, expected = metrics.case_weights(np.arange(90), replicates=30), [], {}
    for seed, (label, classes) in enumerate({**SEVEN_POINT, "other": CLASSES}.items()):
        truth, probabilities = simulate(seed, classes=len(classes))
        found += metrics.measure(label, truth, probabilities, classes, weights)
        if label in SKIN.named:
            c, predicted = classes.index(SKIN.named[label]), probabilities.argmax(axis=1)
            numbers = (roc_auc_score(truth == c, probabilities[:, c]), recall_score(truth == c, predicted == c))
            numbers += (recall_score(truth != c, predicted != c), precision_score(truth == c, predicted == c))
            expected[label] = numbers
    means = {m.metric: m for m in metrics.mean_over_labels(found, 90, SKIN.named) if m.metric.startswith("named_")}
    assert list(means) == ["named_auc", "named_recall", "named_specificity", "named_precision"]
    assert [m.values[0] for m in means.values()] == pytest.approx(np.mean(list(expected.values()), axis=0))
    for m in means.values():
        value, low, high = metrics.summary(m.values)
        assert (m.label, m.cls, m.n) == ("mean", "", 90) and low < value < high


def test_single_class_truth_is_null_and_not_a_crash() -> None:
    truth, probabilities = np.ones(6, dtype=int), simulate(0, cases=6)[1]
    weights = metrics.case_weights(np.arange(6), replicates=50)
    undefined = {("recall", False), ("specificity", True)}
    for measure in metrics.measure("label", truth, probabilities, CLASSES, weights):
        value, low, high = metrics.summary(measure.values)
        if measure.metric == "auc" or (measure.metric, measure.cls == "b") in undefined:
            assert (value, low, high) == (None, None, None)
        else:
            assert value is not None and low is not None and high is not None and low <= value <= high


def test_unknown_labels_are_left_out() -> None:
    truth, probabilities = simulate(3)
    hidden = truth.copy()
    hidden[::4] = -1
    weights = metrics.case_weights(np.arange(len(truth)), replicates=20)
    kept = hidden >= 0
    part = values(truth[kept], probabilities[kept], weights[kept])
    for key, vector in values(hidden, probabilities, weights).items():
        np.testing.assert_array_equal(vector, part[key])
    nothing = list(metrics.measure("label", np.full_like(truth, -1), probabilities, CLASSES, weights))
    assert nothing and all(m.n == 0 and metrics.summary(m.values)[0] is None for m in nothing)
    assert not list(metrics.confusion(np.full_like(truth, -1), probabilities))


def test_weights_draw_whole_patients_and_repeat() -> None:
    groups = np.array(["p", "q", "p", "r", "q", "p"])
    weights = metrics.case_weights(groups, replicates=200)
    assert (weights[:, 0] == 1).all() and weights.shape == (6, 201)
    assert (weights[0] == weights[2]).all() and (weights[1] == weights[4]).all()
    assert (weights[0] + weights[1] + weights[3] == 3).all()  # as many patients as there are
    np.testing.assert_array_equal(weights, metrics.case_weights(groups, replicates=200))
    assert (weights != metrics.case_weights(groups, replicates=200, seed=1)).any()


def test_one_patient_has_a_value_but_no_interval() -> None:
    truth, probabilities = simulate(1)
    found = values(truth, probabilities, metrics.case_weights(np.zeros(len(truth))))
    value, low, high = metrics.summary(found["auc", ""])
    assert value is not None and low is None and high is None


def test_mean_over_labels_shares_resamples() -> None:
    truth, probabilities = simulate(2)
    weights = metrics.case_weights(np.arange(len(truth)), replicates=100)
    one = list(metrics.measure("one", truth, probabilities, CLASSES, weights))
    # The same label twice: were the resamples drawn anew, the mean's interval would be narrower.
    twice = list(metrics.mean_over_labels([*one, *one], len(truth), {}))
    by_metric = {m.metric: m.values for m in one if not m.cls}
    assert [m.metric for m in twice] == list(metrics.AVERAGED)
    for mean in twice:
        np.testing.assert_allclose(mean.values, by_metric[mean.metric])


def test_mean_over_labels_leaves_out_a_label_without_a_value() -> None:
    truth, probabilities = simulate(2)
    weights = metrics.case_weights(np.arange(len(truth)), replicates=20)
    good = list(metrics.measure("good", truth, probabilities, CLASSES, weights))
    flat = metrics.measure("flat", np.zeros_like(truth), probabilities, CLASSES, weights)
    mean = {m.metric: m.values for m in metrics.mean_over_labels([*good, *flat], len(truth), {})}
    np.testing.assert_allclose(mean["auc"], next(m.values for m in good if m.metric == "auc"))


def patients(rng: np.random.Generator, number: int = 60) -> tuple:
    """Patients with one to three lesions; lesions of one patient share part of their score."""
    groups = np.repeat(np.arange(number), rng.integers(1, 4, size=number))
    truth = rng.integers(0, 2, size=len(groups))
    shared = rng.normal(size=number)[groups]
    score = 1 / (1 + np.exp(-(2.0 * (truth - 0.5) + shared + rng.normal(size=len(groups)))))
    return groups, truth, np.stack([1 - score, score], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy", "macro_f1"])
def test_interval_covers_the_true_value(metric: str) -> None:
    rng = np.random.default_rng(11)
    classes = ("no", "yes")

    def draw(replicates: int) -> np.ndarray:
        groups, truth, probabilities = patients(rng)
        weights = metrics.case_weights(groups, replicates, seed=int(rng.integers(1 << 30)))
        return values(truth, probabilities, weights, classes)[metric, ""]

    true = np.mean([draw(1)[0] for _ in range(1500)])
    intervals = [metrics.summary(draw(300))[1:] for _ in range(200)]
    covered = np.mean([low <= true <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_cluster_intervals_are_wider_when_cases_of_a_patient_are_alike() -> None:
    truth, probabilities = simulate(5, cases=60)
    truth, probabilities = np.repeat(truth, 5), np.repeat(probabilities, 5, axis=0)
    widths = []
    for groups in (np.repeat(np.arange(60), 5), np.arange(300)):
        low, high = metrics.summary(values(truth, probabilities, metrics.case_weights(groups))["auc", ""])[1:]
        assert low is not None and high is not None
        widths.append(high - low)
    # Five copies carry no news: taken for independent they narrow the interval by the root of five.
    assert widths[0] / widths[1] == pytest.approx(5**0.5, rel=0.2)


def slowly(truth: np.ndarray, probabilities: np.ndarray, classes: int, weights: np.ndarray) -> dict:
    """Every number again from whole confusion matrices and from all pairs of cases, replicate by replicate."""
    predicted, found = probabilities.argmax(axis=1), {}
    for w in weights.T.astype(float):
        matrix = np.zeros((classes, classes))
        np.add.at(matrix, (truth, predicted), w)
        hits, true, taken = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            of = {"recall": hits / true, "specificity": 1 - (taken - hits) / (w.sum() - true)}
            of["precision"] = np.where((taken == 0) & (w.sum() > 0), 0.0, hits / taken)
            f1 = 2 * hits / (true + taken)
            of["auc"] = np.full(classes, np.nan)
            for c in range(classes):
                up, down = w * (truth == c), w * (truth != c)
                s = probabilities[:, c]
                won = (s[:, None] > s) + (s[:, None] == s) / 2
                of["auc"][c] = (up @ won @ down) / (up.sum() * down.sum())
        whole = {"balanced_accuracy": of["recall"], "macro_f1": f1, "auc": of["auc"]}
        for metric, values_ in whole.items():
            present = values_[~np.isnan(values_)]
            found.setdefault((metric, ""), []).append(present.mean() if len(present) else np.nan)
        for metric, values_ in of.items():
            for c, value in enumerate(values_):
                found.setdefault((metric, str(c)), []).append(value)
    return found


@pytest.mark.parametrize(("cases", "classes", "digits"), [(60, 2, None), (60, 2, 1), (80, 7, 1), (40, 30, None)])
def test_all_replicates_agree_with_a_slow_reference(cases: int, classes: int, digits: int | None) -> None:
    truth, probabilities = simulate(4, max(cases, classes), classes, digits)
    weights = metrics.case_weights(np.arange(cases) // 2, replicates=40)
    found = values(truth, probabilities, weights, [str(c) for c in range(classes)])
    expected = slowly(truth, probabilities, classes, weights)
    assert found.keys() == expected.keys()
    for key, vector in expected.items():
        np.testing.assert_allclose(found[key], vector, rtol=0, atol=1e-12, err_msg=str(key))


def test_an_interval_holds_95_of_100_resamples() -> None:
    drawn = np.random.default_rng(0).permutation(np.arange(1001.0))
    point, low, high = metrics.summary(np.r_[500.0, drawn])
    assert point == 500 and (low, high) == pytest.approx((25, 975))
    assert np.mean((drawn >= low) & (drawn <= high)) == pytest.approx(0.95, abs=1e-3)


def test_findings_that_stand_beside_each_other_are_labels_of_two_classes() -> None:
    """A case may have several: each is judged by itself, where it is known, and the mean is over them."""
    rng = np.random.default_rng(0)
    present = {f"finding {k}": rng.integers(0, 2, 200) for k in range(14)}
    present["finding 3"][:50] = -1
    classes = dict.fromkeys(present, ("absent", "present"))
    scores = {k: np.clip(0.3 + 0.4 * t + 0.2 * rng.normal(size=200), 0, 1) for k, t in present.items()}
    predicted = {k: np.stack([1 - s, s], axis=1) for k, s in scores.items()}
    named = dict.fromkeys(present, "present")
    said = compare(present, classes, np.arange(200), predicted, "test", named)
    rows = {(r["label"], r["class"], r["metric"]): r for r in said.rows}
    areas = [roc_auc_score(t[t >= 0], scores[k][t >= 0]) for k, t in present.items()]
    assert rows["mean", "", "named_auc"]["value"] == pytest.approx(np.mean(areas))
    assert rows["finding 3", "", "auc"]["n"] == 150 and rows["mean", "", "auc"]["n"] == 200
    assert {c["split"] for c in said.confusions} == {r["split"] for r in said.rows} == {"test"}
    with pytest.raises(ValueError, match="finding 2: not probabilities of shape"):
        compare(present, classes, np.arange(200), {**predicted, "finding 2": np.ones((200, 3))}, "test", named)


COST = """
import resource, time
import numpy as np
import scipy.sparse
from dermsearch.evaluate.base import compare
classes, cases = 198, 5000
rng = np.random.default_rng(0)
truth = rng.integers(0, classes, cases)
scores = rng.random((cases, classes), dtype=np.float32)
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
names = {"diagnosis": [str(c) for c in range(classes)]}
said = compare({"diagnosis": truth}, names, np.arange(cases), {"diagnosis": scores}, "val")
print(time.process_time() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, len(said.rows))
assert len(said.confusions) <= cases and said.rows[0]["ci_low"] is not None
"""


@pytest.mark.alone
def test_the_cost_does_not_grow_with_classes_squared() -> None:
    """198 classes took 36 s, 7.5 GB and 40,002 rows."""
    told = subprocess.run([sys.executable, "-c", COST], check=True, capture_output=True, text=True).stdout.split()
    seconds, megabytes, rows = map(float, told)
    assert seconds < 2 * slowness() and megabytes < 300 and rows == 3 + 4 * 198 + 3
