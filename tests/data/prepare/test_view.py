"""A part of a store has every kind of image that its cases have, whichever of them comes first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermsearch.data.case import Case
from dermsearch.data.inspect.check import check
from dermsearch.data.prepare import build
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.mix import mix
from dermsearch.data.prepare.version import version
from dermsearch.data.prepare.view import view
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.splits import Split


def store(folder: Path, modality: str, masks: str, split: Split = Split()) -> CaseStore:  # noqa: B008  it is frozen
    """Twelve cases of one modality; of `masks` an x is a case with one."""

    def cases() -> Iterator[Case]:
        rng = np.random.default_rng(len(modality))
        for i in range(12):
            image = {modality: rng.integers(0, 255, (32, 32, 3), np.uint8)}
            mask = np.full((32, 32), 255, np.uint8) if masks[i % len(masks)] == "x" else None
            yield Case(f"c{i}", f"l{i}", f"p{i}", image, {"diagnosis": i % 2}, {}, mask)

    return write_store(folder, cases(), split, {"diagnosis": ("a", "b")}, {"source": modality})


@pytest.mark.parametrize("shard", [5, 512])
def test_images_and_masks_that_the_first_cases_lack(
    shard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_CASES", shard)
    parts = store(tmp_path / "one", "derm", "-"), store(tmp_path / "two", "clinic", "-x")
    assert not parts[0].has("mask").any() and parts[1].has("mask").sum() == 6
    mix([part.folder for part in parts], tmp_path / "mixed")
    mixed = CaseStore(tmp_path / "mixed")
    part = view(mixed, tmp_path / "part", version(mixed, "diagnosis", ["a", "b"]))
    assert part.modalities == ("derm", "clinic") and len(part) == 24 and not check(part.folder).failed
    for plane in ("derm", "clinic", "mask"):
        assert np.array_equal(part.has(plane), mixed.has(plane)), plane
    rows = np.flatnonzero(mixed.has("clinic"))
    assert np.array_equal(part.pictures("clinic", rows)[0], mixed.pictures("clinic", rows)[0])
    assert np.array_equal(part.masks(rows)[0], mixed.masks(rows)[0]) and part.masks(rows)[0].any()


@pytest.mark.parametrize("by", ["image", "patient"])
def test_a_part_is_dealt_as_the_store_was(by: Any, tmp_path: Path) -> None:
    """So that whoever reads of it hears that it leaks, where it does."""
    whole = store(tmp_path / "whole", "derm", "-", Split(by))
    part = view(whole, tmp_path / "part", version(whole, None, ()))
    again = view(part, tmp_path / "again", version(part, None, ()))
    for each in (whole, part, again):
        card = (each.folder / "README.md").read_text()
        assert each.split_by == by and ("It is split BY IMAGE" in card) == (by == "image")
