"""derm7pt: grouping, label order, the published split and what can be wrong with its files."""

from collections import Counter
from pathlib import Path

import pytest
from data.releases import derm7pt, derm7pt_table

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.sources.base import Columns, Release
from dermsearch.data.sources.derm7pt import SOURCE, WORDS
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder


def read(folder: Path) -> Release:
    return SOURCE.read(Folder(folder), Columns())


def test_the_grouped_counts_are_the_published(tmp_path: Path) -> None:
    release = read(derm7pt_table(tmp_path))
    assert release.problems == []
    counts = {label: dict(Counter(r.labels[label] for r in release.records)) for label in release.classes}
    assert counts == {
        "diagnosis": {"BCC": 42, "NEV": 575, "MEL": 252, "MISC": 97, "SK": 45},
        "pigment_network": {"absent": 400, "typical": 381, "atypical": 230},
        "blue_whitish_veil": {"absent": 816, "present": 195},
        "vascular_structures": {"absent": 823, "regular": 117, "irregular": 71},
        "pigmentation": {"absent": 588, "regular": 118, "irregular": 305},
        "streaks": {"absent": 653, "regular": 107, "irregular": 251},
        "dots_and_globules": {"absent": 229, "regular": 334, "irregular": 448},
        "regression_structures": {"absent": 758, "present": 253},
    }
    assert counts == SOURCE.expected.classes
    assert Counter(r.split for r in release.records) == {"train": 413, "val": 203, "test": 395}


def test_labels_and_classes_stand_in_the_order_of_every_head(tmp_path: Path) -> None:
    release = read(derm7pt(tmp_path))
    assert release.classes == SEVEN_POINT
    assert list(release.classes) == list(SEVEN_POINT) == list(release.records[0].labels)
    assert sum(len(words) for words in WORDS.values()) == 20 + 3 + 2 + 8 + 5 + 3 + 3 + 4


def test_every_field_of_a_case(tmp_path: Path) -> None:
    records = read(derm7pt(tmp_path)).records
    assert [r.case for r in records] == ["1", "2", "3", "4", "5"]
    assert [r.split for r in records] == ["train", "train", "val", "train", "test"]
    second = records[1]
    assert second.images == {"derm": "images/NEL/Nel004.JPG", "clinic": "images/NEL/Nel003.JPG"}
    assert second.labels == {
        "diagnosis": "MEL",
        "pigment_network": "atypical",
        "blue_whitish_veil": "present",
        "vascular_structures": "irregular",
        "pigmentation": "irregular",
        "streaks": "irregular",
        "dots_and_globules": "irregular",
        "regression_structures": "present",
    }
    assert second.metadata == {
        "sex": "female",
        "site": "chest",
        "elevation": "palpable",
        "seven_point_score": 5.0,
        "level_of_diagnostic_difficulty": "high",
        "management": "excision",
        "case_id": "NEL003",
        "notes": "no clinical image, a dermoscopic one",
    }
    assert second.where == "meta/meta.csv, line 3"
    assert second.mask is None and second.lesion == second.patient == ""
    assert records[0].images["derm"] == "images/NEL/Nel002.JPG"  # the table says .jpg
    assert records[3].metadata["sex"] is None and records[3].metadata["elevation"] is None


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "case", "reason"),
    [
        (
            "meta.csv",
            "clark nevus",
            "clark naevus",
            "1",
            "'clark naevus' is no class of diagnosis; did you mean 'clark",
        ),
        ("meta.csv", "dotted", "dashed", "2", "'dashed' is no class of vascular_structures; did you mean 'dotted'"),
        (
            "valid_indexes.csv",
            "2\n",
            "2\n4\n",
            "5",
            r"row 4 \(from 0\) is in both valid_indexes.csv and test_indexes.csv",
        ),
        (
            "test_indexes.csv",
            "4\n",
            "",
            "5",
            r"row 4 \(from 0\) is in none of train_indexes.csv, valid_indexes.csv, test",
        ),
        ("test_indexes.csv", "4\n", "4\n5\n", "", "names row 5, and meta/meta.csv has 5 rows, counted from 0"),
        ("test_indexes.csv", "4\n", "4\n-1\n", "", "'-1' is no number of a row"),
        ("test_indexes.csv", "4\n", "4\nfour\n", "", "'four' is no number of a row"),
        ("meta.csv", "NEL/Nel001.jpg", "../../../etc/passwd", "1", "is no path inside the release's folder"),
        ("meta.csv", "NEL/Nel001.jpg,NEL/Nel002.jpg", ",", "1", "is missing: no image file of it is in the folder"),
    ],
)
def test_a_row_that_cannot_be_used(name: str, old: str, new: str, case: str, reason: str, tmp_path: Path) -> None:
    folder = derm7pt(tmp_path)
    edit(folder, f"meta/{name}", old, new)
    release = read(folder)
    assert [p.case for p in release.problems] == [case]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(release.problems[0].reason)
    assert [r.case for r in release.records] == [c for c in "12345" if c != case]


def test_a_damaged_row_still_counts_as_a_row(tmp_path: Path) -> None:
    folder = derm7pt(tmp_path)
    edit(folder, "meta/meta.csv", "2,melanoma (in situ),5,", "2,melanoma (in situ),")
    release = read(folder)
    assert [(p.case, p.where, p.reason) for p in release.problems] == [
        ("2", "meta/meta.csv, line 3", "18 fields where the header has 19")
    ]
    assert [(r.case, r.split) for r in release.records] == [("1", "train"), ("3", "val"), ("4", "train"), ("5", "test")]


def test_a_label_that_is_missing_is_kept_as_unknown(tmp_path: Path) -> None:
    folder = derm7pt(tmp_path)
    edit(folder, "meta/meta.csv", "clark nevus", "")
    release = read(folder)
    assert release.problems == [] and release.records[0].labels["diagnosis"] is None


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_missing_file_of_the_split_is_named(name: str, tmp_path: Path) -> None:
    folder = derm7pt(tmp_path)
    (folder / f"meta/{name}_indexes.csv").unlink()
    with pytest.raises(UserError, match=f"{folder}: has no meta/{name}_indexes.csv"):
        read(folder)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = derm7pt(tmp_path)
    edit(folder, "meta/meta.csv", "pigmentation", "pigmentatoin")
    with pytest.raises(UserError, match=r"meta/meta.csv has no column 'pigmentation'; did you mean 'pigmentatoin'\?"):
        read(folder)
