"""What features a probe sees: of the image, of the tables beside it, or of the tables alone.

image   the encoders' features u, as they are
tokens  of a ViT the class tokens of its last four blocks, side by side; of any other network u
lesion  u and the lesion's table, by the encoder of it that the stage hands on
full    u, the lesion's table and the patient's
table   the columns alone: a control for what metadata tell without any image
mask    only which of the columns are known: a control for holes that tell the class

Where no encoder of a table is handed on, its columns stand there themselves: numbers standardised, a place for each
word, and what is known. A patient's table is made of his cases in the same split; a case without a known patient is
his only one. Each block is standardised by the training cases before blocks are joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from dermsearch.data.case import Level
from dermsearch.data.store.columns import Table, of_patients, onto
from dermsearch.data.store.pool import one_by_one
from dermsearch.data.views.augment import plain
from dermsearch.errors import UserError
from dermsearch.evaluate.base import Features, Given, Images
from dermsearch.models.artifact import TABLES, Artifact

Kind = Literal["image", "tokens", "lesion", "full", "table", "mask"]
BLOCKS = 4  # the last ones of a ViT, as DINO is judged
LEVELS: dict[Kind, tuple[Level, ...]] = {"lesion": ("lesion",), "full": ("lesion", "patient")}
# In no key as long as it is the image's: judgements that were made before there were others stay what they are.
WHICH: Any = Field(
    "image", exclude_if=lambda kind: kind == "image", description="image, tokens, lesion, full; as controls table, mask"
)


def features_of(given: Given, kind: Kind) -> Features:
    """The features of that kind, each block in columns of its own."""
    features, images = given.features, given.images
    if kind == "image":
        return features
    if kind == "tokens":
        return with_tokens(features, images)
    if images is None or not images.metadata:
        raise UserError(f"features: '{kind}' reads metadata, and data.metadata names no columns")
    sides = {"train": features.train, "heldout": features.heldout}
    rows = {"train": images.train, "heldout": images.heldout}
    blocks: dict[str, dict[str, np.ndarray]] = {}
    if kind in ("table", "mask"):
        tables = {side: images.cases.table(images.metadata, r) for side, r in rows.items()}
        blocks[kind] = {side: plainly(t) if kind == "table" else t.known for side, t in tables.items()}
    else:
        blocks = {"image": sides}
        for level in LEVELS[kind]:
            blocks[level] = {side: block(given.artifact, images, level, r) for side, r in rows.items()}
    scaled = [scale(block["train"], block["heldout"]) for block in blocks.values()]
    columns, at = dict(features.columns) if kind in LEVELS else {}, 0
    for name, (train, _) in zip(blocks, scaled, strict=True):
        if name != "image":
            columns[name] = slice(at, at + train.shape[1])
        at += train.shape[1]
    joined = (np.concatenate(side, axis=1).astype(np.float32) for side in zip(*scaled, strict=True))
    train, heldout = joined
    return replace(features, train=train, heldout=heldout, columns=columns)


@torch.no_grad()
def with_tokens(features: Features, images: Images | None) -> Features:
    """The same cases by the class tokens of the last blocks, where the encoders have such; they are extracted anew."""
    network: Any = None if images is None else next(iter(images.encoders.backbones.values()))
    if images is None or not (isinstance(network, VisionTransformer) and network.has_class_token):
        return features
    sides, wide = [], last_of(network) * network.embed_dim
    for rows in (images.train, images.heldout):
        columns = [torch.cat([*tokens(images, modality, rows)]) for modality in features.columns]
        sides.append(torch.cat(columns, 1).cpu().numpy())
    places = {m: slice(at * wide, (at + 1) * wide) for at, m in enumerate(features.columns)}
    return replace(features, train=sides[0], heldout=sides[1], columns=places)


def last_of(network: Any) -> int:
    """How many blocks are looked at: all of a network that has fewer."""
    return min(BLOCKS, len(network.blocks))


def tokens(images: Images, modality: str, rows: np.ndarray, batch: int = 256) -> Iterator[Tensor]:
    """(b, blocks x width) for so many rows after the other, each block's token as the last norm leaves it."""
    network: Any = images.encoders.eval().backbones[images.encoders.branch_of(modality)]
    for x in one_by_one(images.cases, modality, rows, images.look, images.device, batch):
        with images.cast():
            found = network.forward_intermediates(
                plain(x, images.look.size),
                last_of(network),
                return_prefix_tokens=True,
                norm=True,
                intermediates_only=True,
            )
        yield torch.cat([prefix[:, 0] for _, prefix in found], 1).float()


def block(artifact: Artifact, images: Images, level: Level, rows: np.ndarray) -> np.ndarray:
    """(rows, width) of one level: what the handed-on encoder makes of the table, or the table itself."""
    own = tuple(name for name in images.metadata if images.cases.columns[name].level == level)
    part = artifact.get(TABLES)
    if part is None or level not in part.config["levels"]:
        return plainly(table_of(images, level, own, rows))
    from dermsearch.data.case import column_of
    from dermsearch.models.tables import table_encoder

    columns = tuple(map(column_of, part.config["levels"][level]["columns"]))
    table = onto(table_of(images, level, images.metadata, rows), columns)
    return table_encoder(part, level).outputs(table.values, table.known, images.device)


def table_of(images: Images, level: Level, names: tuple[str, ...], rows: np.ndarray) -> Table:
    """Of lesions their own rows, of patients what these rows tell of them, one for each case."""
    table = images.cases.table(names, rows)
    if level == "lesion":
        return table
    who = images.cases.patients()[rows]
    who = np.where(who < 0, who.max(initial=0) + 1 + np.arange(len(who)), who)
    patients, told = of_patients(table, who)
    place = np.searchsorted(patients, who)
    return Table(told.columns, told.values[place], told.known[place])


def plainly(table: Table) -> np.ndarray:
    """Columns as a probe reads them: numbers, a place for each word, and what is known."""
    parts: list[Any] = [table.known]
    for j, column in enumerate(table.columns):
        value, told = table.values[:, j], table.known[:, j]
        if column.kind == "word":
            parts.append((value[:, None] == np.arange(len(column.vocabulary))) & told[:, None])
        else:
            parts.append((value * told)[:, None])
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


def scale(train: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised by the training cases; what is the same in all of them is 0."""
    train, heldout = train.astype(np.float64), heldout.astype(np.float64)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread < 1e-8, np.inf, spread)
    return (train - mean) / spread, (heldout - mean) / spread
