"""AMFAM: an adversary by reversed gradients, painting by attention, a classifier on both maps."""

import math

import numpy as np
import pytest
import torch
from fit import pairs
from sklearn.metrics import precision_score, recall_score

from dermsearch.data.store.case_store import CaseStore
from dermsearch.fit.amfam import FusedNetwork, Reversal, attended, climbed, discrimination, painting_errors


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return pairs.make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.mark.parametrize(
    ("step", "value"), [(1, 0.005), (52, 0.254296), (100, 0.462117), (200, 0.761594), (520, 0.989027)]
)
def test_the_coefficient_climbs_as_the_authors_have_it(step, value):
    assert climbed(step, 1000, "steps") == pytest.approx(value, abs=1e-5)
    assert climbed(step, step, "share") == pytest.approx(math.tanh(2.5)) and climbed(0, 10, "share") == 0


@pytest.mark.parametrize("coefficient", [1.0, 0.5, 0.0])
def test_the_adversary_reaches_the_encoders_reversed(coefficient):
    c = torch.tensor([[1, 0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    d = torch.tensor([[0, 1], [-0.5, 1]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[1, -1], [-1, 1]], dtype=torch.float64, requires_grad=True)
    reversal = Reversal()
    reversal.coefficient = coefficient
    loss = 0.8 * discrimination(reversal(torch.cat([c, d])) @ w, torch.ones(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() / 0.8 == pytest.approx(0.248898, abs=1e-5)
    np.testing.assert_allclose(w.grad.T, [[-0.078583, -0.016674], [0.078583, 0.016674]], atol=1e-5)
    np.testing.assert_allclose(c.grad, coefficient * np.array([[0.047681, -0.047681], [0.2, -0.2]]), atol=1e-5)
    expected = coefficient * np.array([[-0.047681, 0.047681], [-0.018970, 0.018970]])
    np.testing.assert_allclose(d.grad, expected, atol=1e-5)


def test_painting_counts_more_where_the_encoder_looks():
    painted, image, attention = (
        torch.tensor(x, dtype=torch.float64) for x in ([[0.5, 0], [0, -0.5]], [[1, 0], [0.5, -1]], [[1, 0], [0.5, 0]])
    )
    three = [x.expand(1, 3, 2, 2) for x in (painted, image)]
    assert painting_errors(*three, attention[None, None]).item() == pytest.approx(0.335438, abs=1e-5)
    assert painting_errors(*three, torch.zeros(1, 1, 2, 2)).item() == pytest.approx(0.1875, abs=1e-5)


@pytest.mark.parametrize(("over", "first"), [("batch", [[1 / 6, 0.5], [0.5, 1]]), ("image", [[0, 0.4], [0.4, 1]])])
def test_where_an_encoder_looks(over, first):
    maps = torch.tensor([[[[1, 1], [1, 4]], [[0, 2], [2, 2]]], [[[6, 0], [0, 0]], [[0, 0], [0, 1]]]]).double()
    maps.requires_grad_(True)
    found = attended(maps, over)
    np.testing.assert_allclose(found, [first, [[1, 0], [0, 1 / 6]]], atol=1e-6)
    assert not found.requires_grad


def test_transposed_numbers_are_what_exchanged_arguments_print():
    """The origin of the paper's transposed row: truth and prediction exchanged."""
    truth, told = np.array([0] * 6 + [1] * 4), np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 0])

    def three(a, b):
        return [recall_score(a, b), recall_score(a, b, pos_label=0), precision_score(a, b)]

    np.testing.assert_allclose(three(truth, told), [0.5, 0.8333, 0.6667], atol=1e-4)
    np.testing.assert_allclose(three(told, truth), [0.6667, 0.7143, 0.5], atol=1e-4)


def test_a_system_paints_with_more_weight_where_it_looks(store):
    module = pairs.system("amfam", store)
    object.__setattr__(module.setting, "size", 64)  # of smaller images the last map is one place
    given = pairs.batches(module, store, np.arange(6), 64)
    sight = module.look(given, dict(module.pictures(given)))[0]
    painted = torch.rand(sight.pixels.shape)
    looks = torch.nn.functional.interpolate(attended(sight.maps[-1], "image")[:, None], (64, 64), mode="bilinear")
    errors = (painted - sight.pixels).square()
    torch.testing.assert_close(module.painting(painted, sight), (errors * looks.exp()).mean())
    assert (errors * looks.exp()).mean() > 1.05 * errors.mean()


def test_parameters_of_the_parts():
    with torch.device("meta"):
        made = FusedNetwork(pairs.RESNET50)
    parts = made.fused, made.heads, made.discriminator, *made.painters.values()
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counts == [2_097_664, 12_312, 525_058, 4_812_073, 4_812_073]


def gradients(store: CaseStore, **config) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the last convolution of an encoder, and of the discriminator, with classes that teach nothing."""
    module = pairs.system("amfam", store, **config)
    torch.nn.init.zeros_(module.network.fused.weight)
    module.before_step(100)
    losses = module.loss(pairs.batches(module, store, np.arange(16)))
    sum(loss.value for loss in losses.values()).backward()
    encoder = module.encoders.backbones["derm"].layer4[-1].bn2.weight.grad
    return encoder, module.network.discriminator[0].weight.grad


def test_without_its_parts_nothing_of_them_is_learnt(store):
    whole, discriminator = gradients(store)
    alone, same = gradients(store, painting=0.0, reversal=0.0)
    assert whole.any() and discriminator.any() and not alone.any() and torch.equal(same, discriminator)
    assert gradients(store, reversal=0.0)[0].any(), "painting teaches the encoders"
    assert gradients(store, painting=0.0)[0].any(), "so does the adversary"


def test_both_images_are_painted_from_both_maps(store):
    module = pairs.system("amfam", store)
    d, c = pairs.sight(pairs.TINY, 0), pairs.sight(pairs.TINY, 1)
    before = module.network(d, c, torch.empty(4, 0)).extras
    after = module.network(d, pairs.sight(pairs.TINY, 2), torch.empty(4, 0)).extras
    for image in ("d", "c"):
        assert before[image].shape == (4, 3, 64, 64) and not torch.equal(before[image], after[image])
        assert before[image].min() >= 0 and before[image].max() <= 1


def test_the_classifier_sees_both_maps(store):
    module = pairs.system("amfam", store).eval()
    d, c, other = (pairs.sight(pairs.TINY, seed) for seed in (0, 1, 2))
    logits = [module.network(*two, torch.empty(4, 0)).groups["f"][0] for two in ((d, c), (other, c), (d, other))]
    assert not torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])


def test_pictures_to_be_painted_lie_between_0_and_1(store):
    module = pairs.system("amfam", store)
    given = pairs.batches(module, store, np.arange(4))
    sight = module.look(given, dict(module.pictures(given)))[0]
    assert sight.pixels.min() >= 0 and sight.pixels.max() <= 1 and sight.pixels.std() > 0.05


def test_rare_diagnoses_are_drawn_as_often_as_common_ones(store):
    module, common = pairs.system("amfam", store), pairs.system("amfam", store, recipe="common")
    pools = {m: b.pool for m, b in pairs.batches(module, store, np.arange(2)).items()}
    truth = store.label("diagnosis")
    drawn = np.bincount(truth[module.plan_epoch(0, pools, 4000)["clinic"]])
    assert drawn[drawn > 0].min() > 0.7 * drawn.max()
    assert sorted(common.plan_epoch(0, pools, 40)["derm"]) == list(range(40))
