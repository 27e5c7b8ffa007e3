"""SwAV: its codes, its loss, its queue, and prototypes that stay unit vectors."""

import math

import pytest
import torch
from gloo import Group
from pretext import tiny
from torch import Tensor, nn

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.views.augment import local_side
from dermsearch.errors import UserError
from dermsearch.models.batchnorm import across_processes
from dermsearch.pretext.base import Setting
from dermsearch.pretext.swav import SwAV, queued, sinkhorn, swapped_loss

SETTING = Setting(units=100, size=64, dim=8, batch=10, seed=0, epochs=10, steps=100)
SCORES = [[1.0, 0.0], [0.5, 0.0], [0.9, 0.8]]
CODES = [[0.71928, 0.28072], [0.485228, 0.514772], [0.297526, 0.702474]]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def settings(monkeypatch):
    """Change the task's settings in the small store: settings(queue=0)."""
    return lambda **changed: monkeypatch.setitem(tiny.TASKS, "swav", {**tiny.TASKS["swav"], **changed})


def started(store: CaseStore, **train) -> tuple[tiny.Steps, SwAV]:
    run = tiny.Steps("swav", store, **train)
    return run, run.learner.tasks["shared"]


def double(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    "epsilon, expected",
    [(0.5, CODES), (0.05, [[0.999999, 0.000001], [0.986121, 0.013879], [0.02328, 0.97672]])],
)
def test_codes(epsilon, expected):
    found = sinkhorn(torch.tensor(SCORES, dtype=torch.float64), epsilon, 3)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def slow_codes(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """As the paper has it: a matrix that is scaled, prototype by prototype and image by image."""
    q = [[math.exp(s / epsilon) for s in row] for row in scores.tolist()]
    rows, columns = len(q), len(q[0])
    for _ in range(iterations):
        for k in range(columns):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] /= total * columns
        for row in q:
            total = sum(row)
            row[:] = [v / (total * rows) for v in row]
    return torch.tensor(q, dtype=scores.dtype) * rows


def test_codes_are_those_of_a_slow_reference_for_each_view():
    scores = double(2, 12, 5)
    found = sinkhorn(scores, 0.3, 3)
    for view in (0, 1):
        torch.testing.assert_close(found[view], slow_codes(scores[view], 0.3, 3))


def test_codes_are_dealt_evenly():
    """Images' shares sum to one after any number of iterations, prototypes' are equal after many."""
    scores = double(12, 4) + torch.tensor([6.0, 0, 0, 0])  # all images like the first prototype best
    assert set(scores.argmax(1).tolist()) == {0}
    torch.testing.assert_close(sinkhorn(scores, 0.5, 1).sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(sinkhorn(scores, 0.5, 500).sum(0), torch.full((4,), 3.0, dtype=torch.float64))


def test_codes_of_scores_whose_exponential_no_float32_holds():
    scores = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.9, 0.8]])
    assert not torch.exp(scores / 0.005).isfinite().all()
    found = sinkhorn(scores, 0.005, 3)
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), sinkhorn(scores.double(), 0.005, 3), atol=1e-4, rtol=0)


def test_loss_of_one_code_and_one_crop():
    """With two equal crops and two equal codes the mean over pairs is that of one pair."""
    codes, scores = (
        torch.tensor(v, dtype=torch.float64).expand(2, 3, 2) for v in (CODES, [[0.2, 0.1], [0, 0.3], [0.4, 0.4]])
    )
    assert swapped_loss(codes, scores, 0.1).item() == pytest.approx(0.930466, abs=1e-6)


def test_loss_of_equal_scores_is_the_logarithm_of_the_prototypes():
    codes = sinkhorn(double(2, 6, 7), 0.5, 3)
    assert swapped_loss(codes, torch.zeros(5, 6, 7, dtype=torch.float64), 0.1).item() == pytest.approx(math.log(7))


def slow_loss(codes: Tensor, scores: Tensor, temperature: float) -> Tensor:
    each = []
    for i in range(len(codes)):
        for v in range(len(scores)):
            if v != i:
                p = torch.softmax(scores[v] / temperature, 1)
                each.append(-(codes[i] * p.log()).sum(1).mean())
    return torch.stack(each).mean()


@pytest.mark.parametrize("crops", [2, 3, 8])
def test_loss_and_its_gradient_are_those_of_a_slow_reference(crops):
    codes, scores = sinkhorn(double(2, 6, 5), 0.5, 3), double(crops, 6, 5).requires_grad_()
    found, expected = swapped_loss(codes, scores, 0.4), slow_loss(codes, scores, 0.4)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, scores), torch.autograd.grad(expected, scores))


def test_a_code_is_not_compared_with_its_own_crop():
    """The second code is nothing, and the first meets the second crop alone: the first crop has no gradient."""
    codes, scores = torch.zeros(2, 4, 3), torch.randn(2, 4, 3).requires_grad_()
    codes[0] = 1 / 3
    (gradient,) = torch.autograd.grad(swapped_loss(codes, scores, 0.1), scores)
    assert not gradient[0].any() and gradient[1].any()


def test_heads_are_the_authors():
    task = SwAV(nn.Identity(), SwAV.Config(prototypes=3000), Setting(10_000, 224, 2048, 256, 0))
    assert [type(m) for m in task.head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [(m.in_features, m.out_features) for m in task.head[::3]] == [(2048, 2048), (2048, 128)]
    assert task.prototypes.bias is None and task.prototypes.weight.shape == (3000, 128)
    assert [v.size for v in task.crops] == [224] * 2 + [96] * 6
    assert [v.scale for v in task.crops] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6


@pytest.mark.parametrize("size, side", [(32, 32), (64, 32), (128, 48), (160, 64), (224, 96), (512, 224)])
def test_side_of_small_crops(size, side):
    assert local_side(size) == side


def test_cost_counts_every_crop():
    assert SwAV.cost(SwAV.Config(), 224) == pytest.approx(2 + 6 * (96 / 224) ** 2)
    assert SwAV.cost(SwAV.Config(local=0), 224) == 2


def test_crops_of_one_size_pass_the_backbone_together_and_all_of_them_the_head(store, settings, monkeypatch):
    monkeypatch.setattr("dermsearch.pretext.swav.local_side", lambda size: 16)
    settings(local=3)
    run, task = started(store)
    seen: list[tuple[int, ...]] = []
    for part in (task.backbone, task.head):
        part.register_forward_pre_hook(lambda module, x: seen.append(tuple(x[0].shape)))
    run.backward()
    assert seen == [(32, 3, 32, 32), (48, 3, 16, 16), (80, run.encoders.dim)]


def test_without_small_crops(store, settings):
    settings(local=0)
    run, _ = started(store)
    assert math.isfinite(run.step())


def test_a_step_is_the_loss_of_its_scores(store):
    """From the images to the loss by hand; the code of a crop is taken from the crop of that view."""
    run, task = started(store)
    (batch,) = run.batches().values()
    task.before_step(0)
    crops = batch.views(task.crops, "crop")
    features = [task.backbone(torch.cat(crops[:2])), task.backbone(torch.cat(crops[2:]))]
    z = nn.functional.normalize(task.head(torch.cat(features)), dim=1)
    scores = (z @ task.prototypes.weight.T).reshape(4, tiny.BATCH, 8)
    codes = torch.stack([slow_codes(scores[i].double(), 0.05, 3) for i in (0, 1)])
    found = task.loss(batch)
    assert found.value.item() == pytest.approx(slow_loss(codes, scores.double(), 0.1).item(), rel=1e-4)
    torch.testing.assert_close(found.embedding, features[0][: tiny.BATCH])
    agreement = (codes[0].argmax(1) == codes[1].argmax(1)).double().mean()
    assert found.parts["agreement"].item() == pytest.approx(agreement.item())


def test_no_gradient_passes_through_codes(store, monkeypatch):
    """The gradient is that of the loss with the same codes held fixed."""
    run, task = started(store)
    codes = task.codes
    run.backward()
    whole = {n: p.grad.clone() for n, p in task.named_parameters()}
    found, used = codes(0)
    assert not found.requires_grad
    monkeypatch.setattr(task, "codes", lambda step: (found.clone(), used))
    run.backward()
    for n, p in task.named_parameters():
        torch.testing.assert_close(p.grad, whole[n])


def test_prototypes_are_unit_vectors_in_every_forward_pass(store):
    run, task = started(store, lr=1.0, optimizer="sgd")
    for _ in range(3):
        run.backward()
        torch.testing.assert_close(task.prototypes.weight.norm(dim=1), torch.ones(8))
        run.finish()
        assert (task.prototypes.weight.norm(dim=1) - 1).abs().max() > 1e-3  # the step left the sphere


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_prototypes_are_frozen_in_the_first_epochs(store, settings, optimizer):
    settings(frozen_epochs=2)
    run, task = started(store, epochs=3, optimizer=optimizer, lr=0.1)
    assert task.setting.steps == 9
    task.before_step(0)
    start, head = task.prototypes.weight.clone(), task.head[0].weight.clone()
    for _ in range(6):
        run.step()
        assert task.prototypes.weight.grad is None
    torch.testing.assert_close(task.prototypes.weight.data, start, atol=1e-6, rtol=0)
    assert not torch.equal(task.head[0].weight, head)
    run.step()
    assert (task.prototypes.weight - start).abs().max() > 1e-4


def test_queue_keeps_the_newest_embeddings_of_each_view(store):
    run, task = started(store)
    seen = []
    for _ in range(3):
        before = task.queue.clone()
        run.backward()
        assert torch.equal(task.queue, before)  # a step is measured against what came before it
        seen.insert(0, task.new.clone())
        run.finish()
    task.new = 2 * seen[0]
    task.after_micro(run.batches()["shared"])
    seen.insert(0, 2 * seen[0])
    assert task.queue.shape == (2, 24, 16)
    assert torch.equal(task.queue, torch.cat(seen, 1)[:, :24])
    assert not torch.equal(seen[0][0], seen[0][1])
    torch.testing.assert_close(task.queue[:, 16:].norm(dim=2), torch.ones(2, 8))


def rows_dealt(task: SwAV, monkeypatch) -> list[int]:
    """How many images Sinkhorn sees, step by step."""
    rows: list[int] = []
    monkeypatch.setattr("dermsearch.pretext.swav.sinkhorn", lambda s, *a: (rows.append(s.shape[1]), sinkhorn(s, *a))[1])
    return rows


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({}, [16, 16, 40, 40, 40, 40]),  # full after two steps of 16 images
        ({"queue_from": 0.6}, [16, 16, 16, 16, 40, 40]),  # of 6 steps
        ({"queue": 0}, [16] * 6),
        ({"queue": 16}, [16, 32, 32, 32, 32, 32]),
    ],
)
def test_queue_is_used_once_it_is_full_and_its_time_has_come(store, settings, monkeypatch, changed, expected):
    settings(**changed)
    run, task = started(store)
    rows = rows_dealt(task, monkeypatch)
    for _ in range(6):
        run.step()
    assert rows == expected


def test_queue_stands_beside_the_batch_while_codes_are_made_and_is_dropped_after(store):
    run, task = started(store)
    run.step()
    run.step()
    run.backward()
    rows = torch.cat([task.new, task.queue], 1)
    expected = [slow_codes((rows[i] @ task.prototypes.weight.T).double(), 0.05, 3)[: tiny.BATCH] for i in (0, 1)]
    codes, _ = task.codes(2)
    torch.testing.assert_close(codes.double(), torch.stack(expected), atol=1e-4, rtol=0)
    alone, _ = task.codes(0)
    assert (alone - codes).abs().max() > 1e-3


def test_used_tells_how_many_prototypes_images_are_near(store):
    _, task = started(store)
    task.prototypes.weight.data = torch.eye(8, 16)
    task.new = torch.eye(8, 16).repeat(2, 2, 1)
    assert task.codes(0)[1].item() == pytest.approx(1, abs=0.01)
    task.new = torch.eye(8, 16)[:2].repeat(2, 8, 1)
    assert task.codes(0)[1].item() == pytest.approx(2 / 8, abs=0.01)


def codes_of_process(folder: str) -> dict[str, Tensor]:
    """Codes of three steps, the last with a queue, and the queue, as this process has them."""
    torch.set_num_threads(1)
    run = tiny.Steps("swav", CaseStore(folder))
    across_processes(run.learner)
    (task,) = run.learner.each()
    found = {}
    for step in range(3):  # the weights stay: what may differ is who embeds which image
        run.backward()
        found[f"codes {step}"], found[f"used {step}"] = (x.clone() for x in task.codes(step))
        batches = run.batches()
        task.after_step(batches["shared"])
        run.at += 1
    return {**found, "queue": task.queue, "processes": torch.tensor(world.size())}


@pytest.mark.slow
def test_codes_and_queue_are_the_same_on_any_number_of_processes(store, two: Group, four: Group):
    one = codes_of_process(str(store.folder))
    for group in (two, four):
        first, *others = group(codes_of_process, str(store.folder))
        assert int(first.pop("processes")) == group.size
        for name, x in first.items():
            assert all(torch.equal(x, other[name]) for other in others), name
            torch.testing.assert_close(x, one[name], atol=1e-3, rtol=1e-3)
        assert first["codes 0"].shape == (2, tiny.BATCH, 8)


def test_default_queue_brings_two_images_to_every_prototype():
    config = SwAV.Config()
    assert config.prototypes == 256 and config.queue is None
    assert [queued(config, b) for b in (64, 100, 128, 256, 512, 4096)] == [448, 500, 384, 256, 0, 0]
    assert queued(SwAV.Config(queue=7), 64) == 7


def test_check_accepts():
    SwAV.check(SwAV.Config(prototypes=50, queue=40), SETTING)
    SwAV.check(SwAV.Config(prototypes=10, queue=0), SETTING)
    SwAV.check(SwAV.Config(), SETTING)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"prototypes": 51, "queue": 40}, r"^prototypes: must be at most batch and queue together, 10 \+ 40, not 51$"),
        ({"prototypes": 11, "queue": 0}, r"^prototypes: must be .* 10 \+ 0, not 11$"),
        ({"queue": 1000}, r"^queue: must be below 1000, what 100 steps put into it, not 1000$"),
        ({"prototypes": 506}, r"^queue: must be below 1000, .* not 1010; lower prototypes$"),
    ],
)
def test_check_refuses(config, message):
    with pytest.raises(UserError, match=message):
        SwAV.check(SwAV.Config(**config), SETTING)


def test_embeddings_and_loss_keep_their_precision_where_networks_run_in_bfloat16(store):
    run, task = started(store)
    (batch,) = run.batches().values()
    task.before_step(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = task.loss(batch)
    assert found.embedding.dtype == torch.bfloat16 and found.value.dtype == task.new.dtype == torch.float32
    torch.testing.assert_close(task.new.norm(dim=2), torch.ones(2, tiny.BATCH))
