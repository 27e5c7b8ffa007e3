"""Splits: patients whole, shares and strata near, seeded."""

import numpy as np
import pytest

from dermsearch.data.case import SPLITS
from dermsearch.data.splits import SHARES, split_by_group


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
