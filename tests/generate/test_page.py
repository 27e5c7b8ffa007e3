"""The commands of docs/made.md, run on small stores."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

import pytest
from generate.made import make_store
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.store.case_store import CaseStore
from dermsearch.generate.exported import draw, load_generator

PAGE = (Path(__file__).parents[2] / "docs" / "made.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    dermsearch ")]
SMALL = "--encoder test_resnet --judge-epochs 1"
SIZES = "--epochs 1 --side 32 --set width=0.25 --per-class 8 --batch 16 --export g.safetensors"
MORE = {"make": f"{SMALL} {SIZES}", "quality": SMALL}


def options(text: str) -> list[str]:
    """Those of a version, as the table of the page has them."""
    return shlex.split(text.strip("`"))


def rows() -> list[tuple[str, list[str]]]:
    """Versions of the paper's Table 3 with their options."""
    table = PAGE.partition("| version | options |")[2].partition("\n\n")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return [(f"{name} {i}", options(each)) for name, of in cells for i, each in enumerate(of.split(", "))]


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "data" / "chexpert")
    done = []
    for line in COMMANDS:
        words = shlex.split(line.replace("uda_made --quick", "data/chexpert").replace("STORE", "data/chexpert"))[1:]
        if words[0] == "run":  # tests/results/papers/test_aiseeme_uda.py loads that study
            continue
        result = CliRunner().invoke(app, [*words, *MORE.get(words[1], "").split()], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        done.append(words[1])
    assert done == ["make", "show", "quality", "view", "make"]
    assert draw(load_generator(tmp_path / "g.safetensors"), {"finding": "pneumonia"}, 2).shape == (2, 32, 32, 3)
    assert (tmp_path / "made.png").stat().st_size > 1000
    with (tmp_path / "nearest.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table and set(table[0]) == {"made", "nearest training case", "distance"}
    assert CaseStore(tmp_path / "data" / "v1" / "chexpert").classes == {"finding": ("none", "pneumothorax")}


@pytest.mark.slow
def test_the_versions_of_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "real", place="a_together")
    classes = {}
    for name, given in rows():
        out = f"made{len(classes)}"
        words = ["data", "make", "real", "-o", out, *given, *MORE["make"].split()]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
        store = CaseStore(tmp_path / out)
        label = store.settings["label"]
        classes[name] = (label, store.classes[label], store.settings["others"])
    four = ("none", "pneumothorax", "pneumonia", "cardiomegaly")
    assert list(classes.values()) == [
        ("finding", ("none", "pneumothorax"), "absent"),
        ("pneumothorax", ("absent", "present"), "any"),
        ("finding", ("none", "finding"), "any"),
        ("finding", four, "absent"),
        ("finding", four, "any"),
    ]
