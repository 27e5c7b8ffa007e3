"""Splits: patients whole, shares and strata near, seeded."""

import numpy as np
import pytest

from dermsearch.data.case import SPLITS
from dermsearch.data.store.splits import SHARES, groups_of, parse_shares, split_by_group
from dermsearch.errors import UserError


def people(n: int, seed: int) -> tuple[list[str], list[int]]:
    """Cases of patients with one to six lesions each, over three diagnoses of 70, 20 and 10 per cent."""
    rng = np.random.default_rng(seed)
    groups = [f"p{p}" for p in range(n) for _ in range(rng.integers(1, 7))]
    return groups, rng.choice(3, len(groups), p=[0.7, 0.2, 0.1]).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_whole_and_shares_are_near(seed):
    groups, strata = people(200, seed)
    found = np.array(split_by_group(groups, strata, seed))
    assert set(found) == set(SPLITS)
    for patient in set(groups):
        assert len(set(found[np.array(groups) == patient])) == 1
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert np.mean(found == split) == pytest.approx(share, abs=0.02)
        for kind in range(3):
            rows = np.array(strata) == kind
            assert np.mean(found[rows] == split) == pytest.approx(share, abs=0.05), (split, kind)


def test_strata_are_nearer_than_chance():
    """Against a split that deals patients without looking at their diagnoses."""
    groups, strata = people(150, 0)
    kinds = np.array(strata)

    def error(found: np.ndarray) -> float:
        return float(np.mean([abs(np.mean(found[kinds == k] == s) - w) for k in range(3) for s, w in
                              zip(SPLITS, SHARES, strict=True)]))  # fmt: skip

    ours, blind = [], []
    for seed in range(10):
        ours.append(error(np.array(split_by_group(groups, strata, seed))))
        blind.append(error(np.array(split_by_group(groups, [0] * len(groups), seed))))
    assert np.mean(ours) < 0.7 * np.mean(blind)


def test_seeded_and_blind_to_the_order_of_rows():
    groups, strata = people(60, 1)
    one = split_by_group(groups, strata, 4)
    assert one == split_by_group(groups, strata, 4)
    assert one != split_by_group(groups, strata, 5)
    order = np.random.default_rng(0).permutation(len(groups))
    again = split_by_group([groups[i] for i in order], [strata[i] for i in order], 4)
    assert again == [one[i] for i in order]


def test_other_shares():
    groups, strata = people(200, 2)
    found = split_by_group(groups, strata, 0, (0.5, 0.25, 0.25))
    assert found.count("train") / len(found) == pytest.approx(0.5, abs=0.02)


def test_few_patients():
    assert set(split_by_group(["a", "a", "b", "c", "d"], [0, 1, 0, 1, 0], 0)) <= set(SPLITS)
    assert split_by_group([], [], 0) == []


def test_no_case_goes_to_a_split_without_a_share():
    groups, strata = people(50, 0)
    assert set(split_by_group(groups, strata, 0, (0.8, 0.0, 0.2))) == {"train", "test"}


def test_groups_join_whatever_shares_a_patient_a_lesion_or_an_image():
    patients = ["a", "a", "", "b", "", ""]
    lesions = ["1", "2", "2", "", "", ""]
    assert groups_of(patients, lesions).tolist() == [0, 0, 0, 1, 2, 3]
    assert groups_of(patients, lesions, links=[(5, 3)]).tolist() == [0, 0, 0, 1, 2, 1]
    assert groups_of(["", ""]).tolist() == [0, 1]


def test_shares_are_read_and_refused_in_words():
    assert parse_shares("train=0.8, test=0.2") == (0.8, 0.0, 0.2)
    assert parse_shares("train=0.7,val=0.15,test=0.15") == SHARES
    for wrong, what in {
        "train=0.5,val=0.2": "sum to 1, not 0.7",
        "train=x": "'train=x' must be",
        "dev=0.5,train=0.5": "'dev=0.5' must be",
        "val=1": "train must have a share",
        "train=1.5,val=-0.5": "'train=1.5' must be",
        "train=nan,val=1": "'train=nan' must be",
        "": "'' must be",
    }.items():
        with pytest.raises(UserError, match=what):
            parse_shares(wrong)
