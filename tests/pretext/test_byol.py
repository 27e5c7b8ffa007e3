"""BYOL: its loss, its slow target, and the predictor and the stopped gradient that it stands on."""

import math

import pytest
import torch
import torch.nn.functional as F
from pretext import tiny
from torch import nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.momentum import momentum_at
from dermsearch.pretext.base import Setting
from dermsearch.pretext.byol import BYOL, byol_loss

SETTING = Setting(units=100, size=224, dim=2048, batch=10, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def at(degrees: float) -> torch.Tensor:
    turned = math.radians(degrees)
    return torch.tensor([[math.cos(turned), math.sin(turned)]], dtype=torch.float64)


@pytest.mark.parametrize("degrees, expected", [(0, 0.0), (60, 2.0), (90, 4.0), (180, 8.0)])
def test_loss(degrees, expected):
    predictions, targets = [at(10), 5 * at(200)], [at(200 - degrees), 0.1 * at(10 + degrees)]
    assert byol_loss(predictions, targets).item() == pytest.approx(expected, abs=1e-5)


def test_loss_crosses_the_views_and_is_a_mean_over_rows():
    torch.manual_seed(0)
    p, z = ([torch.randn(3, 4, dtype=torch.float64) for _ in range(2)] for _ in range(2))
    expected = 0.0
    for i in range(3):
        for here, there in ((0, 1), (1, 0)):
            u, v = p[here][i] / p[here][i].norm(), z[there][i] / z[there][i].norm()
            expected += float((u - v).square().sum()) / 3  # = 2 - 2 cos
    assert byol_loss(p, z).item() == pytest.approx(expected, abs=1e-9)
    assert byol_loss(p, z[::-1]).item() != pytest.approx(expected, abs=1e-2)


def test_loss_sends_no_gradient_to_targets():
    torch.manual_seed(0)
    p, z = ([torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)] for _ in range(2))
    byol_loss(p, z).backward()
    assert all(t.grad is None for t in z) and all(t.grad.norm() > 1e-3 for t in p)
    assert torch.autograd.gradcheck(lambda a, b: byol_loss([a, b], z), p)


def test_half_precision_around_the_loss_costs_no_digits():
    torch.manual_seed(0)
    p, z = ([torch.randn(8, 16) for _ in range(2)] for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = byol_loss(p, z)
        low = byol_loss([x.bfloat16() for x in p], z)
    assert found.item() == pytest.approx(byol_loss([x.double() for x in p], [x.double() for x in z]).item(), rel=1e-6)
    assert low.dtype == torch.float32


def test_heads_are_those_of_the_authors():
    task = BYOL(nn.Identity(), BYOL.Config(), SETTING)
    for head in (task.projector, task.predictor):
        assert [type(m) for m in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert sum(p.numel() for p in task.projector.parameters()) == 9_449_728
    assert sum(p.numel() for p in task.target.parameters()) == 9_449_728  # the target has no predictor
    first, second = task.views
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert first.jitter == second.jitter == (0.4, 0.4, 0.2, 0.1)


def test_momentum_climbs_to_one_by_the_step():
    assert momentum_at(0, 100, 0.996) == pytest.approx(0.996)
    assert momentum_at(50, 100, 0.996) == pytest.approx(0.998)
    assert momentum_at(25, 100, 0.99) == pytest.approx(1 - 0.01 * (math.sqrt(0.5) + 1) / 2)
    assert momentum_at(100, 100, 0.99) == 1
    climb = [momentum_at(k, 60, 0.9) for k in range(61)]
    assert climb == sorted(climb) and len(set(climb)) == 61


def test_target_begins_as_the_online_network_with_its_statistics(store):
    """The authors' hand-me-down weights bring BatchNorm's statistics, which parameters alone would not."""
    made = tiny.encoders()
    for buffer in made.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.5)
    task = tiny.Steps("byol", store, made).learner.tasks["shared"]
    online = [*task.backbone.state_dict().values(), *task.projector.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(task.target.state_dict().values(), online, strict=True))
    assert not any(p.requires_grad for p in task.target.parameters())


def test_target_follows_after_the_step_by_the_momentum_of_the_step(store):
    run = tiny.Steps("byol", store)
    task = run.learner.tasks["shared"]
    assert task.setting.steps == 6
    for k in range(3):
        old = [p.clone() for p in task.target.parameters()]
        run.backward()
        assert all(torch.equal(a, b) for a, b in zip(old, task.target.parameters(), strict=True))
        run.finish()
        tau = 1 - 0.01 * (math.cos(math.pi * k / 6) + 1) / 2
        online = [*task.backbone.parameters(), *task.projector.parameters()]  # as the optimiser left them
        for p, was, now in zip(task.target.parameters(), old, online, strict=True):
            torch.testing.assert_close(p.data, tau * was + (1 - tau) * now.data, rtol=1e-5, atol=1e-7)
        assert any(not torch.equal(a, b) for a, b in zip(old, task.target.parameters(), strict=True))


def test_target_has_statistics_of_its_own_passes(store):
    run = tiny.Steps("byol", store)
    task = run.learner.tasks["shared"]
    task.target.follow([task.backbone, task.projector], 0.0)
    with torch.no_grad():
        for p in task.target.parameters():
            p.mul_(1.5)
    before = [b.clone() for b in task.target.buffers()]
    run.backward()
    theirs = [*task.backbone.buffers(), *task.projector.buffers()]
    after = list(task.target.buffers())
    moved = [i for i, b in enumerate(before) if b.is_floating_point()]
    assert moved and all(not torch.equal(before[i], after[i]) for i in moved)
    assert any(not torch.allclose(after[i], theirs[i], rtol=0.01) for i in moved)
    following = [b.clone() for b in after]
    run.finish()  # to follow takes no statistics over
    assert all(torch.equal(a, b) for a, b in zip(following, task.target.buffers(), strict=True))


def test_loss_is_that_of_both_views_through_both_networks(store):
    run = tiny.Steps("byol", store)
    run.step()
    task = run.learner.tasks["shared"]
    (batch,) = run.batches().values()
    one, two = batch.views(task.views, "view")
    online = lambda x: task.predictor(task.projector(task.backbone(x)))  # noqa: E731
    cos = F.cosine_similarity(online(one), task.target(two)) + F.cosine_similarity(online(two), task.target(one))
    loss = task.loss(batch)
    assert loss.value.item() == pytest.approx((4 - 2 * cos).mean().item(), rel=1e-5)
    torch.testing.assert_close(loss.embedding, task.backbone(one))


def test_predictor_is_trained(store):
    run = tiny.Steps("byol", store)
    task = run.learner.tasks["shared"]
    given = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in task.predictor.parameters()} <= given
    assert not {id(p) for p in task.target.parameters()} & given
    before = [p.clone() for p in task.predictor.parameters() if p.ndim > 1]
    run.step()
    after = [p for p in task.predictor.parameters() if p.ndim > 1]
    assert before and all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_online_backbone_is_handed_on(store):
    task = tiny.Steps("byol", store).learner.tasks["shared"]
    assert task.handed_on() is task.backbone


def test_check():
    BYOL.check(BYOL.Config(), SETTING)
    with pytest.raises(UserError, match=r"^batch: must be at least 2, .* not 1$"):
        BYOL.check(BYOL.Config(), Setting(units=100, size=32, dim=8, batch=1, seed=0))


def test_cost():
    assert BYOL.cost(BYOL.Config(), 224) == pytest.approx(8 / 3)
