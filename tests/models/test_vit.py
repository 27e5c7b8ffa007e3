"""Vision transformers from inside: tokens, hidden patches, and stochastic depth that no number of processes changes."""

import numpy as np
import pytest
import torch
from gloo import Group
from torch import Tensor

from dermsearch import world
from dermsearch.models.encoders import backbone
from dermsearch.models.vit import BranchEnd, StochasticDepth, grid, tokens


def vit(seed: int = 0, name: str = "test_vit") -> torch.nn.Module:
    torch.manual_seed(seed)
    return backbone(name).eval()


def images(n: int, size: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_tokens_are_timms():
    network, x = vit(), images(2, 48)
    features, patches = tokens(network, x)
    assert torch.equal(features, network(x))
    assert torch.equal(patches, network.forward_features(x)[:, 1:]) and patches.shape == (2, 9, 64)
    nothing = torch.zeros(2, 3, 3, dtype=torch.bool)
    assert torch.equal(tokens(network, x, nothing, torch.ones(64))[1], patches)


@pytest.mark.parametrize("size, side", [(32, 2), (40, 3), (48, 3), (224, 14)])
def test_grid(size, side):
    network = vit()
    assert grid(network, size) == (side, side)
    assert tokens(network, images(1, size))[1].shape == (1, side * side, 64)


def test_what_a_hidden_patch_shows_does_not_matter():
    network, x = vit(), images(2, 48)
    hidden = torch.zeros(2, 3, 3, dtype=torch.bool)
    hidden[0, 1, 2] = True
    stand_in = torch.randn(64, generator=torch.Generator().manual_seed(2))
    before = tokens(network, x, hidden, stand_in)
    assert not torch.allclose(before[1][0], tokens(network, x)[1][0])
    assert torch.allclose(before[1][1], tokens(network, x)[1][1])  # the other image hides nothing
    x[0, :, 16:32, 32:48] = 7.0  # row 1, column 2
    after = tokens(network, x, hidden, stand_in)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    x[0, :, 16:32, 16:32] = 7.0  # its neighbour
    assert not torch.allclose(before[1][0], tokens(network, x, hidden, stand_in)[1][0])
    assert torch.equal(network(x), network(x.clone())) and network.patch_embed.instead is None


def test_the_stand_in_takes_the_embeddings_place_below_the_positions():
    network, x = vit(), images(1, 32)
    with torch.no_grad():
        own = network.patch_embed(x)[0, 0, 1].clone()  # row 0, column 1
    hidden = torch.tensor([[[False, True], [False, False]]])
    torch.testing.assert_close(tokens(network, x, hidden, own)[1], tokens(network, x)[1])


def test_no_hook_stays_after_a_failure():
    network = vit()
    with pytest.raises(RuntimeError):
        tokens(network, images(1, 32), torch.zeros(1, 5, 5, dtype=torch.bool), torch.zeros(64))
    assert not network.patch_embed._forward_hooks


def scales(rows: int, p: float, step: int = 0, use: str = "x", seed: int = 3) -> Tensor:
    """(rows of the global batch, branches) that multiply branches."""
    depth = StochasticDepth(vit(), p, seed)
    depth.step = step
    with depth.within(torch.empty(rows, 1)[world.mine(rows)], use):
        return world.gather(torch.stack([end.scale for end in depth.ends], 1))


@pytest.mark.slow
def test_the_same_branches_go_on_any_number_of_processes(two: Group, four: Group):
    whole = scales(16, 0.5, 11)
    assert whole.shape == (16, 12)  # two in each of six blocks
    for part in [*two(scales, 16, 0.5, 11), *four(scales, 16, 0.5, 11)]:
        assert torch.equal(part, whole)


def test_chances_climb_and_means_stay():
    found = scales(20_000, 0.4)
    chances = 0.4 * torch.arange(6).repeat_interleave(2) / 5
    torch.testing.assert_close((found == 0).double().mean(0), chances.double(), atol=0.015, rtol=0)
    torch.testing.assert_close(found.mean(0), torch.ones(12, dtype=torch.float64), atol=0.03, rtol=0)
    assert not torch.equal(found[:, 10], found[:, 11])  # attention and MLP of a block go each for itself


def test_every_step_seed_and_pass_has_its_own():
    found = [scales(50, 0.5, step, use, seed) for step in (0, 1) for use in ("large", "small") for seed in (0, 1)]
    assert len({f.numpy().tobytes() for f in found}) == 8


def test_a_branch_that_is_left_out_adds_nothing():
    network = vit()
    depth = StochasticDepth(network, 0.5, 0)
    block, seen = network.blocks[5], []
    block.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    with depth.within(x := images(16, 32), "x"):
        network(x)
        attention, mlp = depth.ends[10].scale, depth.ends[11].scale
        assert attention is not None and mlp is not None
    (given, out) = seen[0]
    gone, whole = (attention == 0) & (mlp == 0), (attention == 2) & (mlp == 2)
    assert gone.any() and whole.any()
    assert torch.equal(out[gone], given[gone])
    attended = given + 2 * block.attn(block.norm1(given))
    torch.testing.assert_close(out[whole], (attended + 2 * block.mlp(block.norm2(attended)))[whole])


def test_nothing_is_left_out_outside_or_in_evaluation():
    network, plain, x = vit(), vit(), images(4, 32)
    depth = StochasticDepth(network, 0.5, 0)
    assert torch.equal(network(x), plain(x))
    with depth.within(x, "x"):
        assert not torch.allclose(network(x), plain(x))
    assert torch.equal(network(x), plain(x))
    with depth.eval().within(x, "x"):
        assert torch.equal(network(x), plain(x))
    assert network.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(KeyError), depth.train().within(x, "x"):
        raise KeyError
    assert torch.equal(network(x), plain(x))


def test_a_resnet_stays_as_it_is():
    network = backbone("test_resnet")
    depth = StochasticDepth(network, 0.5, 0)
    with depth.within(images(4, 32), "x"):
        assert not any(isinstance(m, BranchEnd) for m in network.modules())


def test_leaves_the_global_generators_alone():
    network, x = vit(), images(4, 32)
    torchs, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    with StochasticDepth(network, 0.5, 0).within(x, "x"):
        network(x)
    assert torch.equal(torch.get_rng_state(), torchs) and np.array_equal(np.random.get_state()[1], numpys)
