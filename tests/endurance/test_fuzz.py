"""Forty to five hundred files of each kind that are nearly right; `benchmarks/fuzz.py` reads any number of any."""

from __future__ import annotations

from pathlib import Path

import pytest
from endurance.fuzz import TARGETS, tried

MANY = {
    "studies": 500, "overrides": 500, "leases": 250, "manifests": 100, "case stores": 100, "data folders": 40,
    "tables": 100,
}  # fmt: skip
FOUND = {  # what did not end in a sentence once
    "studies": [5855],  # a number of hundreds of digits within one of our own sentences
    # A history that is no text, parts that are, the stage of a judgement that is a list, a number that no float holds.
    "manifests": [1, 40, 72, 8073],
    # Manifests, indices and images with right checksums and odd contents.
    "case stores": [45, 54, 71, 85, 109, 119, 139, 1157, 2896, 4829, 1630],
    "tables": [45, 245, 1303],  # an objective that is a list; a protocol of hundreds of digits, or that is true
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_nearly_right_is_refused_in_a_sentence_or_read(name: str, tmp_path: Path) -> None:
    refused, read, wrong = tried(name, tmp_path, [*FOUND.get(name, []), *range(1000, 1000 + MANY[name])])
    assert wrong == [] and refused + read >= MANY[name]
