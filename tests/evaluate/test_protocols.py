"""The contract of every classifier that needs features alone: joining PROTOCOLS is joining these tests."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from dermsearch.errors import UserError
from dermsearch.evaluate import PROTOCOLS, Features, Given, check_objective, compare, configure, judge
from dermsearch.evaluate.base import Classifier
from dermsearch.evaluate.knn import most_similar
from dermsearch.nature import Nature
from dermsearch.results.tables import schema as tables

CLASSES = {"diagnosis": ("nevus", "melanoma", "other"), "veil": ("absent", "present")}
NATURES = {name: PROTOCOLS.find(name).nature for name in PROTOCOLS.names()}
ALONE = [n for n, nature in NATURES.items() if nature.learns and "images" not in nature.needs]
EVERY = sorted(n for n in ALONE if hasattr(PROTOCOLS.find(n), "predict"))  # others find cases
LOOKING = sorted(n for n in EVERY if NATURES[n].objective)


def features(separation: float = 3.0, train: int = 90, heldout: int = 60, width: int = 16) -> Features:
    """Two labels, each along directions of its own; one patient per two held-out cases."""
    rng = np.random.default_rng(0)
    sides = []
    for cases in (train, heldout):
        labels = {name: rng.integers(0, len(c), size=cases) for name, c in CLASSES.items()}
        matrix = rng.normal(size=(cases, width))
        matrix[:, :3] += separation * np.eye(3)[labels["diagnosis"]]
        matrix[:, 3:5] += separation * np.eye(2)[labels["veil"]]
        sides.append((matrix.astype(np.float32), labels))
    (x, x_labels), (y, y_labels) = sides
    return Features(x, y, x_labels, y_labels, CLASSES, np.arange(heldout) // 2, "val")


def relabel(given: Features, **labels: np.ndarray) -> Features:
    return dataclasses.replace(given, train_labels={**given.train_labels, **labels})


def only(given: Features, label: str) -> Features:
    """The same cases of a data set with one label."""
    sides = {"train_labels": given.train_labels, "heldout_labels": given.heldout_labels}
    kept = {side: {label: labels[label]} for side, labels in sides.items()}
    return dataclasses.replace(given, **kept, classes={label: CLASSES[label]})


def predict(name: str, given: Features, label: str = "diagnosis", seed: int = 0, **config: object) -> np.ndarray:
    return everything(name, given, seed, **config)[label]


def everything(name: str, given: Features, seed: int = 0, **config: object) -> dict[str, np.ndarray]:
    protocol = PROTOCOLS.find(name)()
    assert isinstance(protocol, Classifier)
    return protocol.predict(Given(given), configure(name, config), seed)


def accepted(probabilities: np.ndarray, cases: int, classes: int) -> bool:
    sums = probabilities.sum(axis=1)
    return (
        probabilities.shape == (cases, classes)
        and bool(np.isfinite(probabilities).all())
        and bool((probabilities >= 0).all())
        and np.allclose(sums, 1)
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("label", list(CLASSES))
def test_probabilities(name: str, label: str) -> None:
    given = features()
    assert accepted(predict(name, given, label), len(given.heldout), len(CLASSES[label]))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seen", [(0, 2), (0, 1), (1,), ()])
def test_classes_missing_from_train(name: str, seen: tuple[int, ...]) -> None:
    given = features()
    truth = given.train_labels["diagnosis"]
    found = predict(name, relabel(given, diagnosis=np.where(np.isin(truth, seen), truth, -1)))
    assert accepted(found, len(given.heldout), 3)
    if seen:
        assert set(np.unique(found.argmax(axis=1))) <= set(seen)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["collapsed", "zero", "huge"])
def test_degenerate_features_give_probabilities(name: str, kind: str) -> None:
    given = features()
    factor = {"collapsed": 0.0, "zero": 0.0, "huge": 1e6}[kind]
    shift = 1.0 if kind == "collapsed" else 0.0
    given = dataclasses.replace(given, train=given.train * factor + shift, heldout=given.heldout * factor + shift)
    assert accepted(predict(name, given), len(given.heldout), 3)


@pytest.mark.parametrize("name", EVERY)
def test_deterministic_to_the_bit(name: str) -> None:
    given = features(separation=0.5)
    np.testing.assert_array_equal(predict(name, given, seed=3), predict(name, given, seed=3))
    assert judge(given, name, seed=3) == judge(given, name, seed=3)


@pytest.mark.parametrize("name", LOOKING)
def test_separable_data_is_separated(name: str) -> None:
    rows = judge(features(separation=6.0), name).rows
    means = {row["metric"]: row["value"] for row in rows if row["label"] == "mean"}
    assert means.keys() == {"balanced_accuracy", "macro_f1", "auc"} and min(means.values()) > 0.9


@pytest.mark.parametrize("name", EVERY)
def test_features_without_the_label_score_at_chance(name: str) -> None:
    given = features(separation=0.0, train=400, heldout=400)
    mean = next(r for r in judge(given, name).rows if r["label"] == "mean" and r["metric"] == "auc")
    assert mean["value"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", EVERY)
def test_held_out_labels_are_not_read(name: str) -> None:
    given = features(separation=0.5)
    rng = np.random.default_rng(1)
    shuffled = {label: rng.permutation(truth) for label, truth in given.heldout_labels.items()}
    other = dataclasses.replace(given, heldout_labels=shuffled)
    np.testing.assert_array_equal(predict(name, given), predict(name, other))
    np.testing.assert_array_equal(predict(name, given), predict(name, given.blind()))


@pytest.mark.parametrize("name", EVERY)
def test_training_cases_of_unknown_label_are_not_read(name: str) -> None:
    given = features(separation=0.5)
    hidden = dataclasses.replace(given, train_labels={k: v.copy() for k, v in given.train_labels.items()})
    for truth in hidden.train_labels.values():
        truth[:30] = -1
    noise = given.train.copy()
    noise[:30] = 99.0
    expected = predict(name, hidden)
    np.testing.assert_array_equal(expected, predict(name, dataclasses.replace(hidden, train=noise)))


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_settings_refuse_unknown_keys_and_changes(name: str) -> None:
    with pytest.raises(UserError, match=f"protocol '{name}' has no setting 'balancd'.*'balanced'"):
        configure(name, {"balancd": True})
    with pytest.raises(UserError, match=f"protocol '{name}', setting 'balanced'"):
        configure(name, {"balanced": "perhaps"})
    settings = configure(name)
    with pytest.raises(ValueError, match="frozen"):
        settings.balanced = False  # type: ignore[attr-defined]
    assert configure(name, settings) == settings


@pytest.mark.parametrize("name", EVERY)
def test_rows_fit_the_scores_table(name: str) -> None:
    given = features(separation=1.0)
    hidden = given.heldout_labels["veil"].copy()
    hidden[:10] = -1
    given = dataclasses.replace(given, heldout_labels={**given.heldout_labels, "veil": hidden})
    rows, confusions = (said := judge(given, name, seed=4)).rows, said.confusions
    assert tables.build("scores", rows).num_rows == len(rows) == 3 + (3 + 3 * 4) + (3 + 2 * 4)
    assert len({(r["label"], r["class"], r["metric"]) for r in rows}) == len(rows)
    for row in rows:
        assert [*row] == ["split", "label", "class", "metric", "value", "ci_low", "ci_high", "n"]
        assert row["split"] == "val" and 0 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 1
    assert {r["n"] for r in rows if r["label"] == "veil" and r["metric"] == "auc"} == {50}
    assert sum(r["n"] for r in rows if r["label"] == "veil" and r["metric"] == "recall") == 50
    assert tables.build("confusions", confusions).num_rows == len(confusions) > 0
    assert all(cell["count"] > 0 and cell["split"] == "val" for cell in confusions)
    assert len({(c["label"], c["truth"], c["predicted"]) for c in confusions}) == len(confusions)
    assert sum(cell["count"] for cell in confusions if cell["label"] == "veil") == 50
    hits = {c["truth"]: c["count"] for c in confusions if c["label"] == "veil" and c["truth"] == c["predicted"]}
    for row in rows:
        if (row["label"], row["metric"]) == ("veil", "recall"):
            assert row["value"] * row["n"] == pytest.approx(hits.get(row["class"], 0))


@pytest.mark.parametrize("name", EVERY)
def test_one_label_alone_is_enough(name: str) -> None:
    given = features()
    alone = only(given, "veil")
    assert everything(name, alone).keys() == {"veil"}
    assert accepted(predict(name, alone, "veil"), len(given.heldout), 2)


@pytest.mark.parametrize(("name", "config"), [("knn", {}), ("linear", {"c": 0.1})])
def test_labels_do_not_change_each_other(name: str, config: dict) -> None:
    given = relabel(features(separation=0.5), veil=np.where(np.arange(90) % 4, features().train_labels["veil"], -1))
    for label in CLASSES:
        alone = only(given, label)
        np.testing.assert_array_equal(predict(name, given, label, **config), predict(name, alone, label, **config))


# What version 2 said of these features.
BEFORE = {
    ("knn", "balanced_accuracy"): (0.5508910003395298, 0.4597625218983915, 0.646728208806298),
    ("knn", "auc"): (0.6700600156229386, 0.5876657746792451, 0.7483278266540642),
    ("linear", "balanced_accuracy"): (0.6028655780494016, 0.5255943045613383, 0.6858660616975412),
    ("linear", "auc"): (0.7256520830825361, 0.6488588350508265, 0.8053001020231414),
}


@pytest.mark.parametrize(("name", "metric"), list(BEFORE))
def test_numbers_are_those_of_the_version_before(name: str, metric: str) -> None:
    given = features(separation=1.0)
    given = relabel(given, veil=np.where(np.arange(90) % 4, given.train_labels["veil"], -1))
    rows = judge(given, name, {"linear": {"c": 0.1}}.get(name)).rows
    row = next(r for r in rows if (r["label"], r["metric"]) == ("mean", metric))
    assert (row["value"], row["ci_low"], row["ci_high"]) == pytest.approx(BEFORE[name, metric], abs=1e-12)


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'linear'"):
        judge(features(), "liner")


def test_registry_names() -> None:
    assert PROTOCOLS.names() == sorted(PROTOCOLS.shipped)
    for name in PROTOCOLS.names():
        protocol = PROTOCOLS.find(name)
        assert name == protocol.name and protocol.version >= 1 and isinstance(protocol.nature, Nature)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": np.full((90, 16), np.nan, np.float32)}, "not finite"),
        ({"heldout": np.zeros((60, 4), np.float32)}, "features are not"),
        ({"heldout_groups": np.arange(3)}, "3 patients for 60"),
        ({"train_labels": {"veil": np.zeros(4, int)}}, "4 labels for 90"),
        ({"heldout_labels": {"veil": np.full(60, 2)}}, "out of range"),
    ],
)
def test_inconsistent_features_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(features(), **change)


def test_knn_votes_by_similarity_and_class_share() -> None:
    angles = np.array([0.0, 0.1, 0.2, 1.5])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    truth = {"veil": np.array([1, 0, 0, 0])}
    given = Features(train, train[:1] * 7, truth, {}, {"veil": CLASSES["veil"]}, np.zeros(1), "val")
    votes = np.exp(np.cos(angles[:3]) / 0.5)
    plain = predict("knn", given, "veil", k=3, temperature=0.5, balanced=False)
    assert plain[0, 1] == pytest.approx(votes[0] / votes.sum())
    fair = predict("knn", given, "veil", k=3, temperature=0.5)
    assert fair[0, 1] == pytest.approx(votes[0] / (votes[0] + votes[1:].sum() / 3))
    assert predict("knn", given, "veil", k=1)[0, 1] == 1  # the scale of a feature does not matter
    with pytest.raises(UserError, match=r"^downstream\.knn\.k: must be at most 4, the labelled training cases, not 99"):
        predict("knn", given, "veil", k=99)


@pytest.mark.parametrize("k", [1, 7, 40, 90])
@pytest.mark.parametrize("digits", [None, 1])
def test_knn_finds_in_blocks_what_a_stable_sort_of_everything_finds(k: int, digits: int | None) -> None:
    similarity = np.random.default_rng(k).uniform(-1, 1, (50, 90))
    similarity = similarity if digits is None else similarity.round(digits)  # with many ties
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(most_similar(similarity, k), expected)


def test_knn_needs_no_memory_for_all_pairs_at_once() -> None:
    given = features(train=4000, heldout=3000)
    tracemalloc.start()
    predict("knn", given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 3000 * 8 / 2


def test_predictions_that_are_not_finite_are_said_to_come_of_a_training_that_diverged() -> None:
    given, said = features(), {"diagnosis": np.full((60, 3), np.nan), "veil": np.full((60, 2), 0.5)}
    with pytest.raises(UserError, match="diagnosis: predictions are not finite: the weights are not, or overflow"):
        compare(given.heldout_labels, CLASSES, given.heldout_groups, said, "val")


def test_linear_probe_prints_no_convergence_warning(recwarn: pytest.WarningsRecorder) -> None:
    predict("linear", features(separation=0.5), max_iter=1)
    assert len(recwarn) == 0


def test_importing_is_cheap() -> None:
    heavy = "{'sklearn', 'scipy', 'torch', 'ray', 'optuna', 'pandas'} & set(sys.modules)"
    code = f"import sys, dermsearch.evaluate; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


MATCHING = "'own_table' or 'pairs'"
OF_PREDICTIONS = "balanced_accuracy, macro_f1, auc, named_auc, named_recall, named_specificity, named_precision"


@pytest.mark.parametrize(
    ("protocol", "metric", "label", "message"),
    [
        ("majority", "auc", "mean", "protocol: 'majority' never looks at an image, so it cannot tell encoders apart"),
        ("pairs", "auc", "pairs", "metric: must be acc_at_1 or acc_at_5 for protocol 'pairs', not 'auc'"),
        ("linear", "acc_at_5", "mean", f"metric: 'acc_at_5' goes with protocol {MATCHING} only, not with 'linear'"),
        ("knn", "accuracy", "mean", f"metric: must be one of {OF_PREDICTIONS} for protocol 'knn', not 'accuracy'"),
        ("pairs", "acc_at_1", "mean", "label: must be pairs for protocol 'pairs', not 'mean'"),
        ("linear", "auc", "pairs", "label: 'pairs' goes with protocol 'pairs' only, not with 'linear'"),
        ("linear", "named_auc", "diagnosis", "label: must be mean for metric 'named_auc', not 'diagnosis'"),
    ],
)
def test_an_objective_that_a_protocol_cannot_have(protocol: str, metric: str, label: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_objective(PROTOCOLS.find(protocol).nature, protocol, metric, label)
    assert str(error.value) == f"objective.{message}"


@pytest.mark.parametrize(
    ("protocol", "metric", "label"),
    [("linear", "auc", "diagnosis"), ("finetune", "named_recall", "mean"), ("pairs", "acc_at_1", "pairs")],
)
def test_an_objective_that_a_protocol_can_have(protocol: str, metric: str, label: str) -> None:
    check_objective(PROTOCOLS.find(protocol).nature, protocol, metric, label)
