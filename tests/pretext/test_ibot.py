"""iBOT: its two losses, what is hidden from whom, and its second centre."""

import math

import pytest
import torch
from pretext import tiny
from torch import Tensor, nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.encoders import backbone
from dermsearch.pretext.base import Setting
from dermsearch.pretext.ibot import IBOT, patch_loss

SETTING = Setting(units=100, size=32, dim=0, batch=10, seed=0, encoder="vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture
def settings(monkeypatch):
    """Change the task's settings in the small store: settings(local=0)."""
    return lambda **changed: monkeypatch.setitem(tiny.TASKS, "ibot", {**tiny.TASKS["ibot"], **changed})


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def cross_entropy(aims: Tensor, guesses: Tensor) -> Tensor:
    """Of logits, row by row."""
    return -(aims.softmax(-1) * guesses.log_softmax(-1)).sum(-1)


def test_uniform_patches_cost_the_logarithm():
    hidden = torch.zeros(3, 2, 2, dtype=torch.bool)
    hidden[:, 0] = True
    same = torch.zeros(6, 8192, dtype=torch.float64)
    assert patch_loss(same, same, hidden.numpy()).item() == pytest.approx(9.010913, abs=1e-5)


def test_nothing_hidden_costs_nothing():
    aims, guesses = torch.zeros(0, 5), torch.zeros(0, 5, requires_grad=True)
    loss = patch_loss(aims, guesses, torch.zeros(3, 2, 2, dtype=torch.bool).numpy())
    loss.backward()
    assert loss.item() == 0 and guesses.grad is not None


def test_everything_hidden_is_the_plain_mean():
    aims, guesses = random(12, 5), random(12, 5) + 1
    loss = patch_loss(aims, guesses, torch.ones(3, 2, 2, dtype=torch.bool).numpy())
    assert loss.item() == pytest.approx(cross_entropy(aims, guesses).mean().item(), abs=1e-9)


def test_a_crop_counts_as_one_however_much_of_it_is_hidden():
    hidden = torch.zeros(4, 3, 3, dtype=torch.bool)  # nothing in the third
    hidden[0, 0, 1] = hidden[1, :2] = hidden[3, 2] = True
    aims, guesses = random(10, 5), random(10, 6)[:, :5]
    each = cross_entropy(aims, guesses).tolist()
    expected = (each[0] + sum(each[1:7]) / 6 + 0 + sum(each[7:]) / 3) / 4
    assert patch_loss(aims, guesses, hidden.numpy()).item() == pytest.approx(expected, abs=1e-9)


def in_double(run: tiny.Steps) -> IBOT:
    """The run's task in double precision, whatever images it is shown."""
    (task,) = run.learner.each()
    task.double()
    for network in (task.backbone, task.teacher.parts[0]):
        network.patch_embed.register_forward_pre_hook(lambda _, images: images[0].double())
    return task


def answers(network: nn.Module, head: nn.Module, images: Tensor, hidden: Tensor, stand_in: Tensor) -> Tensor:
    """(n, 1 + patches, out), one image after another, by timm's parts."""
    rows = []
    for image, mask in zip(images, hidden, strict=True):
        x = network.patch_embed(image[None])
        for i, j in mask.nonzero().tolist():
            x[0, i, j] = stand_in
        rows.append(head(network.norm(network.blocks(network._pos_embed(x))))[0])
    return torch.stack(rows)


def test_loss_is_that_of_a_plain_loop(store, settings):
    """Different crops for the image's token, the same crop for hidden patches; the teacher sees everything."""
    settings(depth_dropout=0.0, masked=0.8, image_weight=2.0, patch_weight=3.0, teacher_start=0.05)
    run = tiny.Steps("ibot", store, epochs=2)
    for _ in range(2):  # so that centres, teacher and mask token are not what they were
        run.step()
    task = in_double(run)
    (batch,) = run.batches().values()
    student, (teacher, teachers_head) = task.backbone, task.teacher.parts
    large = batch.views(task.large, "large")
    masks = [torch.from_numpy(batch.masks(task.blocks, f"hidden/{i}")) for i in range(2)]
    assert masks[0].any() and masks[1].any() and not torch.equal(*masks)
    small, nothing = batch.views(task.small, "small"), torch.zeros_like(masks[0])
    token = task.mask_token.detach()
    assert token.any()
    with torch.no_grad():
        aims = [answers(teacher, teachers_head, x, nothing, token) for x in large]
        guesses = [answers(student, task.head, x, m, token) for x, m in zip(large, masks, strict=True)]
        guesses += [answers(student, task.head, x, nothing, token) for x in small]
    # Warm-up over 0.3 of 6 steps, of which this is the third: it is over.
    centre, patch_centre = task.centre.value.clone(), task.patch_centre.value.clone()
    assert centre.any() and patch_centre.any() and not torch.allclose(centre, patch_centre)
    image = torch.stack(
        [
            cross_entropy((aim[:, 0] - centre) / 0.04, guess[:, 0] / 0.1).mean()
            for a, aim in enumerate(aims)
            for g, guess in enumerate(guesses)
            if a != g
        ]
    ).mean()
    patch = []
    for aim, guess, mask in zip(aims, guesses, masks, strict=False):
        for i in range(tiny.BATCH):
            each = cross_entropy((aim[i, 1:] - patch_centre) / 0.07, guess[i, 1:] / 0.1)
            patch.append(sum(each[mask[i].flatten()].tolist()) / max(1, int(mask[i].sum())))
    found = run.backward()
    assert found.item() == pytest.approx(2 * image.item() + 3 * sum(patch) / len(patch), abs=1e-6)
    mean = torch.cat(aims)[:, 1:].mean((0, 1))
    torch.testing.assert_close(task.patch_centre.value, 0.9 * patch_centre + 0.1 * mean, atol=1e-9, rtol=0)
    mean = torch.cat(aims)[:, 0].mean(0)
    torch.testing.assert_close(task.centre.value, 0.9 * centre + 0.1 * mean, atol=1e-9, rtol=0)


@pytest.mark.parametrize("step, expected", [(0, 0.04), (1, 0.055), (2, 0.07), (5, 0.07)])
def test_the_patches_temperature_climbs(step, expected, store, settings, monkeypatch):
    settings(teacher_warmup=0.34)  # two steps of six
    run = tiny.Steps("ibot", store, epochs=2)
    run.at, seen = step, []
    monkeypatch.setattr("dermsearch.pretext.ibot.ramp", lambda *given: seen.append(given) or 0.07)
    run.backward()
    (at, steps, start, end) = seen[0]
    found = end if at >= steps else start + (end - start) * at / steps
    assert found == pytest.approx(expected, abs=1e-3)


def test_without_masks_it_is_dino(store, settings):
    settings(masked=0.0)
    run = tiny.Steps("ibot", store)
    both = float(run.backward())
    assert not run.learner.tasks["shared"].mask_token.grad.any()
    settings(masked=0.0, patch_weight=0.0)
    assert float(tiny.Steps("ibot", store).backward()) == both


def test_the_mask_token_learns_and_is_not_handed_on(store):
    run = tiny.Steps("ibot", store)
    task = run.learner.tasks["shared"]
    assert not task.mask_token.any()
    run.step()
    assert task.mask_token.any()
    assert set(task.handed_on().state_dict()) == set(backbone("test_vit").state_dict())


def test_one_head_for_the_images_token_and_the_patches(store, settings):
    """Its directions have a gradient from either loss alone."""
    for image, patch in ((0.0, 1.0), (1.0, 0.0)):
        settings(image_weight=image, patch_weight=patch)
        run = tiny.Steps("ibot", store)
        run.backward()
        assert run.learner.tasks["shared"].head.last.weight.grad.any()


@pytest.mark.parametrize("encoder", ["resnet18", "swin_tiny_patch4_window7_224", "test_vit2"])
def test_other_encoders_are_refused(encoder):
    setting = Setting(units=100, size=32, dim=0, batch=10, seed=0, encoder=encoder)
    with pytest.raises(UserError, match=f"encoder.name: must be a vision transformer .*, not {encoder}"):
        IBOT.check(IBOT.Config(), setting)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"hidden_low": 0.6}, "hidden_low: must be at most hidden_high, 0.5, not 0.6"),
        ({"image_weight": 0.0, "patch_weight": 0.0}, "image_weight: must be above 0"),
    ],
)
def test_impossible_settings_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        IBOT.check(IBOT.Config(**config), SETTING)


def test_check_accepts():
    IBOT.check(IBOT.Config(), SETTING)
    assert IBOT.cost(IBOT.Config(), 224) == pytest.approx(2 + 2 / 3 + 10 * (96 / 224) ** 2)
    assert math.log(IBOT.Config().out) == pytest.approx(9.010913, abs=1e-6)
