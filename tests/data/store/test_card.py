"""The card and `describe` tell the same facts, for any data set on one screen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.inspect.test_check import make, rows

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.divide import note
from dermsearch.data.sources.base import CaseRecord
from dermsearch.data.store.card import card, describe
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import CARD, QUARANTINE
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError

ABOUT = {
    "title": "Spots of Mars",
    "licence": "CC BY-NC 4.0",
    "citation": "Someone: Spots. 2020",
    "home": "https://example.org/a_b",
    "notes": ("Beware of `dx_type`.",),
}


def told(folder: Path) -> tuple[str, str]:
    """The card, and the screen as one line with single spaces."""
    lines = list(describe(CaseStore(folder)))
    assert all(len(line) <= 100 for line in lines[1:]) and len(lines) <= 50
    assert not any(line != line.rstrip() or "\n" in line for line in lines)
    return (folder / CARD).read_text(), " ".join(" ".join(lines).split())


def both(folder: Path, *facts: str) -> None:
    markdown, screen = told(folder)
    plain = markdown.replace("**: ", " ").replace("**", "").replace("\\", "")
    for fact in facts:
        assert fact in plain, f"{fact} is not in the card:\n{markdown}"
        assert fact in screen, f"{fact} is not on the screen:\n{screen}"


def test_what_is_known_of_a_store(tmp_path):
    cases = [(replace(r, patient="" if i < 4 else r.patient), x) for i, (r, x) in enumerate(rows())]
    cases[3][0].labels["diagnosis"] = None
    cases[5][0].metadata["age"] = None
    odd = CaseRecord("c99", {})
    notes = [
        note(odd, "a.jpg", "left out", "is truncated"),
        note(odd, "b.jpg", "left out", "is truncated"),
        note(odd, "c.jpg", "kept", "is the same file as d.jpg"),
        note(odd, "e.jpg", "kept", "is the same file as f.jpg"),
        note(odd, "g.png", "left out", "is 12 x 9 pixels, less than 16 on a side"),
        note(odd, "", "left out", "'x' is no class of diagnosis; did you mean 'NEV'?"),
    ]
    settings = {"source": "test", "border": 0, "split": {"by": None, "seed": 3, "shares": (0.7, 0.15, 0.15)}}
    folder = make(tmp_path / "s", cases, about=ABOUT, notes=notes, settings=settings)
    both(
        folder,
        "Spots of Mars",
        "cases 24: 12 train, 6 val, 6 test",
        "patients 10; not known of 4 cases",
        "lesions 12",
        "groups 12, of cases that must stay together",
        "split as published",
        "missing: age 1 (4 %)",
        "duplicates kept",
        "2 left out: is truncated; 2 kept: is the same file as another; "
        "1 left out: is .. x .. pixels, less than .. on a side; 1 left out: .. is no class of diagnosis",
        "raw pixels, short side 16 px",
        f"fingerprint {CaseStore(folder).fingerprint}",
        "licence CC BY-NC 4.0",
        "citation Someone: Spots. 2020",
        "home https://example.org/a_b",
        "Beware of `dx_type`.",
    )
    markdown, screen = told(folder)
    assert "| NEV | 12 (52.2 %) | 6 (54.5 %) | 3 (50.0 %) | 3 (50.0 %) |" in markdown
    assert "| unknown | 1 | 1 | 0 | 0 |" in markdown
    assert "NEV\N{NO-BREAK SPACE}12" not in screen and "NEV 12 (55/50/50), MEL 11 (45/50/50), unknown 1" in screen
    assert "| derm | 24 | none | 20 x 16 | 80 x 60 | none |" in markdown
    assert "- **split.shares**: 0.7 0.15 0.15" in markdown and "split.by" not in markdown


def test_how_it_was_split(tmp_path):
    cases = [(replace(r, split=None), x) for r, x in rows()]
    both(make(tmp_path / "patient", cases), "split by patient, 70 / 15 / 15 %, seed 0")
    both(make(tmp_path / "lesion", cases, split=Split("lesion", seed=4)), "split by lesion, 70 / 15 / 15 %, seed 4")
    by_image = make(tmp_path / "image", cases, split=Split("image"))
    both(by_image, "split BY IMAGE (it leaks), 70 / 15 / 15 %", "pictures of one lesion or patient can stand in train")
    assert "> **Warning.** It is split BY IMAGE" in told(by_image)[0] and "WARNING It is split" in told(by_image)[1]
    parted = [(replace(r, split="train" if r.split == "val" else r.split), x) for r, x in rows()]
    both(make(tmp_path / "val", parted), "validation made from the published training cases, seed 0")
    assert "validation" not in told(by_image)[0].split("##")[0]


def test_sizes_and_modalities(tmp_path):
    cases = rows(6)
    for i, (record, pixels) in enumerate(cases):
        pixels["derm"] = np.random.default_rng(i).integers(0, 256, (70, 70 + 10 * i, 3), np.uint8)
        if i < 4:
            record.images["clinic"], pixels["clinic"] = f"{i}.jpg", pixels["derm"][:40].copy()
    markdown, screen = told(make(tmp_path / "s", cases, encoded=True))
    assert "| derm | 6 | none | 70 x 70 / 100 x 70 / 120 x 70 | 80 x 60 | 6 (100 %) |" in markdown
    assert "| clinic | 4 | 2 | 70 x 40 / 90 x 40 / 100 x 40 | 80 x 60 | none |" in markdown
    assert "clinic 4 2 70 x 40 / 90 x 40 / 100 x 40 80 x 60 none" in screen
    assert "JPEGs, short side 70 px" in markdown and "JPEGs, short side 70 px" in screen


def test_drawn_lesions(tmp_path):
    write_store(tmp_path / "s", synthetic(40, 32, 0), Split("patient"), SEVEN_POINT, {"source": "synthetic"})
    both(tmp_path / "s", "built-in drawn cases", "masks 40 of 40 cases", "quarantine empty", "lesions 40")
    assert "## Origin" not in told(tmp_path / "s")[0]


@pytest.mark.parametrize("count", [0, 2, 12, 13, 198])
def test_any_number_of_classes(tmp_path, count):
    names = tuple(f"class {i}" for i in range(count))
    cases = rows(450)
    for i, (record, _) in enumerate(cases):
        record.labels = {"kind": names[min(i % 210, count - 1)]} if count else {}
    markdown, screen = told(make(tmp_path / "s", cases, classes={"kind": names} if count else {}))
    assert markdown.count("\n| class ") == min(count, 12) + (count > 0)
    assert (f"and {count - 12} more" in markdown) == (f"and {count - 12} more" in screen) == (count > 12)
    if count == 198:
        assert "class 197 26 (" in screen  # the largest, though it is the last


def test_many_columns_of_metadata(tmp_path):
    cases = [(replace(r, metadata={f"column_{i}": None if i % 2 else 1.0 for i in range(30)}), x) for r, x in rows(8)]
    markdown, screen = told(make(tmp_path / "s", cases))
    assert "column_29 8 (100 %)" in markdown and "column_28 0" in markdown
    assert "column_11 8 (100 %), and 18 more columns" in screen and "column_12" not in screen


def test_words_of_a_release_stay_words(tmp_path):
    evil = "a|b\n# c\x1b[31m<script>"
    cases = [(replace(r, labels={"diagnosis": evil}), x) for r, x in rows(8)]
    about: dict[str, Any] = {"title": evil, "licence": evil}
    folder = make(tmp_path / "s", cases, classes={"diagnosis": (evil,)}, about=about)
    markdown, screen = told(folder)
    assert "\x1b" not in markdown + screen and "\n# c" not in markdown
    assert "| a\\|b # c \\[31m\\<script> | 8 (100.0 %)" in markdown


def test_a_lost_quarantine_table(tmp_path):
    folder = make(tmp_path / "s", rows())
    store = CaseStore(folder)
    assert card(store.about, store.index, []) == (folder / CARD).read_text()
    (folder / QUARANTINE).unlink()
    with pytest.raises(UserError, match=r"quarantine.arrow is missing or damaged"):
        list(describe(store))
