"""Where a classifier looks: the share of its attention that lies inside the masks of held-out images.

Head        a linear probe on frozen features, or encoder and head fine-tuned; it says a class of every label
Attention   ail: share of the predicted class's activation map inside the mask; hit: is its peak inside?
Even        area: the masks' mean area, which a map without any attention scores; ail_ratio and lift: ail against it
Occlusion   patches are hidden one by one, under the image's mean: the share of what the class loses inside the mask
Whose       all images with a mask; occlusion of `images` of them. By predicted class and in all, with intervals

The map alone does not tell who reads a letter in the corner from who reads lungs; occlusion does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MASK
from dermsearch.data.store.pool import Look, pictures
from dermsearch.data.views.augment import plain
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError
from dermsearch.evaluate import inside, strength
from dermsearch.evaluate.base import Given, Images
from dermsearch.evaluate.found import mean
from dermsearch.evaluate.linear import Regression
from dermsearch.evaluate.tuned import LinearHead, probe, tune
from dermsearch.metrics import MEAN_LABEL, Measurement, case_weights
from dermsearch.models.attention import activations, attention, finer, map_sides
from dermsearch.models.encoders import Encoders
from dermsearch.nature import Nature

SMALLEST = 6  # side of a map: of fewer places a share says nothing
BATCH = 64
OF_IMAGES = ("ail", "area", "hit", "zero_maps", "occlusion", "occlusion_abs")
METRICS = ("ail", "ail_ratio", "lift", "hit", "occlusion", "occlusion_abs")


class AttentionConfig(Regression):
    """Settings of `attention`. `c` and `balanced` are of the linear head."""

    head: Literal["linear", "finetune"] = Field("linear", description="a probe on frozen features, or all is tuned")
    stride: Literal[8, 16] | None = Field(None, description="of the map: a network with a finer one, of equal weights")
    size: int | None = Field(None, ge=32, le=1024, description="side that images are seen at; null: the study's")
    probes: int = Field(8, ge=2, le=32, description="patches to a side that are hidden one by one; more cost more")
    images: int = Field(200, ge=0, le=1_000_000, description="held-out images whose patches are hidden")
    epochs: int = Field(10, ge=1, le=10_000, description="head: finetune")
    lr: float = Field(1e-3, gt=0, le=10, description="head: finetune, of AdamW")
    batch: int = Field(32, ge=2, le=100_000, description="head: finetune")


class Attention:
    """Attention of a fitted classifier inside masks. What is predicted is all that it asks of a held-out label."""

    name = "attention"
    version = 1
    nature = Nature(frozenset({"features", "images", "masks"}), METRICS)
    Config = AttentionConfig

    @staticmethod
    def passes(config: AttentionConfig, train: int, heldout: int, size: int) -> float:
        """Images forward and backward, through the map's network, that it takes; a look at one is a third of that."""
        tuned = config.epochs * train if config.head == "finetune" else train / 3
        hidden = min(config.images, heldout) * config.probes**2 / 3
        return (tuned + heldout + hidden) * ((config.size or size) / size) ** 2

    @staticmethod
    def sees(config: AttentionConfig, encoder: str, size: int) -> None:
        """Refuse, before anything is trained, a backbone whose map is too coarse."""
        side = config.size or size
        net: nn.Module = Encoders.empty(encoder, ("any",), "shared").backbones["shared"]
        with torch.device("meta"):
            net = net.to("meta") if config.stride is None else finer(net.to("meta"), encoder, config.stride)
        check_map(encoder, side, *map_sides(net, side))

    def measure(self, given: Given, config: AttentionConfig, seed: int) -> Iterator[tuple[str, Measurement]]:
        """Every share of every label, by predicted class and in all, and the mean over labels."""
        images, features = given.images, given.features
        if images is None:
            raise UserError("attention: needs the images that are judged")
        modality = next(iter(features.columns), images.encoders.modalities[0])
        there = images.cases.has(modality) & (images.cases.has(MASK) if images.cases.about["masks"] else False)
        has = there[images.heldout]
        if not has.any():
            raise UserError(
                f"attention: no {features.split} image of {images.cases.folder} has a mask; "
                "`dermsearch data prepare --masks FOLDER` puts masks beside a data set"
            )
        rows, groups = images.heldout[has], features.heldout_groups[has]
        seen = Gaze(images, modality, config)
        seen.check()
        heads = seen.heads(features.classes, features.train_labels, features.whose, seed)
        for each in measures(seen.shares(rows, heads), features.classes, groups):
            yield features.split, each


class Gaze:
    """A backbone as it looks at the images of one modality."""

    def __init__(self, images: Images, modality: str, config: AttentionConfig) -> None:
        self.images, self.modality, self.config = images, modality, config
        encoders = images.encoders
        net = encoders.backbones[encoders.branch_of(modality)]
        self.net: nn.Module = net.eval() if config.stride is None else finer(net, encoders.name, config.stride)
        self.look = Look(config.size or images.look.size, images.look.border, images.look.statistics)

    def pixels(self, rows: np.ndarray) -> Tensor:
        """(n, 3, size, size), as the study normalises them."""
        found = pictures(self.images.cases, self.modality, rows, self.look, self.images.device)
        return plain(found, self.look.size)

    def check(self) -> None:
        """Refuse a map that is too coarse for a share inside a mask to mean anything."""
        with torch.no_grad():
            h, w = activations(self.net, self.pixels(self.images.heldout[:2])).grid.shape[2:]
        check_map(self.images.encoders.name, self.look.size, h, w)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) of images."""
        with torch.no_grad(), self.images.cast():
            parts = [self.net(self.pixels(rows[at : at + BATCH])).float().cpu() for at in range(0, len(rows), BATCH)]
        return torch.cat(parts).numpy()

    def heads(
        self,
        classes: Mapping[str, tuple[str, ...]],
        truth: Mapping[str, np.ndarray],
        groups: np.ndarray,
        seed: int,
    ) -> dict[str, LinearHead]:
        """A linear head for every label, fitted on the training cases; tuned, the backbone is another."""
        train, config = self.images.train, self.config
        if config.head == "finetune":
            self.net, heads = tune(self.net, lambda at: self.pixels(train[at]), truth, classes, config, seed)
            return heads
        x = self.features(train)
        c = config.c or strength.choose(x, [truth[label] for label in classes], groups, config.balanced)
        return {label: probe(x, truth[label], len(names), c, config) for label, names in classes.items()}

    def shares(self, rows: np.ndarray, heads: Mapping[str, LinearHead]) -> dict[str, dict[str, np.ndarray]]:
        """By label what is measured of each image (n,), NaN where it is not; `predicted` is its class."""
        found: dict[str, list[dict[str, np.ndarray]]] = {label: [] for label in heads}
        hidden = np.zeros(len(rows), bool)
        hidden[np.unique(np.linspace(0, len(rows) - 1, min(self.config.images, len(rows))).round().astype(int))] = True
        for at in range(0, len(rows), BATCH):
            these, probed = rows[at : at + BATCH], hidden[at : at + BATCH]
            pixels = self.pixels(these)
            inner = masks_of(self.images.cases, these, self.look)
            seen = activations(self.net, pixels)
            if not torch.isfinite(seen.features).all():
                raise UserError("attention: features are not finite: the weights are not, or overflow")
            lost = self.hide(pixels[torch.from_numpy(probed)]) if probed.any() else None
            parts = inside.patches(self.look.size, self.config.probes)
            covered = inside.share_of_patches(inner[probed], parts)
            for label, head in heads.items():
                classes, asked = head.says(seen.features)
                amount = attention(seen.towards(asked), self.look.size).double().cpu().numpy()
                told = {
                    "predicted": classes.cpu().numpy(),
                    "ail": inside.inside(amount, inner),
                    "area": inner.mean((1, 2)),
                    "hit": inside.peak_inside(amount, inner),
                    "zero_maps": inside.none_at_all(amount),
                    **{name: np.full(len(these), np.nan) for name in ("occlusion", "occlusion_abs")},
                }
                if lost is not None:
                    on = torch.from_numpy(probed).to(asked.device)
                    drop = torch.einsum("nd,npd->np", asked[on], seen.features[on, None] - lost).double()
                    cost = drop.detach().cpu().numpy()
                    told["occlusion"][probed] = inside.inside(np.maximum(cost, 0), covered)
                    told["occlusion_abs"][probed] = inside.inside(np.abs(cost), covered)
                found[label].append(told)
        return {label: {k: np.concatenate([t[k] for t in told]) for k in told[0]} for label, told in found.items()}

    def maps(self, rows: np.ndarray, head: LinearHead) -> tuple[np.ndarray, np.ndarray]:
        """Of each image its predicted class and the attention to it (n, size, size): for a picture."""
        seen = activations(self.net, self.pixels(rows))
        classes, asked = head.says(seen.features)
        amount = attention(seen.towards(asked), self.look.size)
        return classes.cpu().numpy(), amount.double().cpu().numpy()

    @torch.no_grad()
    def hide(self, pixels: Tensor) -> Tensor:
        """Features (n, patches, d) of the images with each patch under the image's mean."""
        mean, columns = pixels.mean((2, 3), keepdim=True), []
        for down, across in inside.patches(self.look.size, self.config.probes):
            held = pixels[:, :, down, across].clone()
            pixels[:, :, down, across] = mean
            columns.append(self.net(pixels))
            pixels[:, :, down, across] = held
        return torch.stack(columns, 1)


def check_map(encoder: str, side: int, h: int, w: int) -> None:
    """A share inside a mask says nothing of a map of a few places."""
    if min(h, w) < SMALLEST:
        raise UserError(
            f"attention: the map of {encoder} at {side} px is {h} x {w}, and {SMALLEST} x {SMALLEST} is the least; "
            f"set stride: 8, or a size of {side * 8 // h} px"
        )


def masks_of(cases: CaseStore, rows: np.ndarray, look: Look) -> np.ndarray:
    """Masks as the images beside them are seen: float64 (n, size, size), 1 inside."""
    canvas, frame = cases.masks(rows)
    pixels = torch.from_numpy(canvas)[:, None].expand(-1, 3, -1, -1)
    found = Pictures(pixels, frame, (0.0,) * 3, (1.0,) * 3)
    seen = plain(found.cut(look.border) if look.border else found, look.size)[:, 0]
    return (seen > 0.5).double().numpy()


def measures(
    shares: Mapping[str, Mapping[str, np.ndarray]], classes: Mapping[str, tuple[str, ...]], groups: np.ndarray
) -> Iterator[Measurement]:
    """Of every label its shares in all and by predicted class, and the mean over labels, with replicates."""
    weights, whole = case_weights(groups), dict[str, list[np.ndarray]]()
    for label, names in classes.items():
        told = shares[label]
        for cls in ("", *names):
            keep = np.ones(len(groups), bool) if cls == "" else told["predicted"] == names.index(cls)
            found = {name: mean_and_count(told[name], keep, weights) for name in OF_IMAGES}
            ail, area = found["ail"][0], found["area"][0]
            with np.errstate(invalid="ignore", divide="ignore"):
                found["ail_ratio"] = ail / area, found["ail"][1]
                found["lift"] = (ail - area) / (1 - area), found["ail"][1]
            for name, (values, n) in found.items():
                if cls == "":
                    whole.setdefault(name, []).append(values)
                yield Measurement(label, cls, name, n, values)
    for name, each in whole.items():
        yield Measurement(MEAN_LABEL, "", name, len(groups), np.mean(each, axis=0))


def mean_and_count(values: np.ndarray, keep: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Mean over the kept images that were measured, in each replicate; and how many these are."""
    keep = keep & np.isfinite(values)
    return mean(values[keep], weights[keep]), int(keep.sum())
