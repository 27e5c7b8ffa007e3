"""Encoders of metadata: a token for each column, a transformer over them, one vector for a row. (TRACE; see slimp)

A column is told as a mapping: name, kind (number | word), vocabulary, mean, spread. Values come standardised, words as
places in their vocabulary, and beside them what is known; nothing is read out of a value being zero.

column  numbers: a vector times the value, plus another, for each column
trace   numbers: all of them together through two linear layers, cut into tokens
words   a vector for each word of each column, in both

A value that is not known has a token of its column's own (`missing: token`), or one of zeros (`zero`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dermsearch.models.artifact import Part

FAR = 5.0  # spreads: what lies further from the mean is taken for that
Told = Mapping[str, Any]  # a column


class ColumnNumbers(nn.Module):
    """(b, n) -> (b, n, width), each column by itself."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(count, width))
        self.bias = nn.Parameter(drawn(count, width))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., None] * self.weight + self.bias


class TraceNumbers(nn.Module):
    """(b, n) -> (b, n, width), all columns together."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.mix, self.cut = nn.Linear(count, width), nn.Linear(width, count * width)
        for layer in (self.mix, self.cut):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(F.selu(self.mix(x))).unflatten(1, (x.shape[1], -1))


NUMBERS = {"column": ColumnNumbers, "trace": TraceNumbers}


class TableBlock(nn.Module):
    """A transformer layer over tokens, its norms behind each half."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({"in": nn.Linear(width, 3 * width), "out": nn.Linear(width, width)})
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attention["in"](x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
        seen = self.attention["out"]((weights @ value).transpose(1, 2).flatten(2))
        x = self.norm(x + seen)
        return self.last_norm(x + self.mlp(x))


class TableEncoder(nn.Module):
    """A row of metadata -> a vector. `blocks` are its attention layers, all else its embedding layers."""

    def __init__(
        self,
        columns: Sequence[Told],
        width: int = 128,
        layers: int = 1,
        heads: int = 2,
        tokens: str = "column",
        missing: str = "token",
        readout: str = "mean",
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "columns": [{**c, "vocabulary": list(c["vocabulary"])} for c in columns], "width": width, "layers": layers,
            "heads": heads, "tokens": tokens, "missing": missing, "readout": readout,
        }  # fmt: skip
        number, word = ([j for j, c in enumerate(columns) if (c["kind"] == "word") == of] for of in (False, True))
        self.first = self.places(columns)
        self.number: Tensor
        self.word: Tensor
        self.begins: Tensor
        for name, places in (("number", number), ("word", word), ("begins", self.first)):  # lie where the weights do
            self.register_buffer(name, torch.tensor(places, dtype=torch.long), persistent=False)
        self.numbers = NUMBERS[tokens](len(number), width) if number else None
        # A column that no training case tells has no word; a place for one keeps the table whole.
        words = sum(max(1, len(columns[j]["vocabulary"])) for j in word)
        self.words = nn.Parameter(drawn(words, width)) if words else None
        self.unknown = nn.Parameter(drawn(len(columns), width)) if missing == "token" else None  # numbers, then words
        self.cls = nn.Parameter(drawn(1, width))
        self.blocks = nn.Sequential(*(TableBlock(width, heads) for _ in range(layers)))
        self.mean = readout == "mean"

    @staticmethod
    def places(columns: Sequence[Told]) -> list[int]:
        """Where the words of each column of words begin among all."""
        sizes = [max(1, len(c["vocabulary"])) for c in columns if c["kind"] == "word"]
        return [0, *np.cumsum(sizes).tolist()][: len(sizes)]

    def no_weight_decay(self) -> set[str]:
        """What is no weight of a layer."""
        return {"cls", "unknown", "words", "numbers.weight", "numbers.bias"}

    def tokens(self, values: Tensor, known: Tensor) -> Tensor:
        """(b, columns) values, and which are known -> (b, columns, width): numbers, then words."""
        values = values.to(self.cls.dtype)
        parts = []
        if self.numbers is not None:
            told = known[:, self.number]
            parts.append(self.numbers(values[:, self.number].clamp(-FAR, FAR).where(told, 0)))
        if self.words is not None:
            places = values[:, self.word].long() + self.begins
            parts.append(self.words[places])
        known = known[:, torch.cat([self.number, self.word]), None]
        return torch.where(known, torch.cat(parts, 1), 0.0 if self.unknown is None else self.unknown)

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        tokens = self.tokens(values, known)
        x = self.blocks(torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], 1))
        return x[:, 1:].mean(1) if self.mean else x[:, 0]

    @torch.no_grad()
    def outputs(self, values: np.ndarray, known: np.ndarray, device: torch.device, batch: int = 4096) -> np.ndarray:
        """(n, width) of so many rows, in evaluation mode."""
        self.to(device).eval()
        rows = [torch.from_numpy(each).to(device).split(batch) for each in (values, known)]
        return torch.cat([self(v, k).float().cpu() for v, k in zip(*rows, strict=True)]).numpy()

    @torch.no_grad()
    def take_over(self, config: Told, state: Mapping[str, Tensor]) -> bool:
        """Begin as another encoder left off: blocks, and the tokens of columns of the same name and kind.

        Its numbers may have been scaled by other cases: a value that meant the same has the same token. The joint
        layers of `trace` can be taken over only where all numbers are the same. False where blocks have other shapes.
        """
        shape = ("width", "layers", "heads", "readout")
        if any(config[name] != self.config[name] for name in shape):
            return False
        same = {n: v for n, v in state.items() if n == "cls" or n.startswith("blocks.")}
        self.load_state_dict(same, strict=False)
        theirs, ours = config["columns"], self.config["columns"]
        alike = config["tokens"] == self.config["tokens"]
        if self.config["tokens"] == "trace" and alike and numbers_of(theirs) == numbers_of(ours):
            self.load_state_dict({n: v for n, v in state.items() if n.startswith("numbers.")}, strict=False)
        order = {c["name"]: i for i, c in enumerate(ordered(theirs))}
        first = dict(zip([c["name"] for c in theirs if c["kind"] == "word"], self.places(theirs), strict=True))
        kinds = {c["name"]: c for c in theirs}
        for at, c in enumerate(ordered(ours)):
            old = kinds.get(c["name"])
            if old is None or old["kind"] != c["kind"]:
                continue
            if self.unknown is not None and "unknown" in state:
                self.unknown[at] = state["unknown"][order[c["name"]]]
            if c["kind"] == "word" and self.words is not None:
                begins = self.first[at - len(self.number)]
                for i, word in enumerate(c["vocabulary"]):
                    if word in old["vocabulary"]:
                        self.words[begins + i] = state["words"][first[c["name"]] + list(old["vocabulary"]).index(word)]
            elif isinstance(self.numbers, ColumnNumbers) and alike:
                weight, bias = (state[f"numbers.{n}"][order[c["name"]]] for n in ("weight", "bias"))
                scale, shift = c["spread"] / old["spread"], (c["mean"] - old["mean"]) / old["spread"]
                self.numbers.weight[at], self.numbers.bias[at] = weight * scale, bias + weight * shift
        return True


def ordered(columns: Sequence[Told]) -> list[Told]:
    """Numbers first, as tokens stand."""
    return [c for c in columns if c["kind"] != "word"] + [c for c in columns if c["kind"] == "word"]


def numbers_of(columns: Sequence[Told]) -> list[tuple[Any, ...]]:
    """What has to be the same for layers over all numbers together."""
    return [(c["name"], c["mean"], c["spread"]) for c in columns if c["kind"] != "word"]


def drawn(rows: int, width: int) -> Tensor:
    """Tokens to begin with: even, of a length that does not depend on their width."""
    return torch.empty(rows, width).uniform_(-(width**-0.5), width**-0.5)


def table_encoder(part: Part, level: str) -> TableEncoder:
    """An encoder of metadata that a stage handed on, on the CPU."""
    made, prefix = TableEncoder(**part.config["levels"][level]), f"levels.{level}."
    made.load_state_dict({n.removeprefix(prefix): v for n, v in part.state.items() if n.startswith(prefix)})
    return made
