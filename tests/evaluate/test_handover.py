"""The released linear probe: what is handed on is trained, and repeats to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from evaluate.test_protocols import CLASSES, accepted, features

from dermsearch.evaluate import PROTOCOLS, Given, configure, judge
from dermsearch.evaluate.base import Classifier, Features
from dermsearch.models.artifact import HEADS, Part
from dermsearch.models.relations import LabelHeads


def handed(relation: str = "tel", width: int = 16, dim: int = 16, **config: object) -> Part:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = [len(c) for c in CLASSES.values()]
        return LabelHeads(dim, sizes, relation, width=width, feedforward=8, **config).part()  # type: ignore[arg-type]


def predict(given: Features, heads: Part | None, seed: int = 0, **config: object) -> dict[str, np.ndarray]:
    protocol = PROTOCOLS.find("linear_handover")()
    assert isinstance(protocol, Classifier)
    return protocol.predict(
        Given(given, {} if heads is None else {HEADS: heads}), configure("linear_handover", config), seed
    )


@pytest.mark.parametrize("relation", ["no_proj", "proj", "msa", "tel", "te"])
def test_every_relation_learns(relation: str) -> None:
    given = features(separation=4.0)
    rows = judge(given, "linear_handover", artifact={HEADS: handed(relation)}, config={"epochs": 150, "lr": 0.01}).rows
    value = next(r["value"] for r in rows if (r["label"], r["metric"]) == ("mean", "balanced_accuracy"))
    assert value > 0.85


def test_what_is_handed_on_counts_and_is_left_as_it_is() -> None:
    given, heads = features(separation=1.0), handed()
    before = {name: w.clone() for name, w in heads.state.items()}
    found = predict(given, heads, epochs=2)
    assert all(accepted(p, 60, p.shape[1]) for p in found.values())
    assert all(torch.equal(w, before[name]) for name, w in heads.state.items())
    other = predict(given, dataclasses.replace(heads, state={n: w * 1.5 for n, w in before.items()}), epochs=2)
    assert (found["veil"] != other["veil"]).any() and (found["veil"] != predict(given, None, epochs=2)["veil"]).any()


@pytest.mark.parametrize("relation", [None, "tel"])
def test_the_same_bits_whatever_the_threads_and_the_state_of_torch(relation: str | None) -> None:
    given, heads = features(separation=0.5, train=300), None if relation is None else handed(relation)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            torch.rand(number)  # moves the global generator
            state = torch.get_rng_state()
            found.append(predict(given, heads, seed=3, epochs=4))
            assert torch.get_num_threads() == number and torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(threads)
    for label in CLASSES:
        np.testing.assert_array_equal(found[0][label], found[1][label])
        np.testing.assert_array_equal(found[0][label], found[2][label])
    assert (predict(given, heads, seed=4, epochs=4)["veil"] != found[0]["veil"]).any()


def test_dropout_masks_differ_from_step_to_step() -> None:
    given = features(separation=0.5)
    with_dropout, without = handed(dropout=0.5), handed(dropout=0.0)
    assert (predict(given, with_dropout, epochs=2)["veil"] != predict(given, without, epochs=2)["veil"]).any()


def test_heads_for_other_features_are_not_taken() -> None:
    found, fresh = predict(features(), handed(dim=8), epochs=2), predict(features(), None, epochs=2)
    assert all((found[label] == fresh[label]).all() for label in fresh)


def test_rare_classes_weigh_as_much_as_common_ones_unless_asked_not_to() -> None:
    """As `linear` and `knn` have it: of features that say nothing every class is as probable."""
    given = features(separation=0.0, train=300)
    rare = (np.arange(300) % 10 == 0).astype(int)
    given = dataclasses.replace(given, train_labels={**given.train_labels, "veil": rare}, train=0 * given.train)
    given = dataclasses.replace(given, heldout=0 * given.heldout)
    shares = [predict(given, None, epochs=60, lr=0.05, balanced=b)["veil"][:, 1].mean() for b in (True, False)]
    assert shares == pytest.approx([0.5, 0.1], abs=0.03)
