"""ColorMe: what the backbone sees, what is painted, and the histogram of colours."""

import math
from dataclasses import replace

import pytest
import torch
from pretext import tiny
from torch import nn

from dermsearch.data.domain import SKIN
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.decoder import Decoder, map_sizes
from dermsearch.models.encoders import backbone
from dermsearch.pretext.base import Setting
from dermsearch.pretext.colorme import ColorMe, colour_divergence, histogram, painting_error

SETTING = Setting(units=100, size=32, dim=0, batch=10, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def constant(*colour: float) -> torch.Tensor:
    """One 8 x 8 picture of one colour."""
    return torch.tensor(colour, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 8, 8)


@pytest.mark.parametrize("green", [0.0, 0.5, 1.0])
def test_histogram_and_divergence_of_constant_colours(green):
    truth = histogram(constant(0.1, green, 0.9))
    assert truth.tolist() == [[0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]]
    uniform = torch.zeros(1, 10, dtype=torch.float64)
    assert colour_divergence(uniform, truth).item() == pytest.approx(1.609438, abs=1e-5)


def test_painting_that_is_off_by_a_tenth():
    """10 x 2/3 x 0.01: green is right, and counts."""
    image = constant(0.4, 0.7, 0.6)
    assert 10 * painting_error(image[:, [0, 2]] + 0.1, image).item() == pytest.approx(0.066667, abs=1e-5)
    whole = torch.stack([image[:, 0] + 0.1, image[:, 1], image[:, 2] - 0.1], 1)
    painted = whole[:, [0, 2]]
    torch.testing.assert_close(painting_error(painted, image), nn.functional.mse_loss(whole, image))


def test_one_falls_into_the_last_bin_and_edges_into_the_bin_they_open():
    assert histogram(constant(1.0, 0.0, 0.0)).tolist() == [[0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0]]
    for name, (mean, std) in SKIN.statistics.items():
        mean, std = (torch.tensor(s).view(3, 1, 1) for s in (mean, std))
        for level in range(256):  # as a task gets them: normalised, and brought back with the rounding of that
            image = torch.full((1, 3, 2, 2), level / 255)
            image = ((image - mean) / std * std + mean).clamp(0, 1)
            expected = [0.0] * 10
            expected[min(level // 51, 4)] = expected[5 + min(level // 51, 4)] = 0.5
            assert histogram(image)[0].tolist() == expected, (name, level)


def test_histogram_counts_pixel_by_pixel():
    torch.manual_seed(0)
    image = torch.rand(3, 3, 5, 5, dtype=torch.float64)
    for dark in (0.0, 0.6):
        plain = torch.zeros(3, 10, dtype=torch.float64)
        for i in range(3):
            seen = [p for p in image[i].flatten(1).T.tolist() if max(p) >= dark]
            assert (len(seen) == 25) == (dark == 0)
            for red, _, blue in seen:
                plain[i, int(5 * red)] += 0.5 / len(seen)
                plain[i, 5 + int(5 * blue)] += 0.5 / len(seen)
        torch.testing.assert_close(histogram(image, dark), plain)
        torch.testing.assert_close(plain[:, :5].sum(1), torch.full((3,), 0.5, dtype=torch.float64))


def test_a_black_border_rules_the_histogram_unless_it_is_left_out():
    image = torch.zeros(1, 3, 10, 10)
    image[:, :, :3, :3] = 0.7
    assert histogram(image)[0, 0] > 0.45
    assert histogram(image, 0.1)[0].tolist() == [0, 0, 0, 0.5, 0, 0, 0, 0, 0.5, 0]
    black = histogram(torch.zeros(1, 3, 10, 10), 0.1)
    assert black.sum() == 0 and colour_divergence(torch.randn(1, 10), black) == 0


def test_divergence_is_a_mean_over_images_and_bears_certainty():
    torch.manual_seed(0)
    logits, truth = torch.randn(4, 10, dtype=torch.float64), histogram(torch.rand(4, 3, 6, 6, dtype=torch.float64))
    p = logits.softmax(1)
    plain = sum(
        float(t) * math.log(float(t) / float(p[i, k])) for i in range(4) for k, t in enumerate(truth[i]) if t > 0
    )
    assert colour_divergence(logits, truth).item() == pytest.approx(plain / 4, abs=1e-9)
    twice = colour_divergence(logits.repeat(2, 1), truth.repeat(2, 1))
    assert twice.item() == pytest.approx(plain / 4, abs=1e-9)
    certain = torch.zeros(1, 10).index_fill_(1, torch.tensor(3), 1000.0).requires_grad_()
    value = colour_divergence(certain, histogram(constant(0.1, 0.0, 0.9)))  # its softmax is zero where the truth is not
    value.backward()
    assert value.isfinite() and certain.grad.isfinite().all()


class Watched:
    """One loss of the task on the tiny store, with what its parts saw and said."""

    def __init__(self, store: CaseStore, change=lambda pictures: pictures, **config) -> None:
        task = tiny.Steps("colorme", store).learner.tasks["shared"]
        task.config = ColorMe.Config(**config)
        (batch,) = tiny.Steps("colorme", store).batches().values()
        batch.__dict__["pictures"] = change(batch.pictures)
        seen = {}

        def keep(name):
            def hook(module, args, out) -> None:
                seen[name] = (args[0], out)

            return hook

        for name, module in (("conv1", task.backbone.conv1), ("decoder", task.decoder), ("head", task.head)):
            module.register_forward_hook(keep(name))
        self.task, self.batch, self.found = task, batch, task.loss(batch)
        self.input, self.painted = seen["conv1"][0], seen["decoder"][1]
        self.features, self.logits = seen["head"]


def test_loss_is_the_two_terms_of_the_picture_as_it_is(store):
    w = Watched(store, painting=3.0, colours=0.5)
    view = w.batch.view(w.task.view, "view")
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in SKIN.statistics["imagenet"])
    image = (view * std + mean).clamp(0, 1)
    assert image.max() > 0.8 and image.min() < 0.2
    whole = torch.stack([w.painted[:, 0], image[:, 1], w.painted[:, 1]], 1)
    error = (whole - image).square().sum() / image.numel()
    truth = histogram(image)
    divergence = (torch.xlogy(truth, truth) - truth * w.logits.softmax(1).log()).sum() / len(image)
    torch.testing.assert_close(w.found.value, 3.0 * error + 0.5 * divergence)
    assert torch.equal(w.found.embedding, w.features)  # what the histogram is told from is what is watched
    assert w.painted.shape == (tiny.BATCH, 2, tiny.SIZE, tiny.SIZE)


def test_backbone_sees_green_alone(store):
    """Three times over, normalised channel by channel as any grey picture is."""

    def other(channels):
        def change(pictures):
            pixels = pictures.pixels.clone()
            pixels[:, channels] = 255 - pixels[:, channels]
            return replace(pictures, pixels=pixels)

        return change

    plain, red_and_blue, green = (Watched(store, change) for change in (lambda p: p, other([0, 2]), other([1])))
    assert torch.equal(plain.input, red_and_blue.input) and not torch.equal(plain.input, green.input)
    assert plain.found.value != red_and_blue.found.value  # they are what is asked for
    mean, std = (torch.tensor(s).view(3, 1, 1) for s in SKIN.statistics["imagenet"])
    grey = plain.input * std + mean
    torch.testing.assert_close(grey, grey[:, 1:2].expand_as(grey))
    torch.testing.assert_close(plain.input[:, 1], plain.batch.view(plain.task.view, "view")[:, 1])


def test_statistics_are_those_of_the_pictures(store):
    """The picture that is painted does not depend on how it was normalised; nor, then, does its histogram."""
    mean, std = SKIN.statistics["derm7pt"]
    one, two = Watched(store), Watched(store, lambda p: replace(p, mean=mean, std=std))
    green = [w.input[:, 1] * s + m for w, s, m in ((one, 0.224, 0.456), (two, std[1], mean[1]))]
    torch.testing.assert_close(*green, atol=1e-5, rtol=0)
    assert not torch.allclose(one.input, two.input)


def test_features_are_those_that_the_backbone_hands_on(store):
    w = Watched(store)
    torch.testing.assert_close(w.task.backbone(w.input), w.features)


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_decoder_paints_from_the_maps_of_many_networks(name):
    torch.manual_seed(0)
    network = backbone(name)
    channels = [stage["num_chs"] for stage in network.feature_info]
    decoder = Decoder(channels, 2)
    x = torch.randn(2, 3, 48, 48)
    _, maps = network.forward_intermediates(x)
    assert [m.shape[1] for m in maps] == channels
    for m in maps:
        m.retain_grad()
    out = decoder(maps, 48)
    assert out.shape == (2, 2, 48, 48)
    out.square().sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)  # every map is painted from, not the last alone
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network.forward_head(network.forward_intermediates(x)[0]), network(x))


def test_decoder_of_resnet18_has_its_known_number_of_parameters():
    """Five blocks of two convolutions with BatchNorm, skips of 256, 128, 64, 64 and none, and the last layer."""
    widths, skips, expected = [512, 256, 128, 64, 32, 16], [256, 128, 64, 64, 0], 9 * 16 * 2 + 2
    for i, skip in enumerate(skips):
        expected += 9 * (widths[i] + skip + widths[i + 1]) * widths[i + 1] + 4 * widths[i + 1]
    assert sum(p.numel() for p in Decoder([64, 64, 128, 256, 512], 2).parameters()) == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224"])
def test_check_refuses_networks_with_maps_of_one_size(name):
    with pytest.raises(UserError, match=f"encoder.name: must make maps of several sizes.*not '{name}'"):
        ColorMe.check(ColorMe.Config(), replace(SETTING, encoder=name))


def test_check_refuses_a_task_without_a_loss_and_accepts_either_term():
    with pytest.raises(UserError, match="painting: must be above 0"):
        ColorMe.check(ColorMe.Config(painting=0.0, colours=0.0), SETTING)
    ColorMe.check(ColorMe.Config(painting=0.0), SETTING)
    ColorMe.check(ColorMe.Config(colours=0.0), replace(SETTING, encoder="convnext_atto"))
    assert map_sizes("resnet18") == 5
