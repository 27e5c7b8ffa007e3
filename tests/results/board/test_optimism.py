"""The luck of the best on validation, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from dermsearch.results.board.optimism import optimism, shrinkage

CURRICULA, ERROR, STUDIES = 16, 0.03, 300
LUCKIEST = 1.766  # the mean of the largest of 16 standard normal numbers


def study(rng: np.random.Generator, truth: np.ndarray, shared: float = 0.0) -> np.ndarray:
    """Scores, and what resampling patients does to them."""
    noise = ERROR * rng.normal(size=(len(truth), 501)) + shared * rng.normal(size=501)
    return np.c_[truth + noise[:, 0], (truth + noise[:, 0])[:, None] + noise[:, 1:]]


@pytest.mark.parametrize(
    ("apart", "luck"), [(0.0, LUCKIEST * ERROR), (0.06, LUCKIEST * ERROR**2 / np.hypot(ERROR, 0.06)), (10.0, 0.0)]
)
def test_luck_is_what_the_best_is_better_than_it_is(apart: float, luck: float) -> None:
    rng = np.random.default_rng(1)
    found = [optimism(study(rng, 0.5 + apart * rng.normal(size=CURRICULA))).value for _ in range(STUDIES)]
    assert np.mean(found) == pytest.approx(luck, abs=0.005)


def test_the_test_score_falls_into_the_interval() -> None:
    rng, inside = np.random.default_rng(2), []
    for _ in range(STUDIES):
        truth = 0.5 + 0.02 * rng.normal(size=CURRICULA)
        scores = study(rng, truth)
        best = scores[:, 0].argmax()
        found = optimism(scores, ERROR)
        inside.append(found.low < scores[best, 0] - (truth[best] + ERROR * rng.normal()) < found.high)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_noise_that_all_share_makes_no_scores_alike() -> None:
    rng = np.random.default_rng(3)
    scores = study(rng, np.linspace(0.3, 0.7, CURRICULA), shared=0.5)
    assert shrinkage(scores[:, 0], scores[:, 1:] - scores[:, :1]) > 0.9


def test_one_curriculum_was_not_chosen() -> None:
    found = optimism(study(np.random.default_rng(4), np.array([0.5])))
    assert found.value == pytest.approx(0, abs=1e-9) and found.curricula == 1


def test_what_the_test_split_adds_is_drawn_often_enough_to_have_its_ends() -> None:
    """Of one patient's certainty on validation there is left what test has: 1.96 times its standard error."""
    for seed in range(5):
        found = optimism(np.full((1, 501), 0.5), 1.0, seed)
        assert (found.low, found.high) == pytest.approx((-1.96, 1.96), abs=0.1)
