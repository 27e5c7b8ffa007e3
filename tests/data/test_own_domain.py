"""A domain in a module of somebody else's, made by following docs/domains.md to the letter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from data.damage import encode, make, picture
from data.page import files, install
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.decode.image import Form
from dermsearch.data.domain import DOMAINS, SKIN
from dermsearch.data.inspect.check import check as check_store
from dermsearch.data.open import drawn_for_training, open_cases, store_folder
from dermsearch.data.prepare.mix import mix
from dermsearch.data.prepare.prepare import Order
from dermsearch.data.sources.base import Columns
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look, pictures
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError
from dermsearch.models.encoders import Encoders
from dermsearch.registry import Registry
from dermsearch.run.check import check, check_cases
from dermsearch.study.config import Study
from dermsearch.study.data import Data
from dermsearch.testing import check_domain
from dermsearch.work.features import look

CPU = torch.device("cpu")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install("domains.md", tmp_path, monkeypatch)
    yield
    Registry.find.cache_clear()


def study(**data: Any) -> Study:
    page = yaml.safe_load(files("domains.md")["study.yaml"])
    return Study.model_validate({**page, "data": {**page["data"], **data}})


def test_the_study_of_the_page_is_drawn_and_opened(installed: None, tmp_path: Path) -> None:
    assert set(files("domains.md")) == {"eye.py", "pyproject.toml", "study.yaml"} and "eye" in DOMAINS
    page = study()
    space, store = check(page), open_cases(page.main, tmp_path / "data")
    check_cases(page, space, {"data": store})
    assert store.domain is DOMAINS.find("eye") and store.domain.named == {"grade": "severe"}
    assert store.modalities == ("fundus",) and set(store.classes) == {"grade"} and store.split_by == "patient"
    assert len(store.split("train")) == drawn_for_training(page.main)
    assert store.table(["age"], np.arange(3)).known.all() and not check_store(store.folder).failed
    again = CaseStore(store.folder)
    assert again.domain_name == "eye" and again.fingerprint == store.fingerprint
    for name in ("eye", "imagenet"):
        seen = pictures(store, "fundus", np.arange(2), Look(32, statistics=name), CPU)
        assert (seen.mean, seen.std) == store.domain.statistics[name]


def test_the_named_classes_are_the_domains(installed: None, tmp_path: Path) -> None:
    page = yaml.safe_load(files("domains.md")["study.yaml"])
    page["objective"] = {"protocol": "linear", "metric": "named_recall", "label": "mean"}
    asked = Study.model_validate(page)
    store = open_cases(asked.main, tmp_path / "data")
    check_cases(asked, check(asked), {"data": store})
    encoders = Encoders.random("test_resnet", ("fundus",), "shared", 0)
    seen = look(encoders, store, asked.main, store.split("train"), "val", CPU, "fp32")
    assert seen.features.named == {"grade": "severe"}


@pytest.mark.parametrize("name", ["skin", "eye"])
def test_a_drawer_keeps_its_word(name: str, installed: None) -> None:
    """What the page asks of it, and of the shipped one too."""
    check_domain(name)


def test_how_many_are_for_training_is_told_as_it_will_be(tmp_path: Path) -> None:
    for data in (Data(cases=60, size=32), Data(cases=41, size=32, seed=3)):
        assert drawn_for_training(data) == len(open_cases(data, tmp_path).split("train"))


def test_two_domains_are_two_stores(installed: None, tmp_path: Path) -> None:
    one = Data(domain="eye", modalities=("fundus",), cases=40, size=32)
    assert store_folder(one, tmp_path) != store_folder(Data(cases=40, size=32), tmp_path)
    eyes, skin = open_cases(one, tmp_path).folder, open_cases(Data(cases=40, size=32), tmp_path).folder
    assert "domain" not in CaseStore(skin).settings and CaseStore(skin).domain is SKIN  # as they always were
    with pytest.raises(UserError, match=r"is of domain eye, .* of skin"):
        mix([eyes, skin], tmp_path / "mixed")
    named = {"source": "store", "path": str(eyes), "size": 32}
    with pytest.raises(UserError, match=r"^data\.domain: is 'skin', but the store at .* holds images of domain 'eye'$"):
        open_cases(Data.model_validate({**named, "modalities": ("derm",)}), tmp_path)
    assert open_cases(Data.model_validate({**named, "domain": "eye", "modalities": ("fundus",)}), tmp_path).side == 32


def test_ones_own_images_of_a_domain(installed: None, tmp_path: Path) -> None:
    for n in range(8):
        path = tmp_path / "own" / "ab"[n % 2] / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(n)))
    columns = Columns(modality="fundus", domain="eye")
    order = Order("folder", str(tmp_path / "own"), str(tmp_path / "s"), Form(32), split=Split("image"), columns=columns)
    assert make(order).domain.name == "eye"
    words = f"data prepare folder {tmp_path}/own -o {tmp_path}/t --side 32 --split-by image --domain eye".split()
    told = CliRunner().invoke(app, words)
    assert str(told.exception).startswith("'derm' is no modality of eye; choose from: fundus")
    assert CliRunner().invoke(app, [*words, "--modality", "fundus"], catch_exceptions=False).exit_code == 0
    assert CaseStore(tmp_path / "t").fingerprint == CaseStore(tmp_path / "s").fingerprint
    assert mix([tmp_path / "s"], tmp_path / "mixed")["settings"]["domain"] == "eye"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"domain": "eyes"}, r"data.domain: 'eyes' is not a domain; did you mean 'eye'\?"),
        ({"modalities": ["fundis"]}, r"data.modalities: must be of fundus, not 'fundis'; did you mean 'fundus'\?"),
        ({"domain": "skin"}, "data.modalities: must be of derm, clinic, xray, not 'fundus'; choose from: .*"),
        ({"normalise": "derm7pt"}, "data.normalise: must be one of imagenet, eye, not 'derm7pt'"),
    ],
)
def test_what_a_domain_does_not_know_is_one_sentence(data: dict[str, Any], message: str, installed: None) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        check(study(**data))


def test_the_objective_is_a_label_of_the_domain(installed: None) -> None:
    page = study().model_dump(mode="json", exclude_unset=True)
    page["objective"]["label"] = "diagnosis"
    with pytest.raises(UserError, match=r"^objective.label: must be one of grade, mean, not 'diagnosis'"):
        check(Study.model_validate(page))


def test_without_its_package_a_store_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    store = open_cases(Data(domain="eye", modalities=("fundus",), cases=40, size=32), tmp_path)
    monkeypatch.undo()
    Registry.find.cache_clear()
    again = CaseStore(store.folder)
    assert again.fingerprint == store.fingerprint and not check_store(store.folder).failed
    with pytest.raises(UserError, match=f"^{re.escape(str(store.folder))}: 'eye' is not a domain"):
        _ = again.domain
