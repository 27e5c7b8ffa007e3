"""DINO: its loss, its centre, its temperatures, its teacher, and who sees which crops."""

import copy
import math

import pytest
import torch
from pretext import tiny
from torch import Tensor, nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.models.encoders import Encoders
from dermsearch.models.vit import BranchEnd
from dermsearch.pretext.base import Setting
from dermsearch.pretext.dino import DINO, Head, apart, by_image, ramp, watch

SMALL = {"hidden": 8, "bottleneck": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def settings(monkeypatch):
    """Change the task's settings in the small store: settings(local=0)."""
    return lambda **changed: monkeypatch.setitem(tiny.TASKS, "dino", {**tiny.TASKS["dino"], **changed})


def task(out: int, epochs: int = 1, steps: int = 1, **config) -> DINO:
    setting = Setting(units=100, size=32, dim=4, batch=2, seed=0, epochs=epochs, steps=steps)
    return DINO(nn.Linear(4, 4), DINO.Config(out=out, **{**SMALL, **config}), setting).double()


def compare(one: DINO, aims: list[Tensor], guesses: list[Tensor], step: int = 0) -> Tensor:
    return one.compare(aims, guesses, torch.zeros(2 * len(aims[0]), 4), step).value


def double(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("out", [4096, 65536])
def test_uniform_answers_cost_the_logarithm(out):
    same = torch.full((2, out), 0.3, dtype=torch.float64)
    assert compare(task(out), [same, same], [same] * 4).item() == pytest.approx(math.log(out), abs=1e-5)


@pytest.mark.parametrize(
    "aim, guess, expected", [((1.0, 0.0), (0.3, 0.1), 0.126928), ((0.0, 0.2), (0.1, 0.3), 0.128034)]
)
def test_cross_entropy(aim, guess, expected):
    one = task(2)
    one.centre.value[:] = double((0.1, 0.0))[0]
    # Of the student's two large crops each is compared with the teacher's other one.
    assert compare(one, [double(aim)] * 2, [double(guess)] * 2).item() == pytest.approx(expected, abs=1e-5)


def test_the_centre_moves_after_it_was_used():
    one = task(2)
    one.centre.value[:] = double((0.1, 0.0))[0]
    aims, guesses = double((1.0, 0.0), (0.0, 0.2)), double((0.3, 0.1), (0.1, 0.3))
    assert compare(one, [aims] * 2, [guesses] * 2).item() == pytest.approx((0.126928 + 0.128034) / 2, abs=1e-5)
    torch.testing.assert_close(one.centre.value, double((0.14, 0.01))[0], atol=1e-12, rtol=0)
    assert compare(one, [aims] * 2, [guesses] * 2).item() != pytest.approx((0.126928 + 0.128034) / 2, abs=1e-5)


def slow(aims: list[Tensor], guesses: list[Tensor], centre: Tensor, temperature: float) -> float:
    """Pair by pair, image by image, unit by unit."""
    found = []
    for a, aim in enumerate(aims):
        for g, guess in enumerate(guesses):
            if a == g:  # the same crop
                continue
            for t, s in zip(aim.tolist(), guess.tolist(), strict=True):
                top = [math.exp((x - c) / temperature) for x, c in zip(t, centre.tolist(), strict=True)]
                low = [math.exp(x / 0.1) for x in s]
                found.append(-sum(x / sum(top) * math.log(y / sum(low)) for x, y in zip(top, low, strict=True)))
    return sum(found) / len(found)


@pytest.mark.parametrize("local", [0, 1, 3])
def test_loss_is_that_of_a_plain_loop(local):
    one = task(6, steps=10, teacher_start=0.04, teacher_temperature=0.07, teacher_warmup=0.5)
    one.centre.value[:] = random(6) / 10
    views = random(4 + local, 5, 6) / 5
    aims, guesses = list(views[:2]), list(views[2:])
    for step, temperature in ((0, 0.04), (1, 0.046), (5, 0.07), (9, 0.07)):
        expected = slow(aims, guesses, one.centre.value.clone(), temperature)
        assert compare(one, aims, guesses, step).item() == pytest.approx(expected, abs=1e-6)


def test_temperature():
    assert [ramp(step, 4, 0.04, 0.08) for step in (0, 1, 4, 9)] == pytest.approx([0.04, 0.05, 0.08, 0.08])
    assert ramp(0, 0, 0.04, 0.07) == 0.07


def test_loss_keeps_its_precision_under_autocast():
    one, views = task(6).float(), (random(6, 5, 6) / 5).float()
    expected = compare(one, list(views[:2]), list(views[2:]))
    one.centre.value.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compare(one, list(views[:2]), list(views[2:])), expected)
        assert one.head(torch.randn(3, 4)).dtype == torch.float32


def test_signs_of_collapse():
    shown = lambda logits: {n: round(float(v), 4) for n, v in watch(logits, 0.04).items()}  # noqa: E731
    assert shown(torch.zeros(2, 8, 8)) == {"entropy": 1, "spread": 1}  # everything everywhere
    assert shown(torch.eye(8)[0].expand(2, 8, 8)) == {"entropy": 0, "spread": 0}  # everything in one place
    assert shown(torch.eye(8).expand(2, 8, 8)) == {"entropy": 0, "spread": 1}  # as it should be


def test_head():
    torch.manual_seed(0)
    head = Head(16, 32, 8, 64)
    x = torch.randn(10, 16)
    y = head(x)
    torch.testing.assert_close(
        y, torch.cosine_similarity(head.layers(x)[:, None], head.last.weight[None], dim=2), atol=1e-5, rtol=1e-5
    )
    with torch.no_grad():
        head.last.weight *= 5  # the gain is 1, whatever the weights
    torch.testing.assert_close(head(x), y)
    torch.testing.assert_close(copy.deepcopy(head)(x), y)
    assert head.layers[0].weight.std().item() == pytest.approx(0.02, rel=0.1) and not head.layers[0].bias.any()
    assert [type(m) for m in head.layers] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]


def test_rows_image_by_image_and_back():
    views = [torch.arange(3) + 10 * i for i in range(2)]
    assert by_image(views).tolist() == [0, 10, 1, 11, 2, 12]
    assert all(torch.equal(a, b) for a, b in zip(apart(by_image(views), 2), views, strict=True))


def test_the_teacher_sees_large_crops_alone(store):
    run = tiny.Steps("dino", store)
    one, seen = run.learner.tasks["shared"], {"student": [], "teacher": []}
    for who, network in (("student", one.backbone), ("teacher", one.teacher.parts[0])):
        network.register_forward_pre_hook(lambda _, images, who=who: seen[who].append(images[0]))
    run.backward()
    (large,) = seen["teacher"]
    assert len(large) == 2 * tiny.BATCH and torch.equal(seen["student"][0], large)
    assert [len(images) for images in seen["student"]] == [2 * tiny.BATCH, 2 * tiny.BATCH]  # two small ones, too
    assert not torch.equal(large[::2], large[1::2]) and not torch.equal(seen["student"][1], large)
    assert torch.equal(run.losses["shared"].embedding.std(0) > 0, torch.ones(run.encoders.dim, dtype=torch.bool))


def test_without_small_crops(store, settings):
    settings(local=0)
    assert tiny.Steps("dino", store).step() > 0


@pytest.mark.parametrize("size, side", [(224, 96), (128, 48), (64, 32), (32, 32)])
def test_small_crops(size, side):
    one = DINO(nn.Linear(4, 4), DINO.Config(out=4, **SMALL), Setting(100, size, 4, 2, 0))
    assert [v.size for v in one.large] == [size] * 2 and [v.size for v in one.small] == [side] * 8
    assert one.large[0].scale == (0.4, 1.0) and one.small[0].scale == (0.05, 0.4)
    assert DINO.cost(one.config, size) == pytest.approx(2 + 2 / 3 + 8 * (side / size) ** 2)


def test_the_teacher_starts_as_the_student_and_follows_after_the_optimiser(store, settings):
    settings(momentum_encoder=0.6)
    run = tiny.Steps("dino", store, epochs=2)  # of three steps each
    one = run.learner.tasks["shared"]
    assert tiny.same(one.teacher.parts[0], one.backbone) and tiny.same(one.teacher.parts[1], one.head)
    for momentum in (0.6, 1 - 0.4 * (math.cos(math.pi / 6) + 1) / 2, 1 - 0.4 * (math.cos(math.pi / 3) + 1) / 2):
        old = [p.clone() for p in one.teacher.parameters()]
        run.backward()
        assert all(torch.equal(a, b) for a, b in zip(old, one.teacher.parameters(), strict=True))
        run.finish()
        new = [*one.backbone.parameters(), *one.head.parameters()]
        for teacher, was, p in zip(one.teacher.parameters(), old, new, strict=True):
            torch.testing.assert_close(teacher, momentum * was + (1 - momentum) * p, atol=1e-6, rtol=1e-5)
    assert not tiny.same(one.teacher.parts[0], one.backbone)


def test_the_teachers_batchnorm_has_the_statistics_of_its_own_passes(store):
    run = tiny.Steps("dino", store)
    run.step()
    one = run.learner.tasks["shared"]
    alone = copy.deepcopy(one.teacher.parts[0])
    (batch,) = run.batches().values()
    alone(by_image(batch.views(one.large, "large")))
    run.backward()
    found = dict(one.teacher.parts[0].named_buffers())
    assert found and all(torch.equal(found[n], b) for n, b in alone.named_buffers())
    assert not torch.equal(found["bn1.running_mean"], one.backbone.bn1.running_mean)


def test_the_teacher_is_handed_on(store, settings):
    settings(momentum_encoder=1.0)  # a teacher that never moves is the network that the stage began with
    made, _ = tiny.train("dino", store)
    start = tiny.encoders("dino")
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), start.parameters(), strict=True))
    assert not tiny.same(made, start)  # but its BatchNorm has seen the images
    run = tiny.Steps("dino", store)
    run.step()
    one = run.learner.tasks["shared"]
    assert one.handed_on() is one.teacher.parts[0]


@pytest.mark.parametrize("epochs, frozen, expected", [(3, 1, 3), (3, 0, 0), (3, 2, 6), (3, 9, 6), (1, 1, 0)])
def test_the_last_layer_is_frozen_at_first(epochs, frozen, expected):
    """For so many steps of three an epoch; the last epoch is never frozen."""
    one = task(4, epochs, 3 * epochs, frozen_epochs=frozen)
    steps = 0
    for step in range(3 * epochs):
        one.head(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
        one.after_backward(step)
        steps += one.head.last.weight.grad is None
        assert one.head.layers[0].weight.grad is not None
    assert steps == expected


def test_a_frozen_layer_stays_while_the_rest_learns(store, settings):
    settings(frozen_epochs=1)
    run = tiny.Steps("dino", store, epochs=2)
    head = run.learner.tasks["shared"].head
    was = copy.deepcopy(head)
    for _ in range(3):
        run.step()
    assert torch.equal(head.last.weight, was.last.weight)
    assert not torch.equal(head.layers[0].weight, was.layers[0].weight)
    run.step()
    assert not torch.equal(head.last.weight, was.last.weight)


def test_a_transformer_learns_with_stochastic_depth_and_teaches_without(store, settings):
    losses = []
    for chance in (0.0, 0.5):
        settings(depth_dropout=chance)
        run = tiny.Steps("dino", store, Encoders.random("test_vit", ("derm",), "shared", 3))
        one = run.learner.tasks["shared"]
        assert not any(isinstance(m, BranchEnd) for m in one.teacher.modules())
        assert sum(isinstance(m, BranchEnd) for m in one.backbone.modules()) == 12
        losses.append(float(run.backward()))
        shown = run.losses["shared"].embedding
        run.backward()
        assert torch.equal(run.losses["shared"].embedding, shown)  # the teacher's
        run.finish()
        assert float(run.backward()) != losses[-1]
    assert losses[0] != losses[1]
