"""Encoders of metadata: known tokens, what is missing, and columns that another stage goes on with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dermsearch.models.tables import TableEncoder

AGE: dict[str, Any] = {"name": "age", "kind": "number", "vocabulary": (), "mean": 50.0, "spread": 10.0}
SIZE: dict[str, Any] = {"name": "size", "kind": "number", "vocabulary": (), "mean": 4.0, "spread": 2.0}
SITE: dict[str, Any] = {"name": "site", "kind": "word", "vocabulary": ("arm", "back"), "mean": 0.0, "spread": 1.0}
SEX: dict[str, Any] = {"name": "sex", "kind": "word", "vocabulary": ("f", "m"), "mean": 0.0, "spread": 1.0}


def encoder(*columns: dict[str, Any], seed: int = 0, **given: Any) -> TableEncoder:
    torch.manual_seed(seed)
    return TableEncoder(columns, **{"width": 8, **given}).double()


def rows(*values: tuple[float | None, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    known = torch.tensor([[x is not None for x in row] for row in values])
    return torch.tensor([[0.0 if x is None else x for x in row] for row in values]), known


def put(parameter: torch.Tensor, values: list) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("row, expected", [
    ((0.5, -1.0), ((0.6, -0.3), (-0.2, -1.6))),
    ((2.0, None), ((2.1, -1.8), (-1.0, 1.0))),
    ((None, None), ((9.0, 9.0), (-1.0, 1.0))),
])  # fmt: skip
def test_known_tokens_column_by_column(row, expected) -> None:
    made = encoder(AGE, SIZE, width=2)
    put(made.numbers.weight, [[1, -1], [0.5, 2]])
    put(made.numbers.bias, [[0.1, 0.2], [0.3, 0.4]])
    put(made.unknown, [[9, 9], [-1, 1]])
    np.testing.assert_allclose(made.tokens(*rows(row))[0].detach(), expected, atol=1e-6)


@pytest.mark.parametrize("row, hidden, bare, expected", [
    ((0.5, -1.0), (-0.244889, -0.637086), ((0.296098, -0.339037), (0.055111, 0.007804)),
     ((0.296098, -0.339037), (0.055111, 0.007804))),
    ((2.0, None), (0.210140, -0.691758), ((0.550949, -0.266284), (0.510140, -0.501898)),
     ((0.550949, -0.266284), (0.0, 0.0))),
])  # fmt: skip
def test_known_tokens_of_trace(row, hidden, bare, expected) -> None:
    """What the first layer gives, the second, and what is left of it where a value is missing."""
    made = encoder(AGE, SIZE, width=2, tokens="trace", missing="zero")
    put(made.numbers.mix.weight, [[0.1, 0.2], [-0.3, 0.4]])
    put(made.numbers.mix.bias, [0, 0.1])
    put(made.numbers.cut.weight, [[0.5, -0.5], [0.25, 0.75], [1, 0], [-1, 1]])
    put(made.numbers.cut.bias, [0.1, 0.2, 0.3, 0.4])
    inside: list[torch.Tensor] = []
    made.numbers.cut.register_forward_hook(lambda module, x, y: inside.extend((*x, y)))
    np.testing.assert_allclose(made.tokens(*rows(row))[0].detach(), expected, atol=1e-6)
    np.testing.assert_allclose(inside[0][0].detach(), hidden, atol=1e-6)
    np.testing.assert_allclose(inside[1][0].detach().reshape(2, 2), bare, atol=1e-6)


def test_words_have_places_of_their_own_and_order_is_that_of_the_names() -> None:
    made = encoder(SEX, AGE, SITE)
    tokens = made.tokens(*rows((1.0, 0.3, 0.0), (0.0, 0.3, 1.0)))  # a number first, then sex and site
    words = made.words
    assert torch.equal(tokens[:, 1:], torch.stack([words[[1, 2]], words[[0, 3]]]))
    far = made.tokens(*rows((1.0, 80.0, 0.0), (1.0, 5.0, 0.0)))
    assert torch.equal(far[0], far[1])  # five spreads are the furthest


@pytest.mark.parametrize("tokens", ["column", "trace"])
@pytest.mark.parametrize("missing", ["token", "zero"])
@pytest.mark.parametrize("readout", ["mean", "cls"])
def test_what_is_missing_is_told_by_the_mask_alone(tokens: str, missing: str, readout: str) -> None:
    made = encoder(AGE, SITE, SIZE, tokens=tokens, missing=missing, readout=readout)
    for p in made.numbers.parameters():  # the joint layers begin with the token of zeros for a mean
        nn.init.normal_(p)
    values, known = rows((0.0, 1.0, 0.5), (None, 1.0, 0.5), (3.0, 1.0, 0.5))
    known[2, 0] = False
    found = made(values, known)
    torch.testing.assert_close(found[1], found[2])  # whatever number stands there
    assert not torch.allclose(found[0], found[1])  # a mean is not a hole
    found.sum().backward()
    assert all(p.grad is not None for p in made.parameters())
    assert made.config["readout"] == readout and found.shape == (3, 8)


def test_a_post_norm_layer_of_torch_is_the_same() -> None:
    made = encoder(AGE, SITE)
    block, theirs = made.blocks[0], nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True).double()
    theirs.self_attn.in_proj_weight.data = block.attention["in"].weight.data
    theirs.self_attn.in_proj_bias.data = block.attention["in"].bias.data
    for ours, layer in (
        (block.attention["out"], theirs.self_attn.out_proj), (block.mlp[0], theirs.linear1),
        (block.mlp[2], theirs.linear2), (block.norm, theirs.norm1), (block.last_norm, theirs.norm2),
    ):  # fmt: skip
        layer.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(block(x), theirs(x))


OTHER_AGE = {**AGE, "mean": 40.0, "spread": 20.0}
OTHER_SITE = {**SITE, "vocabulary": ("back", "foot")}


@pytest.mark.parametrize("tokens", ["column", "trace"])
def test_the_same_columns_go_on_to_the_bit(tokens: str) -> None:
    before, after = encoder(AGE, SITE, tokens=tokens), encoder(AGE, SITE, seed=1, tokens=tokens)
    assert after.take_over(before.config, before.state_dict())
    assert all(torch.equal(v, after.state_dict()[n]) for n, v in before.state_dict().items())


def test_columns_go_on_by_name_and_kind_and_mean_the_same() -> None:
    before, after = encoder(SEX, AGE, SITE), encoder(OTHER_SITE, SIZE, OTHER_AGE, seed=1)
    fresh = {n: v.clone() for n, v in after.state_dict().items()}
    assert after.take_over(before.config, before.state_dict())
    old = before.tokens(*rows((0.0, 3.0, 1.0), (0.0, None, None)))  # age, sex, site: 80 years, back
    new = after.tokens(*rows((0.0, 0.0, 2.0), (None, 0.0, None)))  # size, age, site: 80 years, back
    torch.testing.assert_close(new[:, 1], old[:, 0])
    torch.testing.assert_close(new[:, 2], old[:, 2])
    assert torch.equal(after.words[1], fresh["words"][1])  # nobody saw a foot before
    assert torch.equal(after.numbers.weight[0], fresh["numbers.weight"][0])  # nor a size
    assert torch.equal(after.cls, before.cls)
    assert all(torch.equal(v, before.state_dict()[n]) for n, v in after.state_dict().items() if "blocks" in n)


def test_what_cannot_go_on_begins_anew() -> None:
    number = {**AGE, "name": "site"}
    before, after = encoder(number, AGE), encoder(SITE, AGE, seed=1)
    words, unknown = after.words.clone(), after.unknown.clone()
    assert after.take_over(before.config, before.state_dict()) and torch.equal(after.words, words)
    assert torch.equal(after.unknown[1], unknown[1]) and not torch.equal(after.unknown[0], unknown[0])  # age goes on
    wider = encoder(AGE, width=16)
    assert not wider.take_over(before.config, before.state_dict())
    mixed = encoder(OTHER_AGE, seed=1, tokens="trace")
    cut = mixed.numbers.cut.weight.clone()
    assert mixed.take_over(encoder(AGE, tokens="trace").config, encoder(AGE, tokens="trace").state_dict())
    assert torch.equal(mixed.numbers.cut.weight, cut)  # joint layers saw numbers of another scale
