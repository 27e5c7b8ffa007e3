"""Encoders: branches, seeds, and the way from a file."""

import pytest
import torch
from timm import create_model

from dermsearch.errors import UserError
from dermsearch.models.encoders import Encoders, backbone, is_vit

BOTH = ("derm", "clinic")


def equal(a: Encoders, b: Encoders) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_branches():
    shared, separate = (Encoders.random("test_resnet", BOTH, b, 0) for b in ("shared", "separate"))
    assert shared.branches == {"shared": BOTH} and separate.branches == {"derm": ("derm",), "clinic": ("clinic",)}
    assert shared.branch_of("clinic") == "shared" and separate.branch_of("clinic") == "clinic"
    x = torch.randn(2, 3, 32, 32)
    for one in (shared.eval(), separate.eval()):
        assert one(x, "derm").shape == (2, one.dim) and torch.equal(one(x, "derm"), one(x, "clinic"))


def test_separate_branches_start_alike_and_part():
    encoders = Encoders.random("test_resnet", BOTH, "separate", 0).eval()
    derm, clinic = encoders.backbones["derm"], encoders.backbones["clinic"]
    assert {p.data_ptr() for p in derm.parameters()}.isdisjoint(p.data_ptr() for p in clinic.parameters())
    with torch.no_grad():
        next(derm.parameters()).mul_(2)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(encoders(x, "derm"), encoders(x, "clinic"))


def test_seeds():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = Encoders.random("test_resnet", BOTH, "separate", 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(a, Encoders.random("test_resnet", BOTH, "separate", 1))
    assert not equal(a, Encoders.random("test_resnet", BOTH, "separate", 2))


def test_the_backbone_is_timms():
    torch.manual_seed(1)
    backbone = create_model("test_resnet", num_classes=0)
    made = Encoders.random("test_resnet", ("derm",), "shared", 1).backbones["shared"]
    assert all(torch.equal(v, made.state_dict()[k]) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["test_resnet", "resnetblur18"])  # the second computes filters that no file holds
def test_empty_and_load(name):
    made = Encoders.random(name, ("derm",), "shared", 1).eval()
    loaded = Encoders.empty(name, ("derm",), "shared").load(made.state_dict()).eval()
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])
    assert all(p.requires_grad for p in loaded.parameters())
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(x, "derm"), made(x, "derm"))


def test_load_refuses_other_weights():
    state = Encoders.random("test_resnet", ("derm",), "shared", 1).state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        Encoders.empty("test_resnet", BOTH, "separate").load(state)


def test_an_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="resnet18"):
        Encoders.random("resnet_18", BOTH, "shared", 0)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3"])  # class token, mean of patches, attention
def test_a_transformer_takes_images_of_any_side(name):
    """From one set of weights: positions are interpolated, and what does not divide into patches is filled up."""
    made = Encoders.random(name, ("derm",), "shared", 1).eval()
    loaded = Encoders.empty(name, ("derm",), "shared").load(made.state_dict()).eval()
    for size in (24, 32, 48, 224):
        x = torch.randn(2, 3, size, size)
        assert made(x, "derm").shape == (2, made.dim) and torch.equal(loaded(x, "derm"), made(x, "derm"))
    filled = torch.zeros(2, 3, 48, 48)
    filled[:, :, :40, :40] = x[:, :, :40, :40]
    torch.testing.assert_close(made(x[:, :, :40, :40], "derm"), made(filled, "derm"))


def test_a_transformer_is_timms_own_at_the_size_in_its_name():
    made = backbone("vit_tiny_patch16_224").eval()
    assert sum(p.numel() for p in made.parameters()) == 5_524_416
    plain = create_model("vit_tiny_patch16_224", num_classes=0).eval()
    plain.load_state_dict(made.state_dict())
    x = torch.randn(1, 3, 224, 224)
    assert made.forward_features(x).shape == (1, 197, 192)
    torch.testing.assert_close(made(x), plain(x))


def test_which_are_transformers():
    assert is_vit("vit_tiny_patch16_224") and is_vit("test_vit2")
    assert not is_vit("resnet18") and not is_vit("swin_tiny_patch4_window7_224") and not is_vit("no_such_model")
