"""Exported folders that are damaged, places that cannot be written to, and names of pictures that no table takes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from conftest_search import make_study
from PIL import Image
from rich.console import Console

from dermsearch.errors import UserError
from dermsearch.models.hub import CONFIG, MODEL
from dermsearch.run.embed import embed
from dermsearch.run.export import export
from dermsearch.run.export_fit import WEIGHTS, export_fit
from dermsearch.run.predict import predict
from dermsearch.run.run import run_study

QUIET = Console(quiet=True)
Ask = Callable[[Path, str], Any]


def embedded(folder: Path, out: str = "out.parquet") -> Any:
    return embed(folder / "embed", [str(folder / "a.png")], folder / out, 8, 1, QUIET)


def predicted(folder: Path, out: str = "out.csv") -> Any:
    return predict(folder / "predict", [str(folder / "a.png")], folder / out, 8, 1, QUIET)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, a predictor and a picture."""
    folder = tmp_path_factory.mktemp("exported")
    study = make_study(
        data={"cases": 60, "size": 32},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        downstream={"knn": {"k": 3}, "finetune": {"epochs": 1, "batch": 16}},
        objective={"protocol": "knn"},
        compute={"engine": "inline", "store": str(folder / "store")},
        logging=[],
    )
    assert not run_study(study, folder / "study", None, QUIET).failed
    export(folder / "study", folder / "embed", None, None, None)
    export_fit(folder / "study", folder / "predict", "finetune", None, None, None)
    Image.new("RGB", (40, 30), (90, 60, 40)).save(folder / "a.png")
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    for name in ("embed", "predict"):
        shutil.copytree(exported / name, tmp_path / name)
    shutil.copy(exported / "a.png", tmp_path)
    return tmp_path


SPOILT = {
    "a list": "[]", "nothing": "null", "deep": "[" * 100_000, "cut": '{"architecture": ',
    **{f"{path}={value!r}": (path, value) for path, value in [
        ("architecture", 7), ("architecture", "../x"), ("num_features", -1), ("num_features", 95),
        ("pretrained_cfg", []), ("pretrained_cfg.input_size", "x"), ("pretrained_cfg.input_size", [3, 32, 10**30]),
        ("pretrained_cfg.mean", [1]),
        ("pretrained_cfg.std", None), ("dermsearch", 0), ("dermsearch.modalities", []), ("dermsearch.border", 1e308),
        ("dermsearch.side", 0), ("dermsearch.side", True), ("dermsearch.fit", "x"), ("dermsearch.cut", -1),
    ]},
}  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=list(SPOILT))
def test_a_configuration_that_is_none_is_a_sentence(spoilt: str | tuple[str, Any], folder: Path) -> None:
    file = folder / "embed" / CONFIG
    if isinstance(spoilt, tuple):
        path, value = spoilt
        about = inner = json.loads(file.read_text())
        *above, last = path.split(".")
        for name in above:
            inner = inner[name]
        inner[last] = value
        spoilt = json.dumps(about)
    file.write_text(spoilt)
    with pytest.raises(UserError, match="cannot be loaded") as told:
        embedded(folder)
    assert "\n" not in str(told.value)
    shutil.copy(file, folder / "predict" / CONFIG)
    with pytest.raises(UserError):
        predicted(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("spoil", [cut, a_pipe, a_folder])
@pytest.mark.parametrize("file", ["embed/" + MODEL, "predict/" + WEIGHTS, "embed/" + CONFIG, "predict/" + CONFIG])
def test_files_that_are_none_are_a_sentence(spoil: Callable[[Path], None], file: str, folder: Path) -> None:
    spoil(folder / file)
    with pytest.raises(UserError, match="cannot be loaded"):
        (embedded if file.startswith("embed") else predicted)(folder)


@pytest.mark.parametrize("ask, ending", [(embedded, ".parquet"), (predicted, ".csv")])
@pytest.mark.parametrize("name", ["a.png/x", "n" * 300, "taken"])
def test_a_place_that_cannot_be_written_to_is_a_sentence(name: str, ask: Ask, ending: str, folder: Path) -> None:
    (folder / f"taken{ending}").mkdir()
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UserError, match="cannot be written"):
        ask(folder, name + ending)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_names_are_text_and_no_formulas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("=cmd()|x.png", "@a,b.png", os.fsdecode(b"\xff.png")):
        shutil.copy("a.png", os.fsencode(name))
    embed(Path("embed"), ["*.png"], Path("out.parquet"), 8, 1, QUIET)
    predict(Path("predict"), ["*.png"], Path("out.csv"), 8, 1, QUIET)
    names = pq.read_table("out.parquet")["image"].to_pylist()
    assert sorted(names) == ["./=cmd()|x.png", "./@a,b.png", "a.png", "\ufffd.png"]
    assert pcsv.read_csv("out.csv")["image"].to_pylist() == names
