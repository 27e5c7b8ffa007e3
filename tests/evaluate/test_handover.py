"""Heads for all labels at once: what is handed on is trained, counted as published, and repeats to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from evaluate.test_protocols import CLASSES, accepted, features
from torch import nn
from torch.nn import functional as F

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.errors import UserError
from dermsearch.evaluate import PROTOCOLS, Given, configure, judge
from dermsearch.evaluate.base import Classifier, Features
from dermsearch.fit.heads import Heads, fit, mean_loss
from dermsearch.models.artifact import HEADS, Part
from dermsearch.models.relations import LabelHeads, label_heads

SIZES = [len(names) for names in SEVEN_POINT.values()]
WHOLE = np.stack([np.arange(5) % c for c in SIZES], axis=1)  # every class has a case


def handed(relation: str = "tel", width: int = 16, dim: int = 16, **config: object) -> Part:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = [len(c) for c in CLASSES.values()]
        return LabelHeads(dim, sizes, relation, width=width, feedforward=8, **config).part()  # type: ignore[arg-type]


def predict(given: Features, heads: Part | None, seed: int = 0, **config: object) -> dict[str, np.ndarray]:
    protocol = PROTOCOLS.find("linear_handover")()
    assert isinstance(protocol, Classifier)
    artifact = {} if heads is None else {HEADS: heads}
    return protocol.predict(Given(given, artifact), configure("linear_handover", config), seed)


def parameters(heads: nn.Module) -> int:
    return sum(p.numel() for p in heads.parameters())


def test_parameters_are_as_many_as_published() -> None:
    assert parameters(Heads(4096, SIZES, WHOLE, None, 0)) == 98_328
    with torch.device("meta"):
        state = LabelHeads(4096, SIZES, "tel").state_dict()
    weights = {name: torch.zeros(w.shape) for name, w in state.items()}
    heads = Part({"dim": 4096, "classes": SIZES, "relation": "tel"}, weights)
    assert parameters(Heads(4096, SIZES, WHOLE, heads, 0)) == 17_978_008


def test_fresh_heads_start_as_published() -> None:
    heads = Heads(4096, SIZES, WHOLE, None, 0)
    weights = torch.cat([w.flatten() for w in heads.weights])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02) and abs(weights.mean().item()) < 1e-4
    assert all((b == 0).all() for b in heads.biases)


def test_heads_start_as_what_is_handed_on_says() -> None:
    part, x = handed(), torch.randn(7, 16)
    heads = Heads(16, [3, 2], WHOLE[:, [1, 2]], part, 0).eval()
    for found, expected in zip(heads(x), label_heads(part).eval()(x), strict=True):
        torch.testing.assert_close(found, expected)


def test_loss_is_the_mean_over_labels_of_what_is_known() -> None:
    logits = [torch.randn(4, 3), torch.randn(4, 2), torch.randn(4, 5)]
    truth = torch.tensor([[0, 1, -1], [2, -1, -1], [-1, 0, -1], [1, -1, -1]])
    first = F.cross_entropy(logits[0][[0, 1, 3]], torch.tensor([0, 2, 1]))
    second = F.cross_entropy(logits[1][[0, 2]], torch.tensor([1, 0]))
    torch.testing.assert_close(mean_loss(logits, truth), (first + second) / 2)
    uniform = [torch.zeros(1, c) for c in SIZES]
    assert mean_loss(uniform, torch.zeros(1, 8, dtype=torch.int64)).item() == pytest.approx(1.061099, abs=1e-6)


def test_a_step_is_that_of_adamw_on_the_whole_batch() -> None:
    given = features()
    truth = np.stack(list(given.train_labels.values()), axis=1).astype(np.int64)
    x, config = torch.from_numpy(given.train), configure("linear_handover", {"epochs": 3, "lr": 0.01})
    ours, theirs = Heads(16, [3, 2], truth, None, 0), Heads(16, [3, 2], truth, None, 0)
    fit(ours, lambda cases, epoch: ours(x[cases]), truth, config, 0, "linear_handover")  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        mean_loss(theirs(x), torch.from_numpy(truth)).backward()
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_every_case_is_seen_in_every_epoch_and_no_batch_is_small() -> None:
    truth, seen = np.zeros((11, 1), np.int64), []
    heads = Heads(2, [2], truth, None, 0)

    def logits(cases: np.ndarray, epoch: int) -> list[torch.Tensor]:
        seen.append((epoch, cases))
        return heads(torch.ones(len(cases), 2))

    fit(heads, logits, truth, configure("linear_handover", {"epochs": 2, "batch": 4}), 0, "linear_handover")  # type: ignore[arg-type]
    assert [(e, len(c)) for e, c in seen] == [(1, 4)] * 3 + [(2, 4)] * 3
    orders = [np.concatenate([c for e, c in seen if e == epoch]) for epoch in (1, 2)]
    assert all({*order} == {*range(11)} for order in orders) and (orders[0] != orders[1]).any()


@pytest.mark.parametrize("relation", ["no_proj", "proj", "msa", "tel", "te"])
def test_every_relation_learns(relation: str) -> None:
    given = features(separation=4.0)
    artifact = {HEADS: handed(relation)}
    rows = judge(given, "linear_handover", {"epochs": 150, "lr": 0.01}, artifact=artifact).rows
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
    steps: list[int] = []
    truth = np.zeros((8, 1), np.int64)
    heads = Heads(4, [2], truth, LabelHeads(4, [2], "tel", width=4).part(), 0)
    dropout = heads.handed.relation[0].drop_attention  # type: ignore[union-attr, index]

    def logits(cases: np.ndarray, epoch: int) -> list[torch.Tensor]:
        steps.append(dropout.step)  # type: ignore[arg-type]
        return heads(torch.ones(len(cases), 4))

    fit(heads, logits, truth, configure("linear_handover", {"epochs": 3, "batch": 4}), 0, "linear_handover")  # type: ignore[arg-type]
    assert len({*steps}) == len(steps) == 6


def test_heads_for_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        predict(features(), handed(dim=8))


def test_diverged_training_names_the_setting() -> None:
    truth = np.zeros((8, 1), np.int64)
    heads, config = Heads(4, [2], truth, None, 0), configure("linear_handover", {"lr": 0.5})

    def logits(cases: np.ndarray, epoch: int) -> list[torch.Tensor]:
        return [each / (epoch < 3) for each in heads(torch.ones(len(cases), 4))]

    with pytest.raises(UserError, match=r"downstream.linear_handover.lr: training diverged in epoch 3; .* below 0.5"):
        fit(heads, logits, truth, config, 0, "linear_handover")  # type: ignore[arg-type]
