"""Starting weights from files as they come: wrapped, prefixed, with heads, with another grid; and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from dermsearch.errors import UserError
from dermsearch.models.encoders import Encoders
from dermsearch.models.weights import fingerprint, read_weights, spread

NAME = "test_resnet"


def drawn(name: str = NAME, **options: Any) -> dict[str, Tensor]:
    """Weights, as timm would save them."""
    torch.manual_seed(5)
    state = timm.create_model(name, **options).state_dict()
    return {n: torch.randn_like(v) if v.is_floating_point() else v for n, v in state.items()}


def backbone_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: v for n, v in state.items() if not n.startswith(("fc.", "head."))}


def save(content: Any, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return str(path)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + n: v for n, v in state.items()}


@pytest.mark.parametrize("ending", ["safetensors", "pth", "pt"])
def test_a_model_with_its_classifier(ending, tmp_path):
    state = drawn()
    assert "fc.weight" in state
    assert equal(read_weights(save(state, tmp_path / f"w.{ending}"), NAME), backbone_of(state))


HEAD = {"head.mlp.0.weight": torch.ones(2, 2), "projection_head.0.bias": torch.ones(2)}


@pytest.mark.parametrize("wrap", [
    lambda s: {"state_dict": prefixed("module.", s), "epoch": 3, "optimizer": {"lr": 0.1}},
    lambda s: {"model": prefixed("backbone.", s)},
    lambda s: {"student": {"x": torch.ones(1)}, "teacher": {**prefixed("backbone.", s), **HEAD}, "epoch": 3},
    lambda s: {"state_dict": {**prefixed("module.encoder_q.", s), **prefixed("module.encoder_k.", s)}},
    lambda s: {**prefixed("encoder.", s), **HEAD},
    lambda s: {"state_dict": {"model": prefixed("module.backbone.", s)}},
    lambda s: prefixed("backbones.shared.", backbone_of(s)),  # a stage of our own
    lambda s: {"state_dict": {**prefixed("student_backbone.", s), **prefixed("student_head.", HEAD)}},
    lambda s: {"state_dict": {**prefixed("_method.x.", HEAD), **prefixed("_model.", s)}},
    lambda s: {"state_dict": {
        **prefixed("student_embedding_model.wrapped_model._model.", {n: v + 1 for n, v in s.items()}),
        **prefixed("teacher_embedding_model.wrapped_model._model.", s),
    }},
])  # fmt: skip
def test_checkpoints(wrap, tmp_path):
    state = drawn()
    assert equal(read_weights(save(wrap(state), tmp_path / "w.pth"), NAME), backbone_of(state))


def test_torchvision_without_counters(tmp_path):
    import torchvision

    state = {n: v for n, v in torchvision.models.resnet18().state_dict().items() if "num_batches" not in n}
    found = read_weights(save(state, tmp_path / "w.pth"), "resnet18")
    assert torch.equal(found["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert found["bn1.num_batches_tracked"] == 0 and found["bn1.num_batches_tracked"].dtype == torch.long
    Encoders.empty("resnet18", ("derm",), "shared").load(prefixed("backbones.shared.", found))


def test_positions_of_another_grid(tmp_path):
    """A ViT from images of another size: the class token's position stays, the patches' are resampled."""
    own = timm.create_model("test_vit", num_classes=0)
    side = own.patch_embed.grid_size[0]
    state = drawn("test_vit", img_size=2 * side * own.patch_embed.patch_size[0])
    assert state["pos_embed"].shape[1] == 1 + 4 * side**2
    found = read_weights(save(state, tmp_path / "w.safetensors"), "test_vit")
    expected = resample_abs_pos_embed(state["pos_embed"], [side, side], num_prefix_tokens=1)
    assert torch.equal(found["pos_embed"], expected) and found["pos_embed"].shape == own.pos_embed.shape
    assert torch.equal(found["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert equal({**found, "pos_embed": state["pos_embed"]}, backbone_of(state))


@pytest.mark.parametrize("change, told", [
    (lambda s: {n: v for n, v in s.items() if n != "conv1.0.weight"}, "it lacks conv1.0.weight"),
    (lambda s: {**s, "stem.bias": torch.ones(2)}, "it has besides stem.bias"),
    (lambda s: {**s, "bn1.weight": torch.ones(3)}, "it has in other shapes bn1.weight (3,) for ("),
    (lambda s: {**s, "bn1.weight": s["bn1.weight"] / 0}, "not all numbers are finite in bn1.weight"),
    (lambda s: {"a.weight": torch.ones(2)}, " more; it has besides a.weight"),
    (lambda s: {}, "holds no weights by name"),
    (lambda s: {"epoch": 3}, "holds no weights by name"),
    (lambda s: [torch.ones(2)], "holds no weights by name"),
    (lambda s: {"w": Path("x")}, "cannot be read as weights"),  # not a tensor: never unpickled
])  # fmt: skip
def test_what_does_not_fit_is_told_in_one_sentence(change, told, tmp_path):
    with pytest.raises(UserError) as error:
        read_weights(save(change(drawn()), tmp_path / "w.pth"), NAME)
    text = str(error.value)
    assert text.startswith("encoder.weights: '") and told in text and "\n" not in text and len(text) < 700


@pytest.mark.parametrize("change, told", [
    (lambda s: {**s, "bn1.weight": torch.ones(2, 2).to_sparse()}, "plain numbers (sparse, quantised or complex): bn1"),
    (lambda s: {**s, "q": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)}, "plain numbers"),
    (lambda s: {**s, "c": torch.ones(2, dtype=torch.complex64)}, "plain numbers"),
    (lambda s: {**s, 7: torch.ones(2)}, "holds no weights by name"),
    (lambda s: {**s, "a\x1b[31m\n" + "b" * 500: torch.ones(2)}, "it has besides a?[31m?bbb"),
    (lambda s: {**s, "wide": torch.ones(1).expand(10**7, 10**4)}, "it has besides wide"),
    (lambda s: {**s, "bn1.weight": torch.ones(1).expand(10**7, 10**4)}, "it has in other shapes bn1.weight"),
    (lambda s: timm.create_model(NAME), "state_dict()"),  # a whole model, pickled
])  # fmt: skip
def test_odd_files_are_told_in_one_plain_sentence(change, told, tmp_path):
    with pytest.raises(UserError) as error:
        read_weights(save(change(drawn()), tmp_path / "w.pth"), NAME)
    text = str(error.value)
    assert told in text and text.isprintable() and len(text) < 700
    assert "weights_only" not in text and "trust" not in text and "add_safe_globals" not in text


def chunked(name: str) -> str:
    """How DINOv2 names a block where blocks come in chunks of one."""
    block = name.split(".")[1] if name.startswith("blocks.") else ""
    return name.replace(f"blocks.{block}.", f"blocks.{block}.{block}.", 1) if block else name


@pytest.mark.parametrize("wrap", [
    lambda s: {**s, "mask_token": torch.zeros(1, s["cls_token"].shape[2])},
    lambda s: {"teacher": {**prefixed("backbone.", {**s, "mask_token": s["norm.bias"]}), "dino_head.w": torch.ones(2)}},
    lambda s: {"teacher": {f"backbone.{chunked(n)}": v for n, v in {**s, "mask_token": s["norm.bias"]}.items()}},
    lambda s: {"state_dict": {**prefixed("student_backbone.vit.", {n: v + 1 for n, v in s.items()}),
                              **prefixed("teacher_backbone.vit.", s)}},
])  # fmt: skip
def test_a_vision_transformer_of_dinov2(wrap, tmp_path):
    state = backbone_of(drawn("test_vit"))
    found = read_weights(save(wrap(state), tmp_path / "w.ckpt"), "test_vit")
    assert equal(found, state)


def test_registers_of_dinov2(tmp_path):
    """There the class token has a position of its own; timm adds it to the token, and calls registers otherwise."""
    state = backbone_of(drawn("vit_small_patch14_reg4_dinov2"))
    position = torch.ones(1, 1, state["pos_embed"].shape[2])
    theirs = {n.replace("reg_token", "register_tokens"): v for n, v in state.items()}
    theirs |= {"mask_token": position[0], "pos_embed": torch.cat([position, state["pos_embed"]], 1)}
    found = read_weights(save(theirs, tmp_path / "w.pth"), "vit_small_patch14_reg4_dinov2")
    assert equal(found, {**state, "cls_token": state["cls_token"] + 1})


def test_nothing_hollow_is_converted(tmp_path, monkeypatch):
    """What is told to be many numbers would be many once another layout's converter has touched it."""
    state = {"mask_token": torch.ones(1), "pos_embed": torch.ones(1, 1, 1).expand(1, 1 + 30_000**2, 64)}
    asked = []
    monkeypatch.setattr(timm.models.vision_transformer, "checkpoint_filter_fn", lambda *given: asked.append(given))
    with pytest.raises(UserError, match="does not fit"):
        read_weights(save(state, tmp_path / "w.pth"), "test_vit")
    assert not asked


def test_positions_of_one_number_told_to_be_many(tmp_path):
    state = drawn("test_vit")
    width = state["pos_embed"].shape[2]
    wide = {**state, "pos_embed": torch.ones(1, 1, 1).expand(1, 1 + 30_000**2, width)}
    with pytest.raises(UserError, match="it has in other shapes pos_embed"):
        read_weights(save(wide, tmp_path / "w.pth"), "test_vit")


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_checkpoint_that_holds_itself_ends(key, tmp_path):
    wrapped = {"epoch": 3}
    wrapped[key] = wrapped
    with pytest.raises(UserError, match="holds no weights by name"):
        read_weights(save(wrapped, tmp_path / "w.pth"), NAME)


def test_other_floats_are_read(tmp_path):
    state = {n: v.to(torch.float8_e5m2) if v.is_floating_point() else v for n, v in drawn().items()}
    found = read_weights(save(state, tmp_path / "w.pth"), NAME)
    assert found["bn1.weight"].dtype == torch.float32


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("what, told", [
    ("pipe", "is no file"), ("folder", "is no file"), ("device", "is no file"), ("loop", "is no file"),
    ("huge", "has 1024 GiB, and weights may have 16"),
])  # fmt: skip
def test_what_is_no_file_or_too_large_is_said_at_once(what, told, ending, tmp_path):
    path = tmp_path / f"w.{ending}"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.symlink_to("/dev/zero" if what == "device" else path)
    with pytest.raises(UserError, match=told):
        read_weights(str(path), NAME)
    with pytest.raises(UserError, match=told):
        fingerprint(str(path))


def test_what_is_no_file_of_weights(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    for name, told in (("broken.safetensors", "cannot be read as weights"), ("broken.pth", "cannot be read as weights"),
                       ("none.pth", "is no file"), ("w.txt", "must be a .safetensors")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            read_weights(str(tmp_path / name), NAME)


def test_every_branch_starts_alike_and_apart(tmp_path):
    state = backbone_of(drawn())
    made = spread(state, Encoders.empty(NAME, ("derm", "clinic"), "separate"))
    assert all(equal(dict(b.state_dict()), state) for b in made.backbones.values())
    one, other = (dict(b.named_parameters()) for b in made.backbones.values())
    assert all(p.requires_grad and p.data_ptr() != other[n].data_ptr() for n, p in one.items())


def test_the_content_decides(tmp_path):
    state = drawn()
    one, same = save(state, tmp_path / "one.safetensors"), save(state, tmp_path / "two.safetensors")
    other = save({**state, "bn1.bias": state["bn1.bias"] + 1}, tmp_path / "other.safetensors")
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
