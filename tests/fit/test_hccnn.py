"""HcCNN: fusion at every scale, a state that is carried on, a gate at each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit import pairs

from dermsearch.fit.hccnn import HyperNetwork, ScaleAttention


def network(shape=pairs.TINY) -> HyperNetwork:
    torch.manual_seed(0)
    return HyperNetwork(shape).eval()


@pytest.mark.parametrize(
    ("shape", "counts"),
    [
        (pairs.RESNET50, [1_526_144, 7_975_296, 31_621_504, 125_927_808]),
        (pairs.RESNET18, [214_784, 524_928, 2_028_928, 7_975_296]),
    ],
)
def test_parameters_of_the_stages(shape, counts):
    with torch.device("meta"):
        made = HyperNetwork(shape)
    assert [sum(p.numel() for p in stage.parameters()) for stage in made.stages] == counts
    if shape is pairs.RESNET50:
        assert sum(p.numel() for p in made.features.parameters()) == 786_816
        heads = [*made.heads.values(), made.joint]
        assert [sum(p.numel() for p in head.parameters()) for head in heads] == [3_096] * 3 + [9_240]


def test_the_gate_of_weights_that_are_zero():
    gate = ScaleAttention(2).double().eval()
    for p in gate.parameters():
        torch.nn.init.zeros_(p)
    x = torch.tensor([0.0, 1.0, 2.0]).double().expand(1, 2, 1, 3)
    np.testing.assert_allclose(gate(x).detach()[0, 0, 0], [0, 0.731059, 1.761594], atol=1e-6)


def test_the_gate_depends_on_the_whole_channel():
    torch.manual_seed(0)
    gate, x = ScaleAttention(4).eval(), torch.rand(1, 4, 8, 8)
    other = x.clone()
    other[..., 7, 7] += 5
    assert not torch.equal(gate(x)[..., 0, 0], gate(other)[..., 0, 0])


def test_sizes_of_the_stages_at_64_pixels():
    made, d, c = network(), pairs.sight(pairs.TINY, 0), pairs.sight(pairs.TINY, 1)
    sides: list[int] = []
    for stage in made.stages:
        stage.register_forward_hook(lambda module, given, found: sides.append(found.shape[-1]))
    made(d, c, torch.empty(4, 0))
    assert sides == [16, 8, 4, 2]


def joint(made: HyperNetwork) -> torch.Tensor:
    return made(pairs.sight(pairs.TINY, 0), pairs.sight(pairs.TINY, 1), torch.empty(4, 0)).groups["joint"][0]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("image", [0, 1])
def test_both_images_enter_every_stage(stage, image, monkeypatch):
    """Of the map that enters this stage alone: the image's own branch stays as it is."""
    made = network()
    before, width = joint(made), pairs.TINY.maps[stage]

    def without(module, given):
        (maps,) = given
        maps = maps.clone()
        maps[:, width * image : width * (image + 1)] = 0
        return (maps,)

    made.stages[stage].register_forward_pre_hook(without)
    assert not torch.equal(joint(made), before)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_state_is_carried_from_stage_to_stage(stage):
    made = network()
    before, width = joint(made), pairs.TINY.maps[stage]

    def without(module, given):
        maps = given[0].clone()
        assert maps.shape[1] == 3 * width
        maps[:, 2 * width :] = 0
        return (maps,)

    made.stages[stage].register_forward_pre_hook(without)
    assert not torch.equal(joint(made), before)


def test_the_gate_is_at_every_scale():
    made = network()
    before = joint(made)
    for stage in made.stages:
        whole = stage.attention
        stage.attention = torch.nn.Identity()
        assert not torch.equal(joint(made), before)
        stage.attention = whole


def test_maps_of_the_encoders_are_left_alone():
    d, c = pairs.sight(pairs.TINY, 0), pairs.sight(pairs.TINY, 1)
    before = [x.clone() for x in (*d.maps, *c.maps)]
    network()(d, c, torch.empty(4, 0))
    assert all(torch.equal(a, b) for a, b in zip(before, (*d.maps, *c.maps), strict=True))


def test_without_a_stem_it_begins_at_the_second_stage_with_two_inputs():
    shape = replace(pairs.TINY, maps=pairs.TINY.maps[1:], strides=(4, 8, 16, 32))
    made = network(shape)
    assert [stage.join.in_channels for stage in made.stages] == [2 * 32, 3 * 48, 3 * 192]
    said = made(pairs.sight(shape, 0), pairs.sight(shape, 1), torch.empty(4, 0))
    assert said.groups["joint"][0].shape == (4, 5)


@pytest.mark.parametrize("deep", [True, False])
def test_deep_supervision_is_a_choice(deep, tmp_path):
    store = pairs.make_store(tmp_path / "store", 32)
    module = pairs.system("hccnn", store, deep=deep)
    parts = module.loss(pairs.batches(module, store, np.arange(4)))["derm"].parts
    assert set(parts) == ({"d", "c", "h", "joint", "accuracy"} if deep else {"joint", "accuracy"})
