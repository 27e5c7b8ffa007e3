"""An evaluator in a module of somebody else's, made by following docs/protocols.md to the letter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from data.page import DOCS, files, install

from dermsearch.errors import UserError
from dermsearch.evaluate import PROTOCOLS, Features, judge
from dermsearch.registry import Registry
from dermsearch.run.check import check
from dermsearch.study.config import Study

SHOWN = files("protocols.md")
CLASSES = {"diagnosis": ("a", "b", "c"), "veil": ("absent", "present")}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install("protocols.md", tmp_path, monkeypatch)
    yield
    Registry.find.cache_clear()


def features(separation: float, seed: int = 0) -> Features:
    """Three classes along directions of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, size=(2, 90))
    x = (rng.normal(size=(2, 90, 8)) + separation * np.eye(8)[truth]).astype(np.float32)
    sides = [{"diagnosis": each, "veil": (each > 0).astype(int)} for each in truth]
    return Features(x[0], x[1], *sides, CLASSES, np.arange(90) // 2, "val")


def test_it_judges(installed: None) -> None:
    assert set(SHOWN) == {"centres.py", "pyproject.toml", "study.yaml"} and "centres" in PROTOCOLS
    assert len(SHOWN["centres.py"].partition("class Centres:")[2].splitlines()) <= 30
    told = judge(features(6.0), "centres", {"temperature": 0.2})
    values = {(row["label"], row["metric"]): row["value"] for row in told.rows if row["class"] == ""}
    assert values["mean", "balanced_accuracy"] > 0.9 and values["diagnosis", "auc"] > 0.95
    assert sum(cell["count"] for cell in told.confusions if cell["label"] == "diagnosis") == 90


def test_it_says_nothing_where_there_is_nothing_to_see(installed: None) -> None:
    rows = [row for seed in range(8) for row in judge(features(0.0, seed), "centres").rows]
    areas = [row["value"] for row in rows if (row["label"], row["metric"]) == ("mean", "auc")]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.06)


def test_it_knows_classes_that_training_cases_lack(installed: None) -> None:
    given = features(6.0)
    few = np.where(given.train_labels["diagnosis"] == 1, -1, given.train_labels["diagnosis"])
    none = np.full(90, -1)
    judged = judge(dataclasses.replace(given, train_labels={"diagnosis": few, "veil": none}), "centres")
    assert "b" not in {cell["predicted"] for cell in judged.confusions}


def test_the_study_of_the_page_is_accepted(installed: None) -> None:
    page = yaml.safe_load(SHOWN["study.yaml"])
    check(Study.model_validate(page))
    page["downstream"]["centres"]["temprature"] = page["downstream"]["centres"].pop("temperature")
    with pytest.raises(UserError, match=r"^downstream\.centres\.temprature: unknown field; did you mean 'temperature'"):
        check(Study.model_validate(page))


def test_without_its_package_there_is_no_such_protocol() -> None:
    assert "centres" not in PROTOCOLS
    with pytest.raises(UserError, match="'centres' is not a protocol"):
        check(Study.model_validate(yaml.safe_load(SHOWN["study.yaml"])))


def test_the_page_names_every_shipped_protocol_with_its_settings() -> None:
    lines = [line for line in (DOCS / "protocols.md").read_text().splitlines() if line.startswith("| `")]
    for name in PROTOCOLS.names():
        line = next(line for line in lines if f"`{name}`" in line.split("|")[1])
        assert [key for key in PROTOCOLS.find(name).Config.model_fields if f"`{key}: " not in line] == []


def test_the_studys_lines_on_top_of_the_page_are_accepted() -> None:
    text = (DOCS / "protocols.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    study = Study.model_validate(
        {"name": "top", "curriculum": {"length": [1, 1], "tasks": {"rotation": {}}}, **yaml.safe_load(text)}
    )
    few = study.entries["finetune@pad"]
    assert (few.labelled, few.repeats, few.data, study.entries["linear"].data) == (
        ("5", "20", "all"),
        3,
        "pad",
        "derm7pt",
    )
