"""Attention inside masks: the oracles of shares, of activation maps and of hidden patches, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from dermsearch.data.drawn.chest import chest
from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.errors import UserError
from dermsearch.evaluate.attention import AttentionConfig, Gaze, masks_of, measures
from dermsearch.evaluate.base import Features, Images, configure, judge
from dermsearch.evaluate.inside import inside, none_at_all, patches, peak_inside, share_of_patches
from dermsearch.evaluate.tuned import LinearHead, probe, tune
from dermsearch.metrics import summary
from dermsearch.models.attention import activations, attention, contrast, finer
from dermsearch.models.encoders import Encoders, backbone
from dermsearch.study.data import Data
from dermsearch.testing.small import make_store

A = np.array([[[0, 1, 2, 1], [0, 3, 4, 1], [0, 1, 2, 0], [0, 0, 0, 0]]], float)
M = np.zeros((1, 4, 4))
M[:, 1:, 2:] = 0
M[:, 0:3, 1:3] = 1  # columns 2 and 3 of rows 1 to 3, counted from 1


def test_the_oracles_mask_covers_what_it_should() -> None:
    assert M.mean() == 0.375


@pytest.mark.parametrize(
    ("amount", "mask", "share"),
    [
        (A, M, 0.8666667),
        (A + 1, M, 0.6129032),
        (A + 1 - (A + 1).min(), M, 0.8666667),
        (np.maximum(A - 1.5, 0), M, 1.0),
        ((A.mean() < A).astype(float), M, 0.75),
        (np.ones_like(A), M, 0.375),
        (np.zeros_like(A), M, 0.375),
        (A, 1 - M, 1 - 0.8666667),
        (A * M, M, 1.0),
        (A * (1 - M), M, 0.0),
        (7 * A, M, 0.8666667),
    ],
)
def test_the_share_inside(amount: np.ndarray, mask: np.ndarray, share: float) -> None:
    assert inside(amount, mask) == pytest.approx([share], abs=1e-5)


def test_many_images_are_a_mean_of_ratios_with_area_ratio_and_lift_beside() -> None:
    three = np.concatenate([A, np.eye(4)[None], np.ones((1, 4, 4))])
    masks = np.repeat(M, 3, axis=0)
    assert inside(three, masks).mean() == pytest.approx(0.580556, abs=1e-5)
    assert none_at_all(np.concatenate([A, 0 * A])).tolist() == [0, 1]
    assert peak_inside(np.concatenate([A, A * (1 - M), np.ones((1, 4, 4))]), masks).tolist() == [1, 0, 0.375]
    told = {"predicted": np.zeros(2, int), "ail": np.array([0.8666667] * 2), "area": np.array([0.375] * 2)}
    told |= {name: np.array([np.nan, 0.5]) for name in ("hit", "zero_maps", "occlusion", "occlusion_abs")}
    rows = {(m.label, m.cls, m.metric): m for m in measures({"x": told}, {"x": ("a", "b")}, np.arange(2))}
    for whose in (("x", ""), ("x", "a"), ("mean", "")):
        assert rows[*whose, "ail_ratio"].values[0] == pytest.approx(2.311111, abs=1e-5)
        assert rows[*whose, "lift"].values[0] == pytest.approx(0.786667, abs=1e-5)
    assert rows["x", "", "occlusion"].n == 1 and rows["x", "", "occlusion"].values[0] == 0.5
    assert rows["x", "b", "ail"].n == 0 and np.isnan(rows["x", "b", "ail"].values).all()


def test_maps_are_taken_up_to_the_mask_with_half_pixel_centres() -> None:
    small = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]], dtype=torch.float64)
    mask = np.zeros((1, 4, 4))
    mask[:, 1:, 2:] = 1
    assert inside(attention(small, 4).numpy(), mask) == pytest.approx([0.520833], abs=1e-5)
    assert (attention(-small, 4) == 0).all()


def test_the_logit_is_the_mean_of_its_map_and_grad_cam_the_same_to_scale() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=0, output_stride=8).double().eval()
    x, w = torch.randn(3, 3, 64, 64, dtype=torch.float64), torch.randn(4, 96, dtype=torch.float64)
    seen, classes = activations(net, x), torch.tensor([1, 3, 0])
    assert seen.source is None and seen.grid.shape == (3, 96, 8, 8)
    maps = seen.towards(w[classes])
    assert torch.allclose(maps.mean((1, 2)), (net(x) * w[classes]).sum(1), atol=1e-9)
    grid = net.forward_features(x).detach().requires_grad_()
    logit = (net.forward_head(grid, pre_logits=True) * w[classes]).sum()
    (slope,) = torch.autograd.grad(logit, grid)
    assert torch.allclose(64 * torch.einsum("nk,nkhw->nhw", slope.mean((2, 3)), grid), maps, atol=1e-5)
    two = contrast(w[:2], torch.tensor([0, 1]))
    assert torch.allclose(two[0], -two[1]) and torch.allclose(contrast(w + 5, classes), contrast(w, classes))


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_vit_that_reads_its_class_token_has_maps_by_slopes(pool: str) -> None:
    torch.manual_seed(0)
    told = {"num_classes": 0, "dynamic_img_size": True, "dynamic_img_pad": True, "global_pool": pool, "fc_norm": False}
    net = timm.create_model("test_vit", **told).eval()
    seen = activations(net, torch.randn(2, 3, 100, 100))
    assert seen.grid.shape[2:] == (7, 7) and (seen.source is None) == (pool == "avg")
    maps = seen.towards(torch.randn(2, seen.features.shape[1]))
    assert maps.shape == (2, 7, 7) and maps.abs().sum() > 1e-4 and not maps.requires_grad


def test_a_probe_is_a_head_on_the_features_themselves() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    x = rng.normal(2, 3, (90, 5)) + truth[:, None]
    for classes in (3, 2):
        keep = truth < classes
        head = probe(x[keep], truth[keep], 4, 0.1, AttentionConfig())
        scaled = StandardScaler().fit_transform(x[keep])
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(scaled, truth[keep])
        logits = torch.from_numpy(x[keep]) @ head.weights.T + head.bias
        assert np.allclose(logits.softmax(1)[:, :classes], model.predict_proba(scaled), atol=1e-5)
        assert (logits[:, classes:] < -1e8).all()
    assert probe(x, np.full(90, 2), 4, 0.1, AttentionConfig()).bias.argmax() == 2


class Mean(nn.Module):
    """Its one feature is the mean of the first colour."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.ones(()))

    def forward_features(self, x: Tensor) -> Tensor:
        return x[:, :1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def test_nothing_is_tuned_where_no_case_has_a_label() -> None:
    net, config = backbone("test_resnet").eval(), AttentionConfig(head="finetune", epochs=1, batch=4)
    unknown = {"diagnosis": np.full(8, -1)}
    made, heads = tune(net, lambda at: torch.randn(len(at), 3, 32, 32), unknown, {"diagnosis": ("a", "b")}, config, 0)
    assert all(torch.equal(w, made.state_dict()[n]) for n, w in net.named_parameters())
    assert heads["diagnosis"].weights.isfinite().all()


def images_of(cases: CaseStore, size: int = 32, name: str = "test_resnet") -> Images:
    rows = np.arange(len(cases))
    encoders = Encoders.random(name, cases.modalities, "shared", 0).eval()
    return Images(encoders, cases, rows[:24], rows[24:], Look(size), torch.device("cpu"), nullcontext)


def test_hidden_patches_against_a_network_that_is_known(tmp_path: Path) -> None:
    images = images_of(make_store(tmp_path / "s", masked=True))
    seen = Gaze(images, "derm", AttentionConfig(probes=4, images=5))
    seen.net = Mean()
    rows = images.heldout
    found = seen.shares(rows, {"x": LinearHead(torch.tensor([[-1.0], [1.0]]), torch.zeros(2))})["x"]
    pixels = seen.pixels(rows)[:, 0].double().numpy()
    measured = np.flatnonzero(np.isfinite(found["occlusion"]))
    assert len(measured) == 5 and measured[0] == 0 and measured[-1] == len(rows) - 1
    for i in measured:
        sign = 1 if pixels[i].mean() > 0 else -1
        assert found["predicted"][i] == (sign > 0)
        drop = sign * (pixels[i].reshape(4, 8, 4, 8).mean((1, 3)) - pixels[i].mean()) / 16
        left = np.repeat([[1, 1, 0, 0]], 4, axis=0)
        lost = np.maximum(drop, 0)
        assert found["occlusion"][i] == pytest.approx((lost * left).sum() / lost.sum(), abs=1e-5)
        assert found["occlusion_abs"][i] == pytest.approx((abs(drop) * left).sum() / abs(drop).sum(), abs=1e-5)
        amount = np.maximum(sign * pixels[i], 0)
        expected = amount[:, :16].sum() / amount.sum() if amount.sum() > 0 else 0.5
        assert found["ail"][i] == pytest.approx(expected, abs=1e-5) and found["area"][i] == 0.5


def test_patches_cover_an_image_once() -> None:
    parts, seen = patches(37, 5), np.zeros((37, 37))
    for place in parts:
        seen[place] += 1
    assert len(parts) == 25 and (seen == 1).all()
    assert share_of_patches(np.ones((2, 37, 37)), parts).tolist() == [[1.0] * 25] * 2


def test_a_finer_map_has_the_same_weights() -> None:
    net = timm.create_model("resnet10t", num_classes=0).eval()
    fine = finer(net, "resnet10t", 8)
    assert activations(fine, torch.zeros(1, 3, 64, 64)).grid.shape[2:] == (8, 8)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), fine.state_dict().values(), strict=True))
    with pytest.raises(UserError, match=r"^stride: 'test_vit' keeps no finer map"):
        finer(timm.create_model("test_vit", num_classes=0), "test_vit", 8)


def features(images: Images) -> Features:
    cases, (train, heldout) = images.cases, (images.train, images.heldout)
    labels = {name: cases.label(name) for name in cases.classes}
    return Features(
        np.zeros((len(train), 1), np.float32),
        np.zeros((len(heldout), 1), np.float32),
        {name: truth[train] for name, truth in labels.items()},
        {name: truth[heldout] for name, truth in labels.items()},
        cases.classes,
        cases.groups()[heldout],
        "val",
    )


def test_a_judgement_tells_every_class_over_patients(tmp_path: Path) -> None:
    """As the shares of the same eye say, image by image; patients of four images each are drawn whole."""
    images = images_of(make_store(tmp_path / "s", masked=True))
    seen, whose = features(images), images.cases.groups()[images.heldout]
    config = {"size": 64, "stride": 8, "images": 4, "probes": 2, "c": 0.1}
    told = {(r["label"], r["class"], r["metric"]): r for r in judge(seen, "attention", config, images=images).rows}
    names = images.cases.classes["diagnosis"]
    assert {cls for label, cls, _ in told if label == "diagnosis"} == {"", *names} and ("mean", "", "ail") in told
    eye = Gaze(images, "derm", AttentionConfig(**config))
    heads = eye.heads(images.cases.classes, seen.train_labels, np.arange(len(images.train)), 0)
    own = eye.shares(images.heldout, heads)
    for m in measures(own, images.cases.classes, whose):
        value, low, high = summary(m.values)
        row = told[m.label, m.cls, m.metric]
        assert (row["value"], row["ci_low"], row["ci_high"], row["n"]) == pytest.approx(
            (value, low, high, m.n), nan_ok=True
        )
    ail = told["diagnosis", "", "ail"]
    alone = summary(next(iter(measures(own, images.cases.classes, np.arange(len(whose))))).values)
    assert len(set(whose)) == 6 and ail["n"] == 24 and (ail["ci_low"], ail["ci_high"]) != pytest.approx(alone[1:])


@pytest.mark.parametrize(
    ("masked", "config", "message"),
    [
        (False, {"stride": 8}, r"^attention: no val image of .* has a mask; `dermsearch data prepare --masks FOLDER`"),
        (
            True,
            {},
            r"^attention: the map of test_resnet at 32 px is 1 x 1, and 6 x 6 is the least; set stride: 8, or a",
        ),
        (True, {"head": "finetune", "size": 64, "stride": 8, "lr": 10, "epochs": 40}, "is not finite|are not finite"),
    ],
)
def test_what_is_refused(masked: bool, config: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    images = images_of(make_store(tmp_path / "s", masked=masked))
    if config.get("lr"):
        with torch.no_grad():
            next(iter(images.encoders.parameters())).fill_(float("nan"))
    with pytest.raises(UserError, match=message):
        judge(features(images), "attention", config, images=images)


def test_settings_that_are_none() -> None:
    with pytest.raises(UserError, match="protocol 'attention' has no setting 'strides': did you mean 'stride'"):
        configure("attention", {"strides": 8})


def test_masks_are_seen_as_the_images_beside_them_are(tmp_path: Path) -> None:
    cases = make_store(tmp_path / "s", masked=True)
    seen = masks_of(cases, np.arange(3), Look(64, border=0.25))
    assert seen.shape == (3, 64, 64) and (seen[:, :, :31] == 1).all() and (seen[:, :, 33:] == 0).all()
    assert masks_of(open_cases(Data(cases=40, size=48), tmp_path), np.arange(4), Look(32)).mean() > 0.05


def test_chests_have_masks_where_lungs_are(tmp_path: Path) -> None:
    for case in chest(2, 32, 0):
        assert case.mask is not None and case.mask[:, :2].max() == 0
