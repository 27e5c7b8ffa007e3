"""Heads for all labels: counted as published, their loss against a reference, and how they are trained alone."""

import math
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gloo import Group

from dermsearch import world
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.errors import UserError
from dermsearch.fit.heads import Heads, counts_of, mean_loss, own_randomness, train_heads
from dermsearch.models.artifact import Part
from dermsearch.models.relations import LabelHeads, label_heads

SEVEN = {label: (1,) * len(names) for label, names in SEVEN_POINT.items()}  # every class has a case
LOGITS = [torch.linspace(-2, 2, 6 * c).reshape(6, c).sin() * 3 for c in (3, 2, 4)]
TRUTH = torch.tensor([[0, 1, -1], [2, -1, -1], [-1, 0, -1], [1, -1, -1], [2, 1, -1], [0, -1, -1]])


def reference() -> tuple[float, float]:
    """Loss and accuracy written out, case by case."""
    losses, hits = [], []
    for logits, truth in zip(LOGITS, TRUTH.T.tolist(), strict=True):
        known = [(row, t) for row, t in zip(logits.double().tolist(), truth, strict=True) if t >= 0]
        if known:
            each = [math.log(sum(math.exp(z) for z in row)) - row[t] for row, t in known]
            losses.append(sum(each) / len(each))
            hits.append(sum(row.index(max(row)) == t for row, t in known) / len(known))
    return sum(losses) / len(losses), sum(hits) / len(hits)


def test_loss_is_the_mean_over_labels_of_the_mean_over_what_is_known():
    value, accuracy = mean_loss(LOGITS, TRUTH)
    assert (value.item(), accuracy.item()) == pytest.approx(reference(), rel=1e-6)


def on_each() -> tuple[float, torch.Tensor]:
    """This process's loss of its rows, and the gradient."""
    logits = [x[world.mine(6)].clone().requires_grad_() for x in LOGITS]
    value, _ = mean_loss(logits, TRUTH[world.mine(6)])
    value.backward()
    return value.item(), torch.cat([x.grad.flatten() for x in logits])


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradient_of_one(two: Group):
    """The first holds three of the diagnoses that are known and both veils, the second two and one."""
    (a, first), (b, second) = two(on_each)
    assert (a + b) / 2 == pytest.approx(reference()[0], rel=1e-6)
    logits = [x.clone().requires_grad_() for x in LOGITS]
    mean_loss(logits, TRUTH)[0].backward()
    expected = [torch.cat([x.grad[rows].flatten() for x in logits]) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(first / 2, expected[0])
    torch.testing.assert_close(second / 2, expected[1])


def test_nothing_known_is_a_loss_of_zero():
    logits = [x.clone().requires_grad_() for x in LOGITS]
    value, accuracy = mean_loss(logits, torch.full_like(TRUTH, -1))
    value.backward()
    assert value.item() == accuracy.item() == 0 and all((x.grad == 0).all() for x in logits)


def test_loss_of_heads_that_know_nothing():
    uniform = [torch.zeros(1, len(c)) for c in SEVEN.values()]
    assert mean_loss(uniform, torch.zeros(1, 8, dtype=torch.int64))[0].item() == pytest.approx(1.061099, abs=1e-6)


def test_counts():
    labels = {"a": np.array([0, 2, 2, -1], np.int8), "b": np.full(4, -1, np.int8), "c": np.zeros(4, np.int8)}
    assert counts_of(labels, {"a": 3, "b": 2}) == {"a": (1, 0, 2), "b": (0, 0)}


def test_what_no_training_case_has_is_not_predicted():
    heads = Heads(4, {"a": (1, 0, 2), "b": (0, 0)}, None, 0)
    found = heads.probabilities(torch.randn(5, 4) * 100)
    assert (found["a"][:, 1] == 0).all() and np.allclose(found["a"].sum(1), 1)
    assert (found["b"] == 0.5).all() and found["a"].dtype == torch.float64
    x = torch.randn(5, 4)
    for logits, expected in zip(heads(x), [x @ w.T for w in heads.weights], strict=True):
        kept = logits > -math.inf
        assert torch.equal(logits[kept], expected[kept])
    assert heads(x)[1].isfinite().all(), "no number that is none goes into the loss"


def test_gradients_are_finite_where_a_class_or_a_label_is_absent():
    heads = Heads(4, {"a": (1, 0, 2), "b": (0, 0)}, None, 0)
    value, _ = mean_loss(heads(torch.randn(3, 4)), torch.tensor([[0, -1], [2, -1], [2, -1]]))
    value.backward()
    assert all(p.grad.isfinite().all() for p in heads.parameters())


def parameters(heads: torch.nn.Module) -> int:
    return sum(p.numel() for p in heads.parameters())


def test_parameters_are_as_many_as_published():
    assert parameters(Heads(4096, SEVEN, None, 0)) == 98_328
    sizes = [len(c) for c in SEVEN.values()]
    with torch.device("meta"):
        state = LabelHeads(4096, sizes, "tel").state_dict()
    weights = {name: torch.zeros(w.shape) for name, w in state.items()}
    part = Part({"dim": 4096, "classes": sizes, "relation": "tel"}, weights)
    assert parameters(Heads(4096, SEVEN, part, 0)) == 17_978_008


def test_fresh_heads_start_as_published():
    heads = Heads(4096, SEVEN, None, 0)
    weights = torch.cat([w.flatten() for w in heads.weights])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02) and abs(weights.mean().item()) < 1e-4
    assert all((b == 0).all() for b in heads.biases)


def test_heads_start_as_what_is_handed_on_says():
    part, x = LabelHeads(16, [3, 2], "tel", width=16, feedforward=8).part(), torch.randn(7, 16)
    heads = Heads(16, {"a": (1, 1, 1), "b": (1, 1)}, part, 0).eval()
    for found, expected in zip(heads(x), label_heads(part).eval()(x), strict=True):
        torch.testing.assert_close(found, expected)


def trained(heads: Heads, x: torch.Tensor, truth: torch.Tensor, **config: float) -> Heads:
    """By the settings of `linear_handover`, unless others are given."""
    settings = {"lr": 1e-3, "weight_decay": 0.01, "epochs": 3, "batch": 128, **config}
    train_heads(heads, x, truth, SimpleNamespace(**settings), 0, "probe")
    return heads


def test_a_step_is_that_of_adamw_on_the_whole_batch():
    x, truth = torch.randn(20, 16), torch.stack([torch.arange(20) % 3, torch.arange(20) % 3 - 1], 1)
    ours, theirs = (Heads(16, {"a": (1, 1, 1), "b": (1, 1)}, None, 0) for _ in range(2))
    trained(ours, x, truth, lr=0.01)
    assert not ours.training
    optimizer = torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        mean_loss(theirs(x), truth)[0].backward()
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_every_labelled_case_is_seen_in_every_epoch_and_no_batch_is_small():
    heads, truth = Heads(2, {"a": (6, 5)}, None, 0), (torch.arange(13) % 2)[:, None]
    truth[[3, 7]] = -1
    x, seen = torch.arange(26.0).reshape(13, 2) / 26, []
    heads.register_forward_pre_hook(lambda module, given: seen.append((given[0][:, 0] * 13).round().int().tolist()))
    trained(heads, x, truth, epochs=2, batch=4)
    assert [len(batch) for batch in seen] == [4] * 6
    orders = [*chain(*seen[:3])], [*chain(*seen[3:])]
    assert all({*order} == {*range(13)} - {3, 7} for order in orders) and orders[0] != orders[1]


def test_dropout_masks_differ_from_step_to_step():
    heads = Heads(4, {"a": (8, 0)}, LabelHeads(4, [2], "tel", width=4).part(), 0)
    dropout, steps = heads.handed.relation[0].drop_attention, []
    heads.register_forward_pre_hook(lambda module, given: steps.append(dropout.step))
    trained(heads, torch.ones(8, 4), torch.zeros(8, 1, dtype=torch.int64), batch=4)
    assert len({*steps}) == len(steps) == 6


def test_diverged_training_names_the_setting():
    heads = Heads(4, {"a": (8, 0)}, None, 0)
    heads.register_forward_hook(lambda module, given, logits: [x * math.nan for x in logits])
    with pytest.raises(UserError, match=r"downstream.probe.lr: training diverged in epoch 1; must be below 0.5"):
        trained(heads, torch.ones(8, 4), torch.zeros(8, 1, dtype=torch.int64), lr=0.5)


def test_nothing_labelled_leaves_heads_as_they_were():
    heads = Heads(4, {"a": (0, 0)}, None, 0)
    before = [p.clone() for p in heads.parameters()]
    trained(heads, torch.ones(8, 4), torch.full((8, 1), -1))
    assert all(torch.equal(a, b) for a, b in zip(before, heads.parameters(), strict=True)) and not heads.training


def whole_group_alone() -> float:
    """Only the first process trains heads; it waits for nobody."""
    heads = Heads(2, {"a": (4, 4)}, None, 0)
    if world.rank() == 0:
        with own_randomness(0, torch.device("cpu"), 1):
            trained(heads, torch.arange(16.0).reshape(8, 2), (torch.arange(8) % 2)[:, None])
    return float(heads.biases[0].abs().sum())


@pytest.mark.slow
def test_one_process_of_a_group_trains_heads_alone(two: Group):
    first, second = two(whole_group_alone)
    assert first > 0 and second == 0
