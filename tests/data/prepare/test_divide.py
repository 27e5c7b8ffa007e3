"""Which split a case goes to: as published, by who belongs together, or by image if that is asked for."""

from dataclasses import replace

import numpy as np
import pytest

from dermsearch.data.prepare.divide import divide, torn, unit_of
from dermsearch.data.sources.base import CaseRecord
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError


def records(n: int = 60, patient: int = 0, lesion: int = 0, splits: str = "") -> list[CaseRecord]:
    """Cases of patients and lesions with so many cases each (0: not known), and a published split in turns."""
    return [
        CaseRecord(
            f"c{i}",
            {"derm": f"{i}.jpg"},
            {"dx": "ab"[i % 2]},
            lesion=f"l{i // lesion}" if lesion else "",
            patient=f"p{i // patient}" if patient else "",
            split=splits.split()[i % len(splits.split())] if splits else None,
        )
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("rows", "wanted", "by"),
    [
        (records(patient=3, lesion=2, splits="train val test"), Split(), "published"),
        (records(patient=3, lesion=2, splits="train val test"), Split(shares=(0.5, 0.25, 0.25)), "patient"),
        (records(patient=3, lesion=2, splits="train val test"), Split("lesion"), "lesion"),
        (records(patient=3, lesion=2), Split(), "patient"),
        (records(lesion=2), Split(), "lesion"),
        (records(), Split("image"), "image"),
    ],
)
def test_what_is_dealt_whole(rows: list[CaseRecord], wanted: Split, by: str) -> None:
    assert unit_of(wanted, rows) == by
    groups, splits, about = divide(rows, "dx", wanted, [])
    assert about["by"] == by and set(splits) == {"train", "val", "test"}
    if by == "published":
        assert splits == [r.split for r in rows]
    if by in ("patient", "lesion"):
        key = [getattr(r, by) for r in rows]
        assert all(len({s for s, k in zip(splits, key, strict=True) if k == word}) == 1 for word in key)
    if by == "patient":
        assert all(len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1 for group in groups)


def test_a_group_is_whatever_shares_a_patient_or_a_lesion() -> None:
    """By groups resamples are drawn, whatever was dealt whole."""
    for wanted in (Split(), Split("image")):
        for rows in (records(6, lesion=2), records(6, patient=2), records(6, patient=2, lesion=1)):
            groups = divide(rows, "dx", wanted, [])[0]
            assert groups[0] == groups[1] != groups[2] == groups[3] != groups[4] == groups[5] != groups[0]
    joined = records(6, patient=2, lesion=3)  # a lesion under two patients' names joins them
    assert len(set(divide(joined, "dx", Split(), [])[0])) == 1


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        (records(), Split(), "can only be split by image"),
        (records(), Split("patient"), "--split-by patient: the release names no patients"),
        (records(patient=2), Split("lesion"), "the release names no lesions"),
        (records(patient=2), Split("published"), "the release has no published split"),
    ],
)
def test_what_a_release_does_not_know_cannot_be_dealt_by(rows: list[CaseRecord], wanted: Split, message: str) -> None:
    with pytest.raises(UserError, match=message):
        unit_of(wanted, rows)


def test_a_published_split_without_validation_gets_one_from_its_training_cases() -> None:
    rows = records(90, patient=3, splits="train train test")
    for i, row in enumerate(rows):  # patients on one side each
        row.split = "test" if i // 3 % 3 == 2 else "train"
    groups, splits, about = divide(rows, "dx", Split(), [])
    assert about["validation"] and not torn(rows, groups, splits)
    assert all(s == "test" for s, r in zip(splits, rows, strict=True) if r.split == "test")
    assert 0.1 < splits.count("val") / (splits.count("val") + splits.count("train")) < 0.25


def test_a_case_without_a_published_split_goes_where_its_patient_is() -> None:
    rows = records(15, patient=3)
    for row, split in zip((0, 3, 4, 6, 10), ("test", "train", "test", "train", "val"), strict=True):
        rows[row].split = split
    _, splits, _ = divide(rows, "dx", Split(), [])
    assert splits[:6] == ["test"] * 3 + ["train", "test", "test"]
    assert splits[6:] == ["train"] * 3 + ["val"] * 3 + ["train"] * 3


def test_cases_with_the_same_image_stay_together_and_torn_groups_are_told() -> None:
    rows = records(40, lesion=1)
    groups, splits, _ = divide(rows, "dx", Split(), [(0, 39), (39, 20)])
    assert groups[0] == groups[20] == groups[39] and splits[0] == splits[20] == splits[39]
    rows = records(6, patient=2, splits="train val")
    groups, splits, _ = divide(rows, "dx", Split(), [])
    told = torn(rows, groups, splits)
    assert [t["reason"] for t in told] == [f"patient p{i} is in train and val of the published split" for i in range(3)]
    assert np.unique(groups).size == 3


def test_who_is_left_out_still_joins_the_others() -> None:
    """A picture of patient p, left out as a copy of one of patient q: p and q are one person, as are their pictures."""
    rows = records(120, patient=2)
    links = [(i, i + 60) for i in range(0, 60, 2)]
    kept = np.setdiff1d(np.arange(120), [i + 60 for i in range(0, 60, 2)])
    for wanted in (Split(), Split("lesion")):
        if wanted.by == "lesion":
            rows = [replace(r, lesion=r.patient, patient="") for r in rows]
        groups, splits, _ = divide(rows, "dx", wanted, links, kept)
        of = {rows[row].case: (group, split) for row, group, split in zip(kept, groups, splits, strict=True)}
        assert len(of) == 90 and all(of[f"c{i}"] == of[f"c{i + 1}"] == of[f"c{i + 61}"] for i in range(0, 60, 2))
    alone = [r for i, r in enumerate(rows) if i < 110]
    one, two = divide(alone, "dx", Split(), []), divide(rows, "dx", Split(), [], np.arange(110))
    assert one[0].tolist() == two[0].tolist() and one[1:] == two[1:]  # who joins nobody changes nothing
    turns = [replace(r, patient=f"p{i % 3}", lesion="") for i, r in enumerate(rows[:6])]
    assert divide(turns, "dx", Split(), [], np.arange(1, 6))[0].tolist() == [0, 1, 2, 0, 1]  # numbered as they come


def test_the_seed_decides() -> None:
    rows = records(120, patient=2)
    one, two, other = (divide(rows, "dx", Split(seed=s), [])[1] for s in (1, 1, 2))
    assert one == two != other
