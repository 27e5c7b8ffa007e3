"""SimCLR: its views, its head, and both views in one batch."""

from statistics import fmean

import pytest
import torch
from models.test_contrast import plainly
from pretext import tiny
from torch import nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.pretext.base import Setting
from dermsearch.pretext.simclr import SimCLR

SETTING = Setting(units=100, size=224, dim=2048, batch=10, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def test_head_is_that_of_the_authors():
    task = SimCLR(nn.Identity(), SimCLR.Config(), SETTING)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert [type(m) for m in task.head] == kinds and task.head[0].bias is task.head[3].bias is None
    assert sum(p.numel() for p in task.head.parameters()) == 2048 * 2048 + 2048 * 128 + 2 * (2048 + 128)


def test_strength_of_the_jitter():
    usual, half = (SimCLR(nn.Identity(), SimCLR.Config(strength=s), SETTING).view for s in (1.0, 0.5))
    assert usual.jitter == (0.8, 0.8, 0.8, 0.2) and half.jitter == (0.4, 0.4, 0.4, 0.1)
    assert usual.scale == (0.08, 1.0) and usual.kernel is None  # a tenth of the side
    most = SimCLR(nn.Identity(), SimCLR.Config(strength=2.5), SETTING).view
    assert most.jitter[3] == 0.5  # half the colour circle: no hue is further away


def test_loss_is_nt_xent_of_two_unlike_views_in_one_batch(store):
    run = tiny.Steps("simclr", store)
    task = run.learner.tasks["shared"]
    (batch,) = run.batches().values()
    one, two = batch.views([task.view] * 2, "view")
    assert (one - two).abs().amax((1, 2, 3)).min() > 0.1  # every image is seen twice, differently
    seen: list[torch.Tensor] = []
    task.backbone.register_forward_pre_hook(lambda module, images: seen.append(images[0]))
    loss = task.loss(batch)
    assert len(seen) == 1 and torch.equal(seen[0], torch.cat([one, two]))
    projected = task.head(task.backbone(torch.cat([one, two])))
    for output in projected.T:  # BatchNorm without a bias yet: over both views together, mean 0
        assert output.mean().item() == pytest.approx(0, abs=1e-5)
    assert abs(projected[: tiny.BATCH].mean(0)).max() > 1e-3
    expected = fmean(plainly(*projected.split(tiny.BATCH), 0.5))
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(loss.embedding, task.backbone(torch.cat([one, two]))[: tiny.BATCH])


def test_temperature_is_used(store):
    run = tiny.Steps("simclr", store)
    task = run.learner.tasks["shared"]
    (batch,) = run.batches().values()
    projected = task.head(task.backbone(torch.cat(batch.views([task.view] * 2, "view"))))
    task.config = task.config.model_copy(update={"temperature": 0.1})
    expected = fmean(plainly(*projected.split(tiny.BATCH), 0.1))
    assert task.loss(batch).value.item() == pytest.approx(expected, rel=1e-5)


def test_same_views_are_found_with_certainty(store):
    """What the loss measures is the views: without any change to them it comes near its least."""
    run = tiny.Steps("simclr", store)
    task = run.learner.tasks["shared"]
    (batch,) = run.batches().values()
    before = task.loss(batch).value.item()
    task.view = type(task.view)(tiny.SIZE)
    x = task.head(task.backbone(batch.views([task.view], "view")[0]))
    assert task.loss(batch).value.item() == pytest.approx(fmean(plainly(x, x, 0.5)), rel=1e-4)
    assert task.loss(batch).value.item() < before - 0.5


def test_check():
    SimCLR.check(SimCLR.Config(), SETTING)
    with pytest.raises(UserError, match=r"^batch: must be at least 2, .* not 1$"):
        SimCLR.check(SimCLR.Config(), Setting(units=100, size=32, dim=8, batch=1, seed=0))


def test_cost():
    assert SimCLR.cost(SimCLR.Config(), 224) == 2
