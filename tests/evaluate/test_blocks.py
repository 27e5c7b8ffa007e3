"""What features a probe sees, with tables and without."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from dermsearch.data.case import Case, columns
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.pool import Look, pictures
from dermsearch.data.views.augment import plain
from dermsearch.errors import UserError
from dermsearch.evaluate.base import PROTOCOLS, Features, Given, Images, configure, reads_tables
from dermsearch.evaluate.blocks import Kind, features_of
from dermsearch.models.artifact import TABLES
from dermsearch.models.encoders import Encoders
from dermsearch.models.nested import Nested
from dermsearch.testing.small import CPU, SmallStage

CASES, TRAIN = 60, 40
CLASSES = {"diagnosis": ("a", "b", "c")}
SITES = ("arm", "back", "leg")
NAMES = ("age", "site", "size", "asked")
DECLARED = (*columns("patient", ["age"]), *columns("lesion", ["size", "asked"], ["site"]))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """The site tells the class, a hole in `asked` tells one of them, and features tell nothing."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, CASES)
    cases = []
    for i, cls in enumerate(truth):
        told: dict[str, Any] = {"age": 20.0 + i, "site": SITES[cls], "size": float(i % 7)}
        told["asked"] = None if cls == 2 else float(i % 3)
        told = {n: None if (i + len(n)) % 9 == 0 and n in ("age", "size") else v for n, v in told.items()}
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        cases.append(Case(f"c{i}", f"l{i}", f"p{i // 2}" if i < 50 else "", {"derm": pixels}, {"diagnosis": cls}, told))
    split = {c.case: "train" if i < TRAIN else "val" for i, c in enumerate(cases)}
    store = write_store(tmp_path_factory.mktemp("s") / "store", cases, split, CLASSES, {"source": "test"}, DECLARED)
    x = rng.normal(size=(CASES, 8)).astype(np.float32)
    rows = np.arange(CASES)
    labels = [{"diagnosis": truth[side].astype(np.int64)} for side in (slice(TRAIN), slice(TRAIN, CASES))]
    whose = np.arange(CASES - TRAIN)
    features = Features(x[:TRAIN], x[TRAIN:], *labels, CLASSES, whose, "val", {"derm": slice(0, 8)})
    encoders = SmallStage("").encoders()
    images = Images(encoders, store, rows[:TRAIN], rows[TRAIN:], Look(32), CPU, nullcontext, NAMES)
    return Given(features, {}, images)


def levels(*names: str) -> dict[str, dict[str, Any]]:
    """Settings of encoders of tables, whose columns are of another store."""
    other = {c.name: replace(c, mean=50.0, spread=20.0, vocabulary=SITES[1:] * (c.kind == "word")) for c in DECLARED}
    of = {"lesion": ["site", "size"], "patient": ["age"]}
    return {n: {"columns": [asdict(other[c]) for c in of[n]], "width": 6} for n in names}


def test_the_images_features_are_untouched(given: Given) -> None:
    assert features_of(given, "image") is given.features
    assert features_of(Given(given.features), "image") is given.features


@pytest.mark.parametrize("kind, handed, widths", [
    ("lesion", (), {"derm": 8, "lesion": 3 + 3 + 2}),  # known or not, a place for each site, two numbers
    ("full", (), {"derm": 8, "lesion": 8, "patient": 2}),
    ("lesion", ("lesion",), {"derm": 8, "lesion": 6}),
    ("full", ("lesion", "patient"), {"derm": 8, "lesion": 6, "patient": 6}),
    ("full", ("lesion",), {"derm": 8, "lesion": 6, "patient": 2}),
    ("table", ("lesion",), {"table": 4 + 3 + 3}),
    ("mask", (), {"mask": 4}),
])  # fmt: skip
def test_blocks_stand_beside_the_modalities(given: Given, kind: Kind, handed: tuple, widths: dict) -> None:
    part = {TABLES: Nested(8, ["derm"], levels(*handed), out=4).part()} if handed else {}
    found = features_of(replace(given, artifact=part), kind)
    assert {name: places.stop - places.start for name, places in found.columns.items()} == widths
    assert found.train.shape == (TRAIN, sum(widths.values())) and found.heldout.shape == (
        CASES - TRAIN,
        found.train.shape[1],
    )
    assert found.train.dtype == np.float32 and found.classes == given.features.classes
    spread = found.train.astype(float).std(0)
    np.testing.assert_allclose(found.train.mean(0), 0, atol=1e-5)
    assert ((np.abs(spread - 1) < 1e-4) | (spread < 1e-9)).all()  # of train alone
    if "derm" in widths:
        x = given.features.train.astype(float)
        np.testing.assert_allclose(found.train[:, :8], (x - x.mean(0)) / x.std(0), atol=1e-5)
        y = given.features.heldout
        np.testing.assert_allclose(found.heldout[:, :8], (y - x.mean(0)) / x.std(0), atol=1e-5)


def test_encoders_see_values_as_their_own_store_told_them(given: Given) -> None:
    assert given.images is not None
    made = Nested(8, ["derm"], levels("lesion", "patient"), out=4)
    found = features_of(replace(given, artifact={TABLES: made.part()}), "full")
    cases, at = given.images.cases, found.columns
    values = torch.zeros(CASES, 2)
    sites, sizes = cases.metadata("site"), cases.metadata("size")
    known = torch.tensor([[s in SITES[1:], z is not None] for s, z in zip(sites, sizes, strict=True)])
    for i in range(CASES):
        values[i, 0] = SITES[1:].index(sites[i]) if known[i, 0] else 0
        values[i, 1] = (sizes[i] - 50) / 20 if known[i, 1] else 0
    lesion = made.levels["lesion"](values, known).detach().numpy()
    mean, spread = lesion[:TRAIN].mean(0), lesion[:TRAIN].std(0)
    np.testing.assert_allclose(found.heldout[:, at["lesion"]], (lesion[TRAIN:] - mean) / spread, atol=1e-3)
    ages, who = cases.metadata("age"), cases.strings("patient")
    told = [
        np.mean([a for a, p in zip(ages, who, strict=True) if p == own and a is not None] or [np.nan]) if own else age
        for own, age in zip(who, ages, strict=True)
    ]
    years = torch.tensor([[np.nan if t is None else t] for t in told], dtype=torch.float32)
    person = made.levels["patient"](((years - 50) / 20).nan_to_num(), ~years.isnan()).detach().numpy()
    mean, spread = person[:TRAIN].mean(0), person[:TRAIN].std(0)
    np.testing.assert_allclose(found.train[:, at["patient"]], (person[:TRAIN] - mean) / spread, atol=1e-3)


@pytest.mark.parametrize("name", ["linear", "knn"])
def test_controls_tell_what_tables_and_their_holes_tell(given: Given, name: str) -> None:
    truth = given.features.heldout_labels["diagnosis"]
    seen = replace(given, features=given.features.blind())

    def right(kind: Kind) -> tuple[float, float]:
        config = configure(name, {"features": kind} | ({"k": 5} if name == "knn" else {"c": 1.0}))
        told = PROTOCOLS.find(name)().predict(seen, config, 0)["diagnosis"].argmax(1)  # type: ignore[attr-defined]
        return float((told == truth).mean()), float(((told == 2) == (truth == 2)).mean())

    assert right("image")[0] < 0.65 < 0.9 < right("table")[0] and right("lesion")[0] > right("image")[0]
    assert right("mask")[1] == 1.0 and right("mask")[0] < 0.95  # the hole of one class, and nothing of the others


def test_settings_are_what_they_were_unless_tables_are_read() -> None:
    for name in ("linear", "knn"):
        protocol = PROTOCOLS.find(name)
        assert "features" not in configure(name).model_dump(mode="json")
        assert configure(name, {"features": "mask"}).model_dump(mode="json")["features"] == "mask"
        assert [reads_tables(protocol, {"features": kind}) for kind in ("image", "full")] == [False, True]
        assert not reads_tables(protocol, {})


def test_without_columns_there_are_no_tables(given: Given) -> None:
    assert given.images is not None
    for bare in (Given(given.features), replace(given, images=replace(given.images, metadata=()))):
        with pytest.raises(UserError, match=r"^features: 'full' reads metadata, and data\.metadata names no columns$"):
            features_of(bare, "full")


def by_a_network(given: Given, name: str) -> Given:
    """The same cases, with features as these encoders give them."""
    assert given.images is not None
    images = replace(given.images, encoders=Encoders.random(name, ("derm",), "shared", 0).eval())
    with torch.no_grad():
        x = images.encoders(plain(pictures(images.cases, "derm", np.arange(CASES), images.look, CPU), 32), "derm")
    sides = {"train": x[:TRAIN].numpy(), "heldout": x[TRAIN:].numpy()}
    features = replace(given.features, **sides, columns={"derm": slice(0, x.shape[1])})
    return replace(given, features=features, images=images)


def test_tokens_are_those_of_the_last_four_blocks_and_end_with_the_features(given: Given) -> None:
    seen = by_a_network(given, "test_vit")
    found, whole = features_of(seen, "tokens"), seen.features.heldout
    network: Any = seen.images and next(iter(seen.images.encoders.backbones.values()))
    width, blocks = whole.shape[1], min(4, len(network.blocks))
    assert found.heldout.shape == (CASES - TRAIN, blocks * width) and found.columns == {
        "derm": slice(0, blocks * width)
    }
    np.testing.assert_allclose(found.heldout[:, -width:], whole, atol=1e-5)
    assert np.abs(found.heldout[:, :width] - whole).max() > 0.1, "an earlier block says something else"
    assert found.train.shape == (TRAIN, blocks * width) and not reads_tables(
        PROTOCOLS.find("linear"), {"features": "tokens"}
    )


def test_a_network_without_tokens_keeps_its_features(given: Given) -> None:
    seen = by_a_network(given, "test_resnet")
    assert features_of(seen, "tokens") is seen.features
    assert features_of(replace(seen, images=None), "tokens") is seen.features
