"""What every evaluator promises, see docs/protocols.md."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dermsearch.data.store.pool import Look
from dermsearch.evaluate.base import PROTOCOLS, Classifier, Features, Finder, Given, Images, Ruler, configure, judge
from dermsearch.fit.base import is_fit
from dermsearch.nature import Nature
from dermsearch.testing.claims import claim, named, numbered, probable, strict
from dermsearch.testing.pretended import pretended_gpu
from dermsearch.testing.small import CASES, CPU, SIZE, SmallStage, make_store
from dermsearch.training.precision import autocast

CLASSES = {"diagnosis": ("nevus", "melanoma", "other"), "veil": ("absent", "present")}
TRAIN, HELDOUT, WIDTH = 90, 60, 16


def check_evaluator(name: str, config: Mapping[str, Any] = MappingProxyType({})) -> None:
    """The installed evaluator of that name; a fit has a check of its own."""
    made = named(PROTOCOLS, name)
    claim(not is_fit(made), f"{name}: is a fit; call check_fit")
    numbered(made)
    strict(name, made.Config)
    claim(isinstance(made.nature, Nature), f"{name}: its nature is a dermsearch.nature.Nature")
    with tempfile.TemporaryDirectory() as folder:
        images = (
            images_of(Path(folder), "masks" in made.nature.needs)
            if made.nature.needs & {"images", "masks", "tables"}
            else None
        )
        _check(name, made.nature, config, images)


def _check(name: str, nature: Nature, config: Mapping[str, Any], images: Images | None) -> None:
    features, settings, evaluator = features_of(), configure(name, dict(config)), PROTOCOLS.find(name)()
    one, two = (judge(features, name, settings, seed=3, images=images) for _ in range(2))
    claim(one == two, f"{name}: is decided by what it is given and by the seed, so two judgements are equal to the bit")
    claim(one.rows, f"{name}: says something")
    if images is not None:
        with pretended_gpu() as device:
            moved = copy.deepcopy(images.encoders).to(device)
            shown = dataclasses.replace(images, encoders=moved, device=device)
            there = judge(features, name, settings, seed=3, images=shown)
            coarse = dataclasses.replace(shown, cast=autocast(device, "bf16"))
            roughly = judge(features, name, settings, seed=3, images=coarse).rows
        kept = [r.keys() for r in roughly] == [r.keys() for r in one.rows]
        claim(kept and all(map(finite, roughly)), f"{name}: judges on a GPU in bf16, too")
        pairs = [
            pair for a, b in zip(there.rows, one.rows, strict=True) for pair in zip(a.items(), b.items(), strict=True)
        ]
        claim(all(near(a, b) for a, b in pairs), f"{name}: judges on a GPU as on a CPU")
    if isinstance(evaluator, Ruler | Finder):
        metrics = {row["metric"] for row in one.rows}
        claim(metrics >= set(nature.metrics), f"{name}: gives the metrics of its nature, {', '.join(nature.metrics)}")
        return
    claim(
        isinstance(evaluator, Classifier), f"{name}: has predict(given, config, seed) or measure(given, config, seed)"
    )

    def predict(given: Features) -> Mapping[str, np.ndarray]:
        return evaluator.predict(Given(given, {}, images), settings, 3)

    told = predict(features.blind())
    claim(told.keys() == CLASSES.keys(), f"{name}: predicts every label, {', '.join(CLASSES)}")
    rng = np.random.default_rng(1)
    shuffled = {label: rng.permutation(truth) for label, truth in features.heldout_labels.items()}
    for other in (features, dataclasses.replace(features, heldout_labels=shuffled)):
        seen = predict(other)
        kept = all(np.array_equal(seen[label], told[label]) for label in CLASSES)
        claim(kept, f"{name}: does not look at the labels of held-out cases")
    for label, classes in CLASSES.items():
        probable(name, label, told[label], HELDOUT, len(classes))
    for known in ((0, 1), ()):  # the classes of which there are training cases
        truth = features.train_labels["diagnosis"]
        few = {**features.train_labels, "diagnosis": np.where(np.isin(truth, known), truth, -1)}
        seen = predict(dataclasses.replace(features, train_labels=few).blind())
        probable(name, "diagnosis", seen["diagnosis"], HELDOUT, 3)
    if nature.objective and nature.learns and images is None:
        right = (told["diagnosis"].argmax(1) == features.heldout_labels["diagnosis"]).mean()
        claim(right > 0.8, f"{name}: tells classes apart that lie far apart, not {right:.0%} of them")


def finite(row: Mapping[str, Any]) -> bool:
    """Are its numbers such, where it has any?"""
    return all(np.isfinite(x) for x in row.values() if isinstance(x, float))


def near(one: tuple[str, Any], other: tuple[str, Any]) -> bool:
    """Is a row's cell the same, or nearly: images are resized as bytes on a CPU, and as real numbers on a GPU?"""
    numbers = isinstance(one[1], float) and isinstance(other[1], float)
    return one == other or (numbers and one[0] == other[0] and bool(np.isclose(one[1], other[1], 0.1, 0.1, True)))


def features_of(separation: float = 6.0) -> Features:
    """Two labels, each along directions of its own, in the columns of two modalities; two cases of each patient."""
    rng, sides = np.random.default_rng(0), []
    for cases in (TRAIN, HELDOUT):
        labels = {name: rng.integers(0, len(each), size=cases) for name, each in CLASSES.items()}
        matrix = rng.normal(size=(cases, WIDTH))
        matrix[:, :3] += separation * np.eye(3)[labels["diagnosis"]]
        matrix[:, 3:5] += separation * np.eye(2)[labels["veil"]]
        sides.append((matrix.astype(np.float32), labels))
    (x, x_labels), (y, y_labels) = sides
    columns = {"derm": slice(0, WIDTH // 2), "clinic": slice(WIDTH // 2, WIDTH)}
    return Features(x, y, x_labels, y_labels, CLASSES, np.arange(HELDOUT) // 2, "val", columns)


def images_of(folder: Path, masked: bool = False) -> Images:
    """Images of as many cases, some of them the same."""
    encoders = SmallStage("").encoders(("derm", "clinic"), "separate")
    rows = np.arange(TRAIN + HELDOUT) % CASES
    where = rows[:TRAIN], rows[TRAIN:], Look(SIZE), CPU, nullcontext
    return Images(encoders, make_store(folder / "store", masked=masked), *where)
