"""Heads for several labels: known sizes, torch's own layers, dropout on any number of processes."""

import json

import pytest
import torch
from gloo import Group
from safetensors.torch import load, save
from torch import nn

from dermsearch import world
from dermsearch.models.artifact import Part
from dermsearch.models.heads import GlobalDropout
from dermsearch.models.relations import ATTENTIVE, RELATIONS, LabelHeads, RelationLayer, label_heads

SM3 = (5, 3, 2, 3, 3, 3, 3, 2)


def small(relation: str, **options: float) -> LabelHeads:
    """Heads for three labels, always the same, in double precision."""
    torch.manual_seed(0)
    sizes = {"width": 8, "attention_heads": 2, "feedforward": 6, **options}
    heads = LabelHeads(10, (4, 2, 3), relation, **sizes).double()  # type: ignore[arg-type]
    for p in heads.parameters():  # biases and norms too
        nn.init.normal_(p, std=0.5)
    return heads


def features(rows: int = 6) -> torch.Tensor:
    return torch.randn(rows, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_of_the_paper():
    heads = LabelHeads(4096, SM3, "tel")
    assert count(heads.projectors) == 16_781_312
    assert count(heads.relation) == 1_184_384
    assert count(heads.prototypes) == 12_288
    assert count(heads) + sum(SM3) == 17_978_008  # what the released code trains for its SM3-linear, with biases


def test_sizes_of_the_other_relations():
    assert count(LabelHeads(4096, SM3, "no_proj")) == 4096 * 24
    assert count(LabelHeads(64, SM3, "proj", 512)) == 8 * 65 * 512 + 12_288
    tel, te, msa = (LabelHeads(64, SM3, r, depth=3).relation for r in ("tel", "te", "msa"))
    assert count(te) == 3 * count(tel) and count(msa) == 4 * 512 * 513 + 2 * 512


def torch_layer(layer: RelationLayer, width: int) -> nn.TransformerEncoderLayer:
    """torch's own, with this layer's weights."""
    hidden = layer.feedforward[0].out_features
    other = nn.TransformerEncoderLayer(width, layer.heads, hidden, 0.1, batch_first=True).double().eval()
    pairs = {
        "self_attn.in_proj_": layer.query_key_value, "self_attn.out_proj.": layer.out, "norm1.": layer.norm,
        "linear1.": layer.feedforward[0], "linear2.": layer.feedforward[3], "norm2.": layer.last_norm,
    }  # fmt: skip
    other.load_state_dict({f"{n}{kind}": getattr(m, kind) for n, m in pairs.items() for kind in ("weight", "bias")})
    return other


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("relation, depth", [("tel", 1), ("te", 3)])
def test_a_layer_is_that_of_torch(relation, depth, heads):
    ours = small(relation, attention_heads=heads, depth=depth).eval()
    assert len(ours.relation) == depth
    tokens = torch.stack([features() @ w.T + b for w, b in projectors(ours)], 1)
    for layer in ours.relation:
        tokens = torch_layer(layer, 8)(tokens)
    torch.testing.assert_close(ours.embed(features()), tokens.transpose(0, 1), rtol=0, atol=1e-10)


def projectors(heads: LabelHeads) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each label's own weight and bias."""
    w, b = heads.projectors.weight, heads.projectors.bias
    return [(w[8 * k : 8 * k + 8], b[8 * k : 8 * k + 8]) for k in range(3)]


def test_msa_is_attention_added_and_normed():
    ours = small("msa").eval()
    (layer,) = ours.relation
    other = nn.MultiheadAttention(8, 2, batch_first=True).double()
    pairs = {"in_proj_": layer.query_key_value, "out_proj.": layer.out}
    other.load_state_dict({f"{n}{kind}": getattr(m, kind) for n, m in pairs.items() for kind in ("weight", "bias")})
    tokens = torch.stack([features() @ w.T + b for w, b in projectors(ours)], 1)
    expected = layer.norm(tokens + other(tokens, tokens, tokens)[0]).transpose(0, 1)
    torch.testing.assert_close(ours.embed(features()), expected, rtol=0, atol=1e-10)


def test_proj_and_no_proj():
    ours = small("proj")
    expected = torch.stack([features() @ w.T + b for w, b in projectors(ours)])
    torch.testing.assert_close(ours.embed(features()), expected)
    plain = small("no_proj")
    assert plain.width == 10 and torch.equal(plain.embed(features()), torch.stack([features()] * 3))


def test_a_layer_begins_like_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = RelationLayer(64, 1, 32, 0.1, "0"), nn.TransformerEncoderLayer(64, 1, 32)
    for own, other in [
        (ours.query_key_value.weight, theirs.self_attn.in_proj_weight),
        (ours.out.weight, theirs.self_attn.out_proj.weight),
        (ours.feedforward[0].weight, theirs.linear1.weight),
        (ours.feedforward[3].weight, theirs.linear2.weight),
    ]:
        assert own.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.01)
        assert own.std().item() == pytest.approx(other.std().item(), rel=0.05)
    assert not ours.query_key_value.bias.any() and not ours.out.bias.any()


@pytest.mark.parametrize("relation", RELATIONS)
def test_shapes_and_logits(relation):
    heads = small(relation).eval()
    embeddings = heads.embed(features())
    assert embeddings.shape == (3, 6, heads.width)
    found = heads(features())
    assert [z.shape for z in found] == [(6, 4), (6, 2), (6, 3)]
    for k, z in enumerate(found):
        torch.testing.assert_close(z, embeddings[k] @ heads.prototypes[k].weight.T)


@pytest.mark.parametrize("relation", RELATIONS)
def test_cases_do_not_see_one_another(relation):
    heads = small(relation).eval()
    x = features()
    other = x.clone()
    other[2] += 1
    changed = (heads.embed(other) != heads.embed(x)).any(2)
    assert changed[:, 2].all() and not changed[:, [0, 1, 3, 4, 5]].any()


@pytest.mark.parametrize("relation", ATTENTIVE)
def test_labels_see_one_another_whatever_their_order(relation):
    layers = small(relation).eval().relation
    tokens = features(6).repeat(1, 3)[:, :24].unflatten(1, (3, 8))
    order = [2, 0, 1]
    torch.testing.assert_close(layers(tokens[:, order]), layers(tokens)[:, order], rtol=0, atol=1e-12)
    changed = tokens.clone()
    changed[:, 1] += 1
    assert not torch.allclose(layers(changed)[:, 0], layers(tokens)[:, 0], atol=0.01)


def trained(relation: str, only: str) -> dict[str, torch.Tensor]:
    """Embeddings and gradients of the global batch with dropout, of all places or of one alone."""
    heads = small(relation, dropout=0.3)
    for name, module in heads.named_modules():
        if isinstance(module, GlobalDropout):
            module.step, module.p = 5, 0.3 if name.endswith(only) else 0.0
    x = heads.embed(features(8)[world.mine(8)])
    (x.square() * torch.arange(1.0, 9)[world.mine(8), None]).sum().backward()
    gradients = {n: world.reduce_sum(p.grad) for n, p in heads.named_parameters() if p.grad is not None}
    return {"embedding": world.gather(x.transpose(0, 1)), **gradients}


@pytest.mark.parametrize("relation, only", [("te", ""), ("tel", "drop_weights"), ("msa", "")])
def test_dropout_on_any_number_of_processes(relation, only, two: Group, four: Group):
    one = trained(relation, only)
    assert not torch.allclose(one["embedding"], small(relation).eval().embed(features(8)).transpose(0, 1))
    for part in [*two(trained, relation, only), *four(trained, relation, only)]:
        assert part.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(part[name], value, rtol=1e-10, atol=1e-12)


def test_no_two_places_drop_alike():
    heads = LabelHeads(10, SM3, "te", 16, feedforward=16, dropout=0.5)
    places = [m for m in heads.modules() if isinstance(m, GlobalDropout)]
    masks = [m(torch.ones(64, 8, 16)) for m in places]
    assert len(places) == 8 and len({m.numpy().tobytes() for m in masks}) == 8
    other = LabelHeads(10, SM3, "te", 16, feedforward=16, dropout=0.5, seed=1)
    seeds = {m.seed for h in (heads, other) for m in h.modules() if isinstance(m, GlobalDropout)}
    assert len(seeds) == 16


def test_every_place_of_torch_is_dropped():
    """With everything dropped, what is left is what torch leaves."""
    layer = small("tel").relation[0]
    other = torch_layer(layer, 8).train()
    for m in (*layer.modules(), *other.modules()):
        if isinstance(m, GlobalDropout | nn.Dropout):
            m.p = 1 - 1e-12
    other.self_attn.dropout = 1 - 1e-12
    x = features(6)[:, :8].unsqueeze(1).repeat(1, 3, 1)
    torch.testing.assert_close(layer(x), other(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("relation", RELATIONS)
def test_heads_are_handed_on(relation):
    heads = small(relation).float()
    kept = heads.part()
    config, state = json.loads(json.dumps(kept.config)), load(save(kept.state))
    before = [z.clone() for z in heads.eval()(features().float())]
    with torch.no_grad():
        for p in heads.parameters():
            p.zero_()  # what was handed on is a copy
    again = label_heads(Part(config, state)).eval()
    assert all(torch.equal(a, b) for a, b in zip(again(features().float()), before, strict=True))
    assert again.config == heads.config
