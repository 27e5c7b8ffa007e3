"""A hospital's own table becomes a store, and a study runs on it: pairs of several sizes, some incomplete."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import warm
from e2e.tiny import run
from PIL import Image

from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.store.case_store import CaseStore
from dermsearch.results import load

STUDY = [
    "data.source=store",
    "data.path=mine",
    "data.size=32",
    "data.modalities=[derm,clinic]",
    "data.border=0.05",
    "data.normalise=derm7pt",
    "encoder.name=test_resnet",
    "encoder.branches=separate",
    "train.batch=16",
    "train.epochs=1",
    "curriculum.tasks={relative_location: {}}",
    "curriculum.length=[1,1]",
    "objective.label=kind",
    "compute.engine=inline",
]
PREPARE = ["--image", "derm=skin", "--image", "clinic=photo", "--label", "kind", "--patient", "who", "--side", "36"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 60 cases, four without a clinical image, prepared with a split by image."""
    folder = tmp_path_factory.mktemp("own")
    rows = []
    for i, case in enumerate(synthetic(60, 48, 3)):
        wide = 48 + 6 * (i % 3)
        for modality, image in case.images.items():
            Image.fromarray(image).resize((wide, 48)).save(folder / f"{case.case}_{modality}.jpg", quality=92)
        photo = f"{case.case}_clinic.jpg" if i % 15 else ""
        row = {"who": f"p{i // 3}", "kind": f"k{case.labels['diagnosis'] == 2}", "age": 20 + i}
        rows.append({**row, "skin": f"{case.case}_derm.jpg", "photo": photo})
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=";")
        table.writeheader()
        table.writerows(rows)
    words = ["data", "prepare", "csv", "cases.csv", "-o", "mine", *PREPARE, "--split-by", "image"]
    done = warm.run(words, folder, timeout=400)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_store_holds_what_the_table_says(folder: Path) -> None:
    store = CaseStore(folder / "mine")
    assert (
        len(store) == 60 and store.modalities == ("derm", "clinic") and store.classes == {"kind": ("kFalse", "kTrue")}
    )
    assert int((~store.has("clinic")).sum()) == 4 and store.split_by == "image"
    assert len(set(store.groups().tolist())) == 20
    assert set(zip(*(store.column(f"{a}_derm").tolist() for a in ("height", "width")), strict=True)) == {
        (36, 36), (36, 40), (36, 45),
    }  # fmt: skip


def test_a_study_trains_on_it_and_its_tables_say_what_speaks_against_them(folder: Path) -> None:
    summary, said = run(folder, *STUDY)
    assert summary["stages"]["trained"] == 1 and "split by image" in said
    results = load(folder / "out")
    for table in ("trials", "stages", "epochs", "scores"):
        assert set(getattr(results, table)["caveats"].to_pylist()) == {
            "split by image, so a lesion may be on both sides"
        }
    judged = {s["n"] for s in results.scores.to_pylist() if s["metric"] == "balanced_accuracy"}
    store = CaseStore(folder / "mine")
    val = store.split("val")
    assert judged == {int(store.has("clinic")[val].sum())}  # a pair with one image cannot be judged


def test_fewer_labels_train_nothing_anew(folder: Path) -> None:
    run(folder, *STUDY)
    summary, _ = run(folder, *STUDY, "data.labelled=4", "downstream.knn.k=5", out="few")
    assert summary["stages"] == {"proposed": 1, "trained": 0, "reused": 1, "failed": 0, "pruned": 0, "dropped": 0}
    every, few = (load(folder / out).scores["value"].to_pylist() for out in ("out", "few"))
    assert every != few
    summary, _ = run(folder, *STUDY, "data.border=0.1", out="cut")
    assert summary["stages"]["trained"] == 1
