"""A source in a module of somebody else's, made by following docs/sources.md to the letter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from data.damage import encode, make, picture, quarantine
from data.page import files, install

from dermsearch.data.case import METADATA
from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.prepare import Order
from dermsearch.data.sources.base import SOURCES
from dermsearch.data.store.case_store import check_columns
from dermsearch.errors import UserError
from dermsearch.registry import Registry
from dermsearch.testing import check_source

WORDS = ("melanoma", "naevus", "mole", "basal cell carcinoma")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install("sources.md", tmp_path, monkeypatch)
    yield
    Registry.find.cache_clear()


def release(folder: Path, cases: int = 12) -> Path:
    """Harbour's, with an odd row."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,patient,lesion,diagnosis,age,sex,biopsied"]
    for n in range(cases):
        (folder / "images" / f"H{n}.jpg").write_bytes(encode(picture(n)))
        lines.append(f"H{n},p{n // 2},l{n},{WORDS[n % 4]},{30 + n},{'mf'[n % 2]},yes")
    lines.append("H1,p0,l1,wart,,,")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_the_source_of_the_page_prepares_a_store(installed: None, tmp_path: Path) -> None:
    assert set(files("sources.md")) == {"harbour.py", "pyproject.toml"}
    assert "harbour" in SOURCES and len([li for li in files("sources.md")["harbour.py"].splitlines() if li]) <= 40
    folder = release(tmp_path / "release")
    store = make(Order("harbour", str(folder), str(tmp_path / "store"), Form(32), max_bad=0.1))
    assert len(store) == 12 and store.modalities == ("derm",) and store.domain_name == "skin"
    assert store.classes == {"diagnosis": ("BCC", "NEV", "MEL")} and store.split_by == "patient"
    assert store.about["title"] == "Harbour hospital"
    (row,) = quarantine(store)
    assert row["where"] == "metadata.csv, line 14" and "already in metadata.csv, line 3" in row["reason"]
    assert set(store.columns) == {"age", "sex"} and store.columns["age"].level == METADATA["age"].level
    with pytest.raises(UserError, match=r"^data\.metadata: 'biopsied' is no input: it was decided by who suspected"):
        check_columns(store, ["biopsied"])


def test_it_keeps_what_a_source_promises(installed: None, tmp_path: Path) -> None:
    table = release(tmp_path / "release") / "metadata.csv"
    table.write_text(table.read_text().replace("H1,p0,l1,wart,,,", ""))
    check_source("harbour", tmp_path / "release")


def test_a_misspelt_name_is_told_the_nearest(installed: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^'harbor' is not a data set that dermsearch knows; did you mean 'harbour'\?"):
        make(Order("harbor", str(tmp_path), str(tmp_path / "store")))


def test_without_its_package_there_is_no_such_source() -> None:
    assert "harbour" not in SOURCES and "ham10000" in SOURCES
    with pytest.raises(UserError, match="'harbour' is not a data set that dermsearch knows"):
        SOURCES.find("harbour")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('images={"derm"', 'images={"photo"', "'photo' is no modality of skin; choose from: derm, clinic, xray"),
        ("    read=read,", '    read=read, domain="skim",', r"'skim' is not a domain; did you mean 'skin'\?"),
    ],
)
def test_a_source_beside_its_domain_is_refused(
    old: str, new: str, message: str, installed: None, tmp_path: Path
) -> None:
    module = tmp_path / "harbour.py"
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new))
    with pytest.raises(UserError, match=f"^{message}$"):
        make(Order("harbour", str(release(tmp_path / "release")), str(tmp_path / "store"), max_bad=0.1))
    assert not (tmp_path / "store").exists()
