"""Fine-tuning learns from images, repeats itself, and leaves the encoders that it is given alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dermsearch.data.open import open_cases
from dermsearch.evaluate import Features, Images, judge
from dermsearch.models.encoders import Encoders
from dermsearch.models.relations import LabelHeads
from dermsearch.study.config import Data
from dermsearch.training.precision import autocast
from dermsearch.work.worker import extract, judged, look_of

Given = tuple[Features, Images]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small convolutions are slower on several threads, much so where tests share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(folder: Path, modalities: tuple[str, ...] = ("derm",), branches: str = "shared", cases: int = 60) -> Given:
    """Random encoders and what they see of built-in cases."""
    data = Data(cases=cases, size=32, modalities=modalities)  # type: ignore[arg-type]
    store = open_cases(data, folder)
    encoders = Encoders.random("resnet10t", modalities, branches, seed=0)
    rows = judged(encoders, store, data)
    images = Images(encoders, store, rows["train"], rows["val"], look_of(data), CPU, autocast(CPU, "fp32"))
    return extract(encoders, store, data, CPU, "fp32"), images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cases")


def tuned(given: Given, handover: Any = None, seed: int = 0, **config: Any) -> dict[tuple[str, str, str], Any]:
    features, images = given
    rows = judge(features, "finetune", {"epochs": 1, "batch": 16, **config}, seed, handover, images)
    return {(r["label"], r["class"], r["metric"]): r["value"] for r in rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modalities", "branches"),
    [(("derm",), "shared"), (("derm", "clinic"), "separate"), (("derm", "clinic"), "shared")],
)
def test_any_branches_are_trained_on_a_copy(folder: Path, modalities: tuple[str, ...], branches: str) -> None:
    given = make(folder, modalities, branches)
    encoders = given[1].encoders
    before = {name: w.clone() for name, w in encoders.state_dict().items()}
    state, found = torch.get_rng_state(), tuned(given)
    assert torch.equal(torch.get_rng_state(), state) and not encoders.training
    assert all(torch.equal(w, before[name]) for name, w in encoders.state_dict().items())
    assert 0 <= found["mean", "", "named_auc"] <= 1
    assert found == tuned(given)
    assert found != tuned(given, seed=1)


@pytest.mark.slow
def test_encoders_learn_and_not_only_the_heads(folder: Path) -> None:
    """Half of 300 images are painted: fine-tuning finds out which, from a colour that random encoders barely show."""
    features, images = make(folder, cases=300)
    truth = {s: np.arange(len(r)) % 2 for s, r in (("train", images.train), ("val", images.heldout))}

    cases, veil = images.cases, np.zeros(len(images.cases), bool)
    veil[images.train], veil[images.heldout] = truth["train"] == 1, truth["val"] == 1

    class Painted:
        def pictures(self, modality: str, rows: np.ndarray) -> Any:
            pixels, frame = cases.pictures(modality, rows)
            pixels = pixels.copy()
            pixels[veil[rows], 12:20, 12:20] = (60, 90, 200)
            return pixels, frame

    label = {"blue_whitish_veil": ("absent", "present")}
    features = dataclasses.replace(
        features,
        classes=label,
        train_labels={k: truth["train"] for k in label},
        heldout_labels={k: truth["val"] for k in label},
    )
    images = dataclasses.replace(images, cases=Painted())  # type: ignore[arg-type]
    found = tuned((features, images), epochs=6, lr=1e-3, crop=0.9)
    assert found["blue_whitish_veil", "", "auc"] > 0.9


def test_heads_handed_on_are_where_it_starts(folder: Path) -> None:
    given = make(folder)
    sizes = [len(c) for c in given[0].classes.values()]
    torch.manual_seed(0)
    heads = LabelHeads(given[1].encoders.dim, sizes, "tel", width=16, feedforward=8).handover()
    assert tuned(given, heads) == tuned(given, heads)
    assert tuned(given, heads) != tuned(given)


def test_unknown_labels_and_few_cases(folder: Path) -> None:
    features, images = make(folder)
    hidden = {label: np.full_like(truth, -1) for label, truth in features.train_labels.items()}
    nothing = tuned((dataclasses.replace(features, train_labels=hidden), images))
    assert nothing["mean", "", "auc"] == 0.5
    hidden["streaks"][5] = 1  # one case, one label
    one = tuned((dataclasses.replace(features, train_labels=hidden), images))
    assert one["diagnosis", "", "auc"] == 0.5 and one["streaks", "regular", "recall"] == 1


def test_bf16_and_held_out_labels(folder: Path) -> None:
    features, images = make(folder)
    cast = dataclasses.replace(images, cast=autocast(CPU, "bf16"))
    assert tuned((features, cast)) != tuned((features, images))
    blinded = {label: truth[::-1].copy() for label, truth in features.heldout_labels.items()}
    predicted = "as:MEL"
    swapped, plain = tuned((dataclasses.replace(features, heldout_labels=blinded), images)), tuned((features, images))
    total = lambda found: sum(v for k, v in found.items() if k[2] == predicted)  # noqa: E731
    assert total(swapped) == total(plain)  # as many cases are taken for a melanoma, whatever they are


def test_images_are_needed(folder: Path) -> None:
    with pytest.raises(ValueError, match="trains on images"):
        judge(make(folder)[0], "finetune")
