"""MoCo v2: its loss, its moving average, its queue, and keys that do not know their queries."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretext import tiny
from torch import nn

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.pretext.base import Batch, Setting
from dermsearch.pretext.moco_v2 import KeyNetwork, MoCoV2, info_nce

SETTING = Setting(units=100, size=32, dim=8, batch=10, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.mark.parametrize(
    "positive, queue, expected",
    [
        (0.3, [0.3] * 65536, math.log(65537)),
        (1.0, [0.0] * 65536, 6.092617),
        (0.5, [0.0, 0.5, -0.5, 1.0], 2.658252),
    ],
)
def test_loss(positive, queue, expected):
    q = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    at = lambda s: torch.stack([s, (1 - s * s).sqrt()], -1)  # the unit vector of that similarity  # noqa: E731
    k = at(torch.tensor([positive], dtype=torch.float64))
    value, logits = info_nce(q, k, at(torch.tensor(queue, dtype=torch.float64)), 0.2)
    assert value.item() == pytest.approx(expected, abs=1e-5)
    assert logits.shape == (1, 1 + len(queue)) and logits[0, 0].item() == pytest.approx(positive / 0.2)


def test_loss_is_a_mean_and_sends_no_gradient_to_keys():
    torch.manual_seed(0)
    q, k, queue = (F.normalize(torch.randn(n, 4, dtype=torch.float64), dim=1) for n in (3, 3, 5))
    q.requires_grad_()
    whole, _ = info_nce(q, k, queue, 0.2)
    each = [info_nce(q[i : i + 1], k[i : i + 1], queue, 0.2)[0] for i in range(3)]
    torch.testing.assert_close(whole, torch.stack(each).mean())
    assert torch.autograd.gradcheck(lambda q: info_nce(q, k, queue, 0.2)[0], q)


def test_moving_average():
    backbone, head = nn.Linear(2, 2), nn.Linear(2, 2)
    for p in [*backbone.parameters(), *head.parameters()]:
        nn.init.zeros_(p)
    key = KeyNetwork(backbone, head)
    for p in [*backbone.parameters(), *head.parameters()]:
        nn.init.ones_(p)
    key.follow([backbone, head], 0.999)
    for p in key.parameters():
        torch.testing.assert_close(p.data, torch.full_like(p, 0.001))
        assert not p.requires_grad
    key.follow([backbone, head], 0.999)
    assert next(key.parameters()).flatten()[0].item() == pytest.approx(0.001999, rel=1e-4)


def test_head_has_no_batchnorm_and_its_known_number_of_parameters():
    task = MoCoV2(nn.Identity(), MoCoV2.Config(), Setting(units=10_000, size=32, dim=2048, batch=64, seed=0))
    assert sum(p.numel() for p in task.head.parameters()) == 4_458_624
    assert [type(m) for m in task.head] == [nn.Linear, nn.ReLU, nn.Linear]


def test_queue_starts_as_unit_vectors_and_takes_batches_in_turn(store):
    run = tiny.Steps("moco_v2", store)
    task = run.learner.tasks["shared"]
    torch.testing.assert_close(task.queue.norm(dim=1), torch.ones(32))
    before = task.queue.clone()
    run.backward()
    keys = task.keys.clone()
    assert keys.shape == (tiny.BATCH, 16) and not keys.requires_grad
    assert torch.equal(task.queue, before)  # the loss is that of the old queue
    run.finish()
    assert torch.equal(task.queue[:16], keys) and torch.equal(task.queue[16:], before[16:])
    run.backward()
    second = task.keys.clone()
    run.finish()
    assert torch.equal(task.queue, torch.cat([keys, second])) and int(task.at) == 0
    run.step()
    assert torch.equal(task.queue[16:], second) and int(task.at) == 16


def test_key_network_moves_before_it_is_used(store):
    run = tiny.Steps("moco_v2", store)
    task = run.learner.tasks["shared"]
    run.step()
    old = [p.clone() for p in task.key.parameters()]
    query = [p.clone() for p in [*task.backbone.parameters(), *task.head.parameters()]]
    run.backward()
    for key, was, p in zip(task.key.parameters(), old, query, strict=True):
        torch.testing.assert_close(key.data, 0.999 * was + 0.001 * p)
    assert not all(torch.equal(a, b) for a, b in zip(old, task.key.parameters(), strict=True))


def test_keys_are_normalised_in_shuffled_groups(store):
    """Each group has the statistics of its own, and the finished keys stand at their own rows."""
    run = tiny.Steps("moco_v2", store)
    task = run.learner.tasks["shared"]
    (batch,) = run.batches().values()
    keys = task.encode_keys(batch)
    order = batch.permutation("shuffle")
    assert sorted(order) == list(range(tiny.BATCH)) and list(order) != sorted(order)
    for rows in np.array_split(order, 4):
        views = batch.view(task.view, "key", batch.units[rows])
        torch.testing.assert_close(keys[rows], F.normalize(task.key(views), dim=1))
    together = F.normalize(task.key(batch.view(task.view, "key", batch.units)), dim=1)
    assert (together - keys).abs().max() > 1e-3
    assert not torch.equal(batch.view(task.view, "key"), batch.view(task.view, "query"))


@pytest.mark.parametrize("processes", [2, 6, 8])
def test_more_processes_than_groups(processes, store, monkeypatch):
    """Keys return to their rows, whoever encoded them, and each process asks for the images that it said it would."""
    run = tiny.Steps("moco_v2", store)
    task, (pool,) = run.learner.tasks["shared"], run.pools.values()
    units = np.random.default_rng(0).permutation(len(pool))[:24]
    whole = task.encode_keys(Batch(units, pool, tiny.SIZE, 5, 0, 0))
    monkeypatch.setattr(world, "size", lambda: processes)
    monkeypatch.setattr(world, "reduce_sum", lambda x: x)
    asked, pixels, parts = list[np.ndarray](), pool.pixels, list[torch.Tensor]()
    monkeypatch.setattr(pool, "pixels", lambda units: (asked.append(units), pixels(units))[1])
    for rank in range(processes):
        monkeypatch.setattr(world, "rank", lambda rank=rank: rank)
        batch = Batch(units, pool, tiny.SIZE, 5, 0, 0)
        asked.clear()
        batch.view(task.view, "query")
        parts.append(task.encode_keys(batch))
        told = task.asks(batch)
        assert len(told) == len(asked) and all(map(np.array_equal, told, asked))
    assert torch.equal(torch.stack(parts).sum(0), whole)
    assert sum(bool(part.any()) for part in parts) == min(processes, 4), "of four groups each is encoded once"


def test_key_statistics_do_not_drift(store):
    run = tiny.Steps("moco_v2", store)
    start = {n: b.clone() for n, b in run.learner.named_buffers() if ".key." in n and "running" in n}
    run.step()
    assert start and all(torch.equal(b, dict(run.learner.named_buffers())[n]) for n, b in start.items())


@pytest.mark.parametrize(
    "queue, message", [(45, "not a multiple of the batch, 10"), (100, "smaller than the 100 training images")]
)
def test_check(queue, message):
    with pytest.raises(UserError, match=message):
        MoCoV2.check(MoCoV2.Config(queue=queue), SETTING)


def test_check_accepts():
    MoCoV2.check(MoCoV2.Config(queue=90), SETTING)
