"""Inception-Combined: batches that hold every class, weights by the batch, and a loss for each subset of the inputs."""

import numpy as np
import pytest
import torch
from fit import pairs
from gloo import Group

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.fit.heads import mean_loss
from dermsearch.fit.inception_combined import CombinedNetwork, class_covering, class_weighted

LOGITS = torch.tensor([[2, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 3]], dtype=torch.float64)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return pairs.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.mark.parametrize(
    ("truth", "value"),
    [([0, 0, 1, 0, 2], 0.692621), ([0, 0, 1, 0, 1], 1.490548), ([0, 0, -1, 0, -1], None)],
)
def test_a_class_weighs_one_over_how_often_it_stands_in_the_batch(truth, value):
    found = class_weighted([LOGITS], torch.tensor(truth)[:, None]).item()
    each = torch.nn.functional.cross_entropy(LOGITS, torch.tensor(truth), reduction="none", ignore_index=-1)
    if value is None:
        value = each[[0, 1, 3]].mean().item()
    else:
        assert each.mean().item() == pytest.approx(0.769304, abs=1e-5) or truth[-1] == 1
    assert found == pytest.approx(value, abs=1e-5)


def test_the_rows_of_the_oracle():
    each = torch.nn.functional.cross_entropy(LOGITS, torch.tensor([0, 0, 1, 0, 2]), reduction="none")
    np.testing.assert_allclose(each, [0.239545, 1.551445, 1.098612, 0.861995, 0.094923], atol=1e-6)


def test_labels_are_averaged_and_unknown_ones_are_left_out():
    truth = torch.tensor([[0, -1], [0, -1], [1, -1], [0, -1], [2, -1]])
    assert class_weighted([LOGITS, LOGITS], truth).item() == pytest.approx(0.692621, abs=1e-5)
    assert class_weighted([LOGITS, LOGITS], truth[:, [0, 0]]).item() == pytest.approx(0.692621, abs=1e-5)


def share() -> tuple[float, int]:
    """This process's rows of a batch of six."""
    rows = world.mine(6)
    logits, truth = LOGITS[[0, 1, 2, 3, 4, 0]], torch.tensor([0, 0, 1, 0, 2, 0])[:, None]
    return class_weighted([logits[rows]], truth[rows]).item(), world.size()


def test_processes_count_classes_together(two: Group):
    one, many = share()[0], two(share)
    assert [n for _, n in many] == [2, 2] and np.mean([value for value, _ in many]) == pytest.approx(one, abs=1e-9)


# derm7pt's training cases by class, and how many of each stand in a batch of 24 on the mean.
TRAIN = [(19, 256, 90, 32, 16), (160, 160, 93), (339, 74), (347, 43, 23), (253, 44, 116), (273, 39, 101),
         (84, 156, 173), (317, 96)]  # fmt: skip


def test_every_class_is_in_every_batch(store):
    module = pairs.system("inception_combined", store)
    pools = {m: b.pool for m, b in pairs.batches(module, store, np.arange(2)).items()}
    units = module.plan_epoch(3, pools, 96)
    assert np.array_equal(units["derm"], units["clinic"])
    truth = {label: store.label(label) for label in store.classes}
    present = {(label, c) for label, t in truth.items() for c in np.unique(t)}
    size = len(present)
    again = class_covering(list(truth.values()), size * 20, np.random.default_rng(0)).reshape(20, size)
    for batch in (*again, *np.split(units["derm"][: 96 // size * size], 96 // size)):
        assert {(label, c) for label, t in truth.items() for c in np.unique(t[batch])} == present
    other = module.plan_epoch(4, pools, 96)["derm"]
    assert not np.array_equal(units["derm"], other)
    assert np.array_equal(units["derm"], module.plan_epoch(3, pools, 96)["derm"])


def test_draws_are_uniform_among_a_class_of_a_label():
    rng = np.random.default_rng(1)
    truth = [rng.permutation(np.repeat(np.arange(len(counts)), counts)) for counts in TRAIN]
    batches = class_covering(truth, 24 * 2000, rng).reshape(2000, 24)
    assert np.mean([len(set(batch)) for batch in batches]) == pytest.approx(23.4, abs=0.15)
    for t, counts in zip(truth, TRAIN, strict=True):
        # One of each class of the label itself; of the others' draws, here independent, by its share.
        expected = 1 + (24 - len(counts)) * np.array(counts) / 413
        found = np.stack([np.bincount(t[batch], minlength=len(counts)) for batch in batches])
        errors = 3.5 * found.std(0) / np.sqrt(len(batches)) + 0.2 * expected  # members of a class are drawn again
        assert (np.abs(found.mean(0) - expected) < errors).all()


@pytest.mark.parametrize("group", ["d", "c", "dc", "dm", "cm", "dcm"])
def test_every_subset_of_the_inputs_has_a_loss_of_its_own(group, store):
    module = pairs.system("inception_combined", store)
    sum(loss.value for loss in module.loss(pairs.batches(module, store, np.arange(16))).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.network.heads[group].parameters())


def test_the_loss_weighs_classes_by_the_batch(store):
    module = pairs.system("inception_combined", store)
    given = pairs.batches(module, store, np.arange(16))
    truth = torch.from_numpy(np.stack([store.label(label)[:16] for label in store.classes], 1).astype(np.int64))
    for group, logits in (said := module.said(given)).groups.items():
        _, parts = module.objective(said, truth, (), 0)
        torch.testing.assert_close(parts[group], class_weighted(logits, truth))
        assert abs(parts[group] - mean_loss(logits, truth)[0]) > 1e-3


def test_parameters_of_the_groups_at_2048_channels_with_14_values_of_metadata():
    with torch.device("meta"):
        heads = CombinedNetwork(pairs.RESNET50).heads
    found = {group: sum(p.numel() for p in each.parameters()) for group, each in heads.items()}
    assert found == {"d": 49_176, "c": 49_176, "dm": 49_512, "cm": 49_512, "dc": 98_328, "dcm": 98_664}


def test_without_metadata_there_are_three_groups(store):
    module = pairs.system("inception_combined", store, metadata=())
    assert list(module.network.heads) == ["d", "c", "dc"] and module.answer == "dc"
    losses = module.loss(pairs.batches(module, store, np.arange(4)))
    assert {"d", "c", "dc", "accuracy"} == losses["derm"].parts.keys()


def test_a_case_is_answered_by_the_heads_whose_inputs_it_has(store, monkeypatch):
    module = pairs.system("inception_combined", store).eval()
    given = pairs.batches(module, store, np.arange(6))
    by_group = {g: [x.double().softmax(1) for x in logits] for g, logits in module.said(given).groups.items()}
    there = {"derm": [1, 1, 0, 0, 1, 1], "clinic": [1, 0, 1, 1, 1, 0]}
    table = module.table(given)
    table[[3, 4, 5]] = 0
    for m, batch in given.items():
        monkeypatch.setattr(batch.pool, "_own", np.resize(np.array(there[m], bool), len(batch.pool)))
    monkeypatch.setattr(type(module), "table", lambda self, batches: table)
    expected = ["dcm", "dm", "cm", "c", "dc", "d"]
    with_zeros = {g: [x.double().softmax(1) for x in logits] for g, logits in module.said(given).groups.items()}
    for k, told in enumerate(module.predict(given).values()):
        for row, group in enumerate(expected):
            torch.testing.assert_close(told[row], with_zeros[group][k][row])
    assert not torch.equal(by_group["d"][0][2], with_zeros["d"][0][2]), "what is missing is zero"
