"""Heads for several labels of one case: an embedding for each label, how these see one another, and prototypes.

`relation` says what stands between a case's features and a label's prototypes:

    no_proj  nothing: every label has the features themselves;
    proj     a linear projector for each label;
    msa      projectors, then self-attention among the labels' embeddings, added to them, and a LayerNorm;
    tel      projectors, then one Transformer encoder layer (post-norm, ReLU);
    te       projectors, then `depth` of those.

There is no positional encoding: a label is known by its projector alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from torch import Tensor, nn

from dermsearch.models.artifact import Part
from dermsearch.models.heads import GlobalDropout

RELATIONS = ("no_proj", "proj", "msa", "tel", "te")
ATTENTIVE = ("msa", "tel", "te")


class LabelHeads(nn.Module):
    """Features of a case -> an embedding and logits for each label."""

    def __init__(
        self,
        dim: int,
        classes: Sequence[int],
        relation: str,
        width: int = 512,
        attention_heads: int = 1,
        feedforward: int = 128,
        dropout: float = 0.1,
        depth: int = 2,
        seed: int = 0,
    ) -> None:
        """`classes` of each label. `no_proj` has the width of the features, whatever `width` says."""
        super().__init__()
        self.config = {
            "dim": dim, "classes": [int(c) for c in classes], "relation": relation, "width": width,
            "attention_heads": attention_heads, "feedforward": feedforward, "dropout": dropout, "depth": depth,
            "seed": seed,
        }  # fmt: skip
        self.labels = len(classes)
        self.width = dim if relation == "no_proj" else width
        # All labels' projectors as one matrix.
        self.projectors = None if relation == "no_proj" else nn.Linear(dim, self.labels * width)
        layers = {"no_proj": 0, "proj": 0, "msa": 1, "tel": 1, "te": depth}[relation]
        hidden = 0 if relation == "msa" else feedforward
        self.relation = nn.Sequential(
            *(RelationLayer(width, attention_heads, hidden, dropout, f"{seed}/{i}") for i in range(layers))
        )
        self.prototypes = nn.ModuleList(nn.Linear(self.width, c, bias=False) for c in classes)

    def embed(self, features: Tensor) -> Tensor:
        """(b, dim) -> (labels, b, width), as the relation leaves them."""
        if self.projectors is None:
            return features.expand(self.labels, -1, -1)
        tokens = self.projectors(features).unflatten(1, (self.labels, self.width))
        return self.relation(tokens).transpose(0, 1)

    def logits(self, embeddings: Tensor) -> list[Tensor]:
        """(labels, b, width) -> (b, classes) of each label."""
        return [prototype(rows) for prototype, rows in zip(self.prototypes, embeddings, strict=True)]

    def forward(self, features: Tensor) -> list[Tensor]:
        return self.logits(self.embed(features))

    def part(self) -> Part:
        """These heads as they are now, to be handed on."""
        return Part.of(self, self.config)


def label_heads(part: Part) -> LabelHeads:
    """The heads that a stage handed on, on the CPU."""
    made = LabelHeads(**part.config)
    part.fill(made)
    return made


class RelationLayer(nn.Module):
    """torch's TransformerEncoderLayer (post-norm, ReLU), or the half up to its first norm where `hidden` is 0.

    Its own numbered dropouts, those of the attention weights too, have the cases as rows: (b, labels, width).
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, seed: str) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.query_key_value.weight)  # the three together, as torch has it
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.out.bias)
        self.norm = nn.LayerNorm(width)

        def drop(place: str) -> GlobalDropout:
            # Another seed for every place: alike ones would drop alike.
            return GlobalDropout(dropout, zlib.crc32(f"{seed}/{place}".encode()))

        self.drop_weights, self.drop_attention = drop("weights"), drop("attention")
        self.feedforward = (
            nn.Sequential(
                nn.Linear(width, hidden), nn.ReLU(), drop("hidden"), nn.Linear(hidden, width), drop("feedforward")
            )
            if hidden
            else None
        )
        self.last_norm = nn.LayerNorm(width) if hidden else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.drop_attention(self.attend(x)))
        if self.feedforward is None or self.last_norm is None:
            return x
        return self.last_norm(x + self.feedforward(x))

    def attend(self, x: Tensor) -> Tensor:
        """Every label's embedding looks at all labels' of its case."""
        query, key, value = self.query_key_value(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)  # (b, heads, labels, labels)
        return self.out((self.drop_weights(weights) @ value).transpose(1, 2).flatten(2))
