"""SLIMP on drawn discs: tables follow the pictures, so images find their own tables among those of unseen patients."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dermsearch.data.case import Case, columns
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.evaluate.base import Features, Images, judge
from dermsearch.models.artifact import TABLES
from dermsearch.models.encoders import Encoders
from dermsearch.models.nested import nested
from dermsearch.pretext.slimp import Slimp
from dermsearch.study.data import Data
from dermsearch.testing.small import CPU, Kept, nothing
from dermsearch.training.stage import Recipe, Trained, train_stage
from dermsearch.work.features import extract

pytestmark = pytest.mark.slow

PATIENTS, LESIONS, SIZE, UNSEEN = 80, 4, 32, 24  # patients of whom the last are not trained on
NAMES = ("tone", "age", "radius", "red", "site")
DECLARED = (*columns("patient", ["tone", "age"]), *columns("lesion", ["radius", "red"], ["site"]))
LOOK = Look(SIZE)


def draw(rng: np.random.Generator, tone: float, radius: float, red: float, top: bool) -> np.ndarray:
    """A disc on skin, brighter above or below."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + rng.uniform(-2, 2)
    disc = (np.hypot(x, y) < radius)[..., None]
    skin = np.array([tone, 0.8 * tone, 0.7 * tone]) + 0.15 * ((y < 0) == top)[..., None]
    image = np.where(disc, [red, 0.3, 0.2], skin) + rng.normal(0, 0.03, (SIZE, SIZE, 3))
    return (255 * image.clip(0, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    """What is in the picture decides the class only together with what is not: the patient's age."""
    rng, cases = np.random.default_rng(0), []
    for i in range(PATIENTS * LESIONS):
        if i % LESIONS == 0:
            tone, age = rng.uniform(0.3, 0.8), rng.uniform(20, 80)
        radius, red, top = rng.uniform(4, 13), rng.uniform(0.2, 0.9), bool(rng.random() < 0.5)
        told: dict[str, Any] = {
            "tone": tone,
            "age": age,
            "radius": radius,
            "red": red,
            "site": "above" if top else "below",
        }
        told = {n: None if rng.random() < 0.05 and n != "tone" else v for n, v in told.items()}
        label = int(radius > 8.5) + 2 * int(age > 50)
        cases.append(
            Case(
                f"c{i}", f"l{i}", f"p{i // LESIONS}", {"derm": draw(rng, tone, radius, red, top)}, {"kind": label}, told
            )
        )
    ends = (PATIENTS - UNSEEN) * LESIONS
    split = {c.case: "train" if i < ends else "val" for i, c in enumerate(cases)}
    folder: Path = tmp_path_factory.mktemp("discs") / "store"
    return write_store(folder, cases, split, {"kind": ("a", "b", "c", "d")}, {"source": "test"}, DECLARED)


def encoders() -> Encoders:
    return Encoders.random("test_resnet", ("derm",), "shared", 0)


@pytest.fixture(scope="module")
def made(store: CaseStore) -> tuple[Encoders, Trained]:
    config = Slimp.Config(lesions=4, width=32, out=32, rotate=0.0, scale=0.9, strength=0.0)
    train = {**Slimp.train_defaults, "epochs": 60, "batch": 56, "lr": 4e-3}
    recipe, learnt = Recipe("slimp", config.model_dump(), train, 0, "fp32", LOOK, NAMES), encoders()
    torch.set_num_threads(1)
    return learnt, train_stage(recipe, learnt, store, store.split("train"), Kept(), nothing, CPU)


def seen(made: Encoders, store: CaseStore, trained: Trained | None) -> tuple[Features, dict[str, Any]]:
    """The features of a stage, and what `judge` is given beside them."""
    data = Data(size=SIZE, metadata=NAMES)
    rows = [store.split(side) for side in ("train", "val")]
    x = [extract(made, store, data, r, CPU, "fp32") for r in rows]
    labels = [{"kind": store.label("kind")[r]} for r in rows]
    features = Features(
        *x, *labels, store.classes, store.groups()[rows[1]], "val", {"derm": slice(0, made.dim)}, named={}
    )
    images = Images(made, store, *rows, LOOK, CPU, nullcontext, NAMES)
    return features, {"artifact": trained.parts if trained else {}, "images": images}


def test_an_image_finds_its_own_table_among_those_of_unseen_patients(store: CaseStore, made) -> None:
    learnt, trained = made
    part, rows = nested(trained.parts[TABLES]), store.split("val")
    table = store.table([c["name"] for c in part.levels["lesion"].config["columns"]], rows)
    x, _ = seen(learnt, store, trained)
    with torch.no_grad():
        m = part.levels["lesion"](torch.from_numpy(table.values), torch.from_numpy(table.known))
        w, z = part.table_projection(m), part.image_projection(torch.from_numpy(x.heldout), "shared")
        similar = torch.nn.functional.cosine_similarity(z[:, None], w[None], dim=2)
    first = float((similar.argmax(1) == torch.arange(len(rows))).float().mean())
    print(f"its own table comes first for {first:.3f} of {len(rows)}, by chance {1 / len(rows):.3f}")
    assert first > 10 / len(rows)
    last = trained.history[-1]["parts"]
    print(f"above the floor: lesions {last['inner_above']:.2f} of {np.log(56):.2f}, patients {last['outer_above']:.2f} "
          f"of {np.log(14):.2f}")  # fmt: skip
    assert last["inner_above"] < 0.7 * np.log(56) and last["outer_above"] < 0.7 * np.log(14)


def test_tables_help_a_probe_and_holes_by_chance_do_not(store: CaseStore, made) -> None:
    learnt, trained = made

    def score(features: Features, beside: dict[str, Any], kind: str) -> float:
        rows = judge(features, "linear", {"features": kind, "c": 0.1}, 0, **beside).rows
        found = next(r for r in rows if (r["label"], r["metric"], r["class"]) == ("kind", "balanced_accuracy", ""))
        print(f"{kind:>8}{found['value']:8.3f} [{found['ci_low']:.3f}, {found['ci_high']:.3f}]")
        return found["value"]

    own, root = seen(learnt, store, trained), seen(encoders(), store, None)
    found = {kind: score(*own, kind) for kind in ("image", "lesion", "full", "table", "mask")}
    assert found["full"] > found["image"] + 0.2 and found["image"] > score(*root, "image") and found["mask"] < 0.4
