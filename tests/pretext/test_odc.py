"""ODC: class weights, memories, the floor under cluster sizes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretext import tiny
from torch import nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.pretext.base import Batch, Setting
from dermsearch.pretext.odc import ODC, class_weights, halves, kmeans


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def small_task(units: int = 200, clusters: int = 4, small: int = 20, **config: float) -> ODC:
    settings = ODC.Config(clusters=clusters, small=small, feature=2, hidden=4, **config)
    return ODC(nn.Identity(), settings, Setting(units, 32, 8, 10, 0))


def cloud(task: ODC, counts: list[int], seed: int = 0) -> None:
    """Fill the memories: unit vectors in the first quadrant, labels by angle in clusters of these sizes."""
    n = sum(counts)
    angle = torch.rand(n, generator=torch.Generator().manual_seed(seed)).sort().values * math.pi / 2
    task.bank.copy_(torch.stack([angle.cos(), angle.sin()], 1))
    task.label.copy_(torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)))
    task.recompute_centroids()


def test_class_weights():
    found = class_weights(torch.tensor([1, 4, 100]), 0.5).double()
    torch.testing.assert_close(found, torch.tensor([0.625, 0.3125, 0.0625]).double(), atol=1e-6, rtol=0)
    assert torch.equal(class_weights(torch.tensor([0, 1]), 0.5), torch.tensor([0.5, 0.5]))


def test_equal_clusters_make_a_plain_cross_entropy(store):
    run = tiny.Steps("odc", store)
    task = run.learner.tasks["shared"]
    logits: list[torch.Tensor] = []
    task.classifier.register_forward_hook(lambda module, args, out: logits.append(out.detach()))
    task.label.copy_(torch.arange(tiny.CASES) % 4)
    (batch,) = run.batches().values()
    value = task.loss(batch).value
    truth = task.label[torch.from_numpy(batch.units)]
    torch.testing.assert_close(value.detach(), F.cross_entropy(logits[0], truth))
    task.label.copy_(torch.arange(tiny.CASES) // 40)  # 40, 8, none, none: torch's own weighted mean
    value = task.loss(batch).value
    weight = class_weights(torch.tensor([40, 8, 0, 0]), 0.5)
    truth = task.label[torch.from_numpy(batch.units)]
    torch.testing.assert_close(value.detach(), F.cross_entropy(logits[1], truth, weight=weight))


def test_memory_moves_half_way():
    task = small_task(units=10, clusters=2, small=1)
    task.bank[:] = torch.tensor([1.0, 0.0])
    task.label[5:] = 1
    task.centroid.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    task.new = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    task.after_step(Batch(np.array([3, 4, 3]), None, 32, 0, 0, 0))  # image 3 twice: the first row counts
    torch.testing.assert_close(task.bank[3], torch.full((2,), math.sqrt(0.5)))
    torch.testing.assert_close(task.bank[4], torch.tensor([1.0, 0.0]))
    assert torch.equal(task.centroid, torch.eye(2))  # not a step at which they are computed again


def test_new_label_is_the_nearest_centroid_and_centroids_follow_every_few_steps():
    task = small_task(units=8, clusters=2, small=1, memory_momentum=1.0, recompute=3)
    cloud(task, [4, 4])
    task.centroid.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    for step in range(3):
        before = task.centroid.clone()
        task.new = torch.tensor([[0.0, 1.0]])
        task.after_step(Batch(np.array([0]), None, 32, 0, 0, step))
        assert torch.equal(task.centroid, before) == (step < 2)
    assert task.label[0] == 1
    for c in range(2):
        torch.testing.assert_close(task.centroid[c], task.bank[task.label == c].mean(0))


@pytest.mark.parametrize("counts", [[190, 5, 3, 2], [200, 0, 0, 0], [61, 60, 60, 19], [0, 0, 100, 100], [50] * 4])
@pytest.mark.parametrize("seed", range(3))
def test_no_cluster_is_left_below_the_floor(counts, seed):
    task = small_task()
    cloud(task, counts, seed)
    before = task.label.clone()
    task.refill_small_clusters()
    assert task.counts().min() >= 20 and task.counts().sum() == 200
    if min(counts) >= 20:
        assert torch.equal(task.label, before)
    touched = [c for c in range(4) if not torch.equal(before == c, task.label == c)]
    for c in touched:
        torch.testing.assert_close(task.centroid[c], task.bank[task.label == c].mean(0))


def test_an_outlier_does_not_become_a_cluster():
    """2-means alone would leave one image on one side, and the cluster would be dissolved at every step."""
    task = small_task(units=100, clusters=2)
    task.bank.copy_(torch.tensor([1.0, 0.0]).repeat(100, 1))
    task.bank[7] = torch.tensor([0.0, 1.0])
    task.recompute_centroids()
    task.refill_small_clusters()
    assert task.counts().tolist() == [50, 50]


def test_members_of_a_small_cluster_go_to_their_neighbours():
    task = small_task(units=110, clusters=3)
    cloud(task, [50, 10, 50])
    dissolved = task.label == 1
    nearer = (task.bank @ task.centroid[[0, 2]].T).argmax(1) * 2
    task.refill_small_clusters()
    kept = dissolved & (task.label != 1)  # those that the refilled cluster did not take back
    assert kept.any() and torch.equal(task.label[kept], nearer[kept])


@pytest.mark.parametrize("x", [torch.ones(9, 2), torch.eye(2).repeat(8, 1), torch.rand(30, 3)])
def test_halves_are_two(x):
    second = halves(x, 4)
    assert second.shape == (len(x),) and 4 <= second.sum() <= len(x) - 4
    assert torch.equal(second, halves(x, 4))


def test_kmeans_finds_clusters_and_is_seeded():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    truth = torch.arange(600) % 3
    x = centres[truth] + torch.randn(600, 2, generator=generator) * 0.3
    found = kmeans(x, 3, 0)
    assert all(len(found[truth == c].unique()) == 1 for c in range(3)) and len(found.unique()) == 3
    assert torch.equal(found, kmeans(x, 3, 0))


def test_beginning_fills_the_memories(store):
    run = tiny.Steps("odc", store)
    task = run.learner.tasks["shared"]
    torch.testing.assert_close(task.bank.norm(dim=1), torch.ones(tiny.CASES))
    assert task.bank.min() >= 0 and task.counts().min() >= 5
    for c in range(4):
        torch.testing.assert_close(task.centroid[c], task.bank[task.label == c].mean(0))
    assert run.learner.training and task.neck.training


def test_neck_has_its_known_number_of_parameters():
    task = ODC(nn.Identity(), ODC.Config(clusters=10), Setting(1000, 32, 2048, 10, 0))
    assert sum(p.numel() for p in task.neck.parameters()) == 1_180_416
    assert task.options() == {"classifier": {"momentum": 0.0}} and ODC.replacement


def test_check():
    with pytest.raises(UserError, match="need 80 training images; there are 79"):
        ODC.check(ODC.Config(clusters=4, small=20), Setting(79, 32, 8, 10, 0))
    ODC.check(ODC.Config(clusters=4, small=20), Setting(80, 32, 8, 10, 0))
