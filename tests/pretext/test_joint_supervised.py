"""Joint supervised training: both of its terms, the cases without a label, the draw, and what it is not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gloo import Group
from pretext import tiny
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.contrast import nt_xent
from dermsearch.pretext.base import Setting, Task
from dermsearch.pretext.batch import epoch_order
from dermsearch.pretext.joint_supervised import JointSupervised, chances, classification

SETTING = Setting(units=100, size=32, dim=8, batch=10, seed=0, classes={"diagnosis": 5, "pigment_network": 3, "one": 1})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    """Every third case has no label."""
    labels = np.where(np.arange(tiny.CASES) % 3 == 2, -1, np.arange(tiny.CASES) % 2)
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store", labels)


def first_column(z: Tensor, temperature: float) -> Tensor:
    """The authors' contrastive term, by row: everybody's partner is the first other row. A reference, used nowhere."""
    z = F.normalize(z, dim=1)
    n = len(z)
    others = (z @ z.T / temperature)[~torch.eye(n, dtype=torch.bool)].reshape(n, n - 1)
    return F.cross_entropy(others, torch.zeros(n, dtype=torch.long), reduction="none")


def test_first_column_reference():
    z = torch.tensor([[1, 0], [0, 1], [0.6, 0.8]], dtype=torch.float64)
    each = first_column(z, 0.5)
    assert each.tolist() == pytest.approx([1.463282, 1.783901, 0.913015], abs=1e-5)
    assert each.mean().item() == pytest.approx(1.386733, abs=1e-5)
    collapsed = first_column(torch.ones(64, 4, dtype=torch.float64), 0.5)
    assert collapsed.mean().item() == pytest.approx(4.143135, abs=1e-5)


def test_contrast_is_not_the_first_column():
    """It rewards views of one image that agree; the authors' term cannot, having one view of each."""
    apart = torch.eye(4, dtype=torch.float64)
    together = torch.ones(4, 4, dtype=torch.float64)
    assert nt_xent(apart, apart, 0.5) < nt_xent(together, together, 0.5) - 0.5
    assert first_column(apart, 0.5).mean() == pytest.approx(first_column(together, 0.5).mean().item())
    two = torch.eye(2, dtype=torch.float64)
    assert nt_xent(two, two, 0.5).item() == pytest.approx(0.239545, abs=1e-5)


def task_of(store: CaseStore, **config) -> tuple[tiny.Steps, Task]:
    """The task in double precision, its backbone too."""
    run = tiny.Steps("joint_supervised", store)
    task = run.learner.tasks["shared"].double()
    task.config = JointSupervised.Config(**{"out": 16, **config})
    task.backbone.register_forward_pre_hook(lambda module, args: args[0].double())
    return run, task


def test_collapsed_projections_cost_the_chance_of_both_terms(store):
    run, task = task_of(store)
    for layer in (task.head[-1], task.classifier):
        nn.init.zeros_(layer.weight)
    nn.init.ones_(task.head[-1].bias)
    nn.init.zeros_(task.classifier.bias)
    (batch,) = run.batches().values()
    expected = math.log(3) + 0.5 * math.log(2 * tiny.BATCH - 1)
    assert task.loss(batch).value.item() == pytest.approx(expected, abs=1e-5)


def test_loss_is_that_of_a_slow_loop(store):
    run, task = task_of(store, weight=0.3, temperature=0.4)
    (batch,) = run.batches().values()
    found = task.loss(batch)
    views = batch.views([task.view] * 2, f"view/{batch.step}")
    assert not torch.equal(*views)
    features = task.backbone(torch.cat(views))
    z = task.head(features)
    logp = task.classifier(z).log_softmax(1)  # the classifier sits on the projection
    truth = store.label("diagnosis")[batch.units]
    labelled = [i for i in range(tiny.BATCH) if truth[i] >= 0]
    assert 0 < len(labelled) < tiny.BATCH
    classes = -sum(logp[i + v, truth[i]] for i in labelled for v in (0, tiny.BATCH)) / (2 * len(labelled))
    unit = z / z.norm(dim=1, keepdim=True)
    contrast = torch.zeros((), dtype=torch.float64)
    for i in range(2 * tiny.BATCH):
        logits = {j: unit[i] @ unit[j] / 0.4 for j in range(2 * tiny.BATCH) if j != i}
        contrast -= logits[(i + tiny.BATCH) % (2 * tiny.BATCH)] - torch.stack(list(logits.values())).logsumexp(0)
    torch.testing.assert_close(found.value, classes + 0.3 * contrast / (2 * tiny.BATCH))
    hits = sum(int(logp[i + v].argmax()) == truth[i] for i in labelled for v in (0, tiny.BATCH))
    assert float(found.parts["accuracy"]) == pytest.approx(hits / (2 * len(labelled)))
    torch.testing.assert_close(found.embedding, features[: tiny.BATCH])


def test_classes_teach_projector_and_backbone(store):
    """The feature is shared: without the contrast, both still learn, from labelled cases alone."""
    run, task = task_of(store, weight=0.0)
    run.backward()
    for part in (task.head, task.backbone):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters()) > 0
    logits = torch.randn(4, 3, requires_grad=True)
    classification(logits, torch.tensor([0, -1, 2, -1]))[0].backward()
    assert (logits.grad.abs().sum(1) > 0).tolist() == [True, False, True, False]


def test_without_weight_it_is_cross_entropy_to_the_bit(store, monkeypatch):
    """Loss and every gradient are those of a task that has no contrast at all."""
    found = []
    for contrast in (nt_xent, lambda first, *_, **__: first.new_zeros(())):
        monkeypatch.setattr("dermsearch.pretext.joint_supervised.nt_xent", contrast)
        run, task = task_of(store, weight=0.0)
        found.append([run.backward(), *(p.grad for p in task.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_batch_without_labels_has_no_loss_of_classes():
    logits = torch.randn(4, 3, requires_grad=True)
    value, accuracy = classification(logits, torch.full((4,), -1))
    value.backward()
    assert value == 0 and accuracy == 0 and torch.equal(logits.grad, torch.zeros(4, 3))


UNEVEN = [0, 1, 2, 0, -1, -1, -1, 1]  # of four processes, one has no label at all


def uneven() -> tuple[float, float, list[list[float]]]:
    """Loss, accuracy and gradient of this process's rows."""
    torch.manual_seed(0)
    rows = world.mine(8)
    logits = torch.randn(8, 3, dtype=torch.float64)[rows].requires_grad_()
    value, accuracy = classification(logits, torch.tensor(UNEVEN)[rows])
    value.backward()
    return float(value.detach()), float(accuracy), logits.grad.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_mean_is_over_the_labelled_rows_of_all_processes(size, request):
    group: Group = request.getfixturevalue({2: "two", 4: "four"}[size])
    value, accuracy, gradient = uneven()
    torch.manual_seed(0)
    logits, truth = torch.randn(8, 3, dtype=torch.float64), torch.tensor(UNEVEN)
    known = truth >= 0
    assert value == pytest.approx(F.cross_entropy(logits[known], truth[known]).item())
    every = group(uneven)
    assert np.mean([v for v, _, _ in every]) == pytest.approx(value)
    assert np.mean([a for _, a, _ in every]) == pytest.approx(accuracy)
    rows = torch.cat([torch.tensor(g) for _, _, g in every]) / size  # as gradients are averaged
    torch.testing.assert_close(rows, torch.tensor(gradient))


def whole(folder: str) -> tuple[float, dict[str, Tensor]]:
    """Loss of the global batch, and the mean over processes of the gradient, in double precision."""
    torch.set_num_threads(1)
    run, _ = task_of(CaseStore(folder))
    across_processes(run.learner)
    loss = world.reduce_sum(run.backward()) / world.size()
    return float(loss), {n: world.reduce_sum(p.grad) / world.size() for n, p in run.learner.named_parameters()}


@pytest.mark.slow
def test_processes_with_unlike_numbers_of_labels_come_to_what_one_comes_to(store, four: Group):
    loss, gradient = whole(str(store.folder))
    for other, found in four(whole, str(store.folder)):
        assert other == pytest.approx(loss, rel=1e-6)
        for n, g in gradient.items():
            torch.testing.assert_close(found[n], g, rtol=1e-4, atol=1e-6 * max(1.0, float(g.abs().max())))


def test_rare_classes_are_drawn_as_often_as_common_ones():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    p = chances(labels)
    assert [p[labels == c].sum() for c in range(3)] == pytest.approx([1, 1, 1])
    drawn = labels[epoch_order(0, 0, 100, 9000, True, p)]
    assert np.bincount(drawn) == pytest.approx([3000] * 3, rel=0.06)


def test_a_case_without_a_label_has_the_mean_chance():
    p = chances(np.array([0, 0, 0, 1, -1, -1]))
    assert p.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 0.5, 0.5])
    assert chances(np.array([1, 1, -1])).tolist() == pytest.approx([0.5] * 3)  # class 0 has no case
    assert chances(np.full(4, -1)) is None


def test_draws_are_by_its_label_and_can_be_turned_off(store):
    run, task = task_of(store)
    pool, asked = run.pools["shared"], []

    class Asked:
        strata = None

        def __len__(self) -> int:
            return len(pool)

        def labels(self, name: str, units: np.ndarray) -> np.ndarray:
            asked.append(name)
            return np.where(np.asarray(units) < 2, 0, 1)

    drawn = task.plan_epoch(3, Asked(), 4000)
    assert asked == ["diagnosis"] and 0.4 < (drawn < 2).mean() < 0.6
    expected = epoch_order(7, 3, len(pool), 4000, True, chances(np.where(np.arange(len(pool)) < 2, 0, 1)))
    assert np.array_equal(drawn, expected)
    task.config = JointSupervised.Config(balanced=False)
    assert np.array_equal(task.plan_epoch(3, Asked(), 4000), epoch_order(7, 3, len(pool), 4000, True))
    assert asked == ["diagnosis", "diagnosis"]


def test_a_case_that_comes_again_looks_different(store):
    """Drawn with replacement, a rare case comes many times in an epoch."""
    run, task = task_of(store)
    seen: list[Tensor] = []
    task.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for run.at in (0, 1):
        (batch,) = run.batches().values()
        object.__setattr__(batch, "units", np.arange(tiny.BATCH))
        task.loss(batch)
    assert not any(torch.allclose(a, b) for a, b in zip(*seen, strict=True))


def test_check_names_the_nearest_label():
    with pytest.raises(UserError, match=r"label: must be a label of the cases, not 'diagnose'; .*'diagnosis'"):
        JointSupervised.check(JointSupervised.Config(label="diagnose"), SETTING)
    with pytest.raises(UserError, match="label: must be one of two classes or more, not 'one'"):
        JointSupervised.check(JointSupervised.Config(label="one"), SETTING)
    for label in ("diagnosis", "pigment_network"):
        JointSupervised.check(JointSupervised.Config(label=label), SETTING)
    JointSupervised.check(JointSupervised.Config(label="anything"), Setting(100, 32, 8, 10, 0))  # not known yet


def test_classifier_has_the_classes_of_its_label():
    for label, classes in (("diagnosis", 5), ("pigment_network", 3)):
        task = JointSupervised(nn.Identity(), JointSupervised.Config(label=label), SETTING)
        assert (task.classifier.in_features, task.classifier.out_features) == (128, classes)
        assert [type(m) for m in task.head] == [nn.Linear, nn.ReLU, nn.Linear]


def test_a_case_drawn_twice_looks_different_and_is_no_negative_of_itself(store):
    """Batches are drawn with replacement: a quarter of their rows are of a case that is there already."""
    run, task = task_of(store, temperature=0.4)
    (batch,) = run.batches().values()
    units = batch.units.copy()
    units[[3, 9, 12]] = units[1]
    twice = replace(batch, units=units)
    first, _ = twice.views([task.view] * 2, "view", again=True)
    assert not torch.equal(first[1], first[3]) and not torch.equal(first[3], first[9])
    same = replace(batch, units=units).views([task.view] * 2, "view")[0]
    assert torch.equal(same[1], same[3]) and torch.equal(same[1], first[1]), "the first time as ever"
    z = torch.nn.functional.normalize(torch.randn(32, 8, dtype=torch.float64), dim=1)
    value = 0.0
    for i in range(32):
        partner = (i + 16) % 32
        others = [j for j in range(32) if j == partner or units[j % 16] != units[i % 16]]
        logits = torch.stack([z[i] @ z[j] / 0.4 for j in others])
        value -= (z[i] @ z[partner] / 0.4 - logits.logsumexp(0)).item() / 32
    assert nt_xent(*z.chunk(2), 0.4, units=torch.from_numpy(units)).item() == pytest.approx(value)
    assert nt_xent(*z.chunk(2), 0.4).item() > value
    found, plain = task.loss(twice).value, task.loss(batch).value
    assert found.isfinite() and found != plain
