"""One interval holds patients and replicates at any number of seeds, and covers what it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dermsearch.results.board.intervals import NO_SPREAD, Spread, alike, interval
from dermsearch.results.tables.measure import Score


def score(*values: float, below: float | None = 0.03, above: float | None = 0.02, seed: int = 0) -> Score:
    return Score("s", "odc", "", seed, 100, values, below, above)


def test_one_seed_and_one_draw_keep_their_own_interval() -> None:
    alone = [score(0.7)]
    assert Spread.of([alone, [score(0.5)]]).freedom == 0
    assert interval(alone, Spread.of([alone])) == pytest.approx((0.67, 0.72))
    assert Spread.of([alone, [], []]) == NO_SPREAD, "who has no score says nothing"
    assert interval([score(0.7, below=None, above=None)], NO_SPREAD) == (None, None)


def test_seeds_are_pooled_over_curricula_and_added_to_patients() -> None:
    curricula = [[score(v), score(v + d, seed=1)] for v, d in ((0.6, 0.02), (0.7, 0.01), (0.5, 0.03))]
    spread = Spread.of(curricula)
    assert spread.freedom == 3 and spread.variance == pytest.approx((0.02**2 + 0.01**2 + 0.03**2) / 2 / 3)
    half = stats.t(3).ppf(0.975) * math.sqrt(spread.variance / 2)
    expected = (0.61 - math.hypot(0.03, half), 0.61 + math.hypot(0.02, half))
    assert interval(curricula[0], spread) == pytest.approx(expected)
    # A curriculum of one seed among others is no surer than they are.
    half *= math.sqrt(2)
    assert interval([score(0.8)], spread) == pytest.approx((0.8 - math.hypot(0.03, half), 0.8 + math.hypot(0.02, half)))


def test_two_seeds_do_not_span_everything() -> None:
    """Student's t of one curriculum's two seeds alone was 12.7 standard errors: [0, 100] of what is known to 3."""
    curricula = [[score(0.5 + 0.01 * k), score(0.56 + 0.01 * k, seed=1)] for k in range(15)]
    low, high = interval(curricula[0], Spread.of(curricula))
    assert low is not None and high is not None and 0.05 < high - low < 0.15


def test_draws_are_replicates_only_where_there_is_one_seed() -> None:
    one, two = [score(0.6, 0.62, 0.64)], [[score(0.6, 0.62, 0.64), score(0.7, 0.72, 0.74, seed=1)]]
    spread = Spread.of([one])
    assert (spread.freedom, spread.seeds) == (2, False) and spread.variance == pytest.approx(0.02**2)
    half = stats.t(2).ppf(0.975) * 0.02 / 3**0.5
    assert interval(one, spread) == pytest.approx((0.62 - math.hypot(0.03, half), 0.62 + math.hypot(0.02, half)))
    spread = Spread.of(two)
    assert (spread.freedom, spread.seeds) == (1, True) and spread.variance == pytest.approx(0.1**2 / 2)


def test_a_root_that_is_the_same_for_every_seed_tells_nothing_of_their_spread() -> None:
    file, drawn = [score(0.5), score(0.5, seed=1)], [score(0.5), score(0.54, seed=1)]
    assert alike(file) and not alike(drawn) and not alike(file[:1])
    assert Spread.of([drawn], [file]) == Spread.of([drawn]) != Spread.of([drawn, file])


def test_nothing_is_outside_what_a_metric_can_be() -> None:
    apart = Spread(0.5, 4, True)
    assert interval([score(0.9), score(0.1, seed=1)], apart) == (0, 1)
    low, high = interval([score(9.0), score(2.0, seed=1)], Spread(50.0, 4, True), "mean_rank")
    assert low == 1 and high is not None and high > 9


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_it_covers_the_truth_19_times_in_20(seeds: int) -> None:
    """Patients are the same for all seeds, seeds are noise of their own; ten curricula tell how large that is."""
    rng, held = np.random.default_rng(seeds), 0
    patients, noise, trials = 0.02, 0.03, 600
    for _ in range(trials):
        shared = rng.normal(0, patients)
        others = [[score(x) for x in rng.normal(0.5, noise, size=max(seeds, 2))] for _ in range(10)]
        width = 1.96 * patients
        own = [score(0.6 + shared + x, below=width, above=width) for x in rng.normal(0, noise, size=seeds)]
        low, high = interval(own, Spread.of([own, *others]))
        held += low is not None and high is not None and low <= 0.6 <= high
    assert 0.925 <= held / trials <= 0.975


@pytest.mark.parametrize("level", [0.90, 0.99])
def test_the_level_is_95(level: float) -> None:
    spread = Spread(1e-4, 10_000, True)
    low, high = interval([score(0.5, below=0.0, above=0.0)], spread)
    assert low is not None and high is not None
    z = (high - low) / 2 / 0.01
    assert z == pytest.approx(1.96, abs=0.01) and abs(z - stats.norm.ppf((1 + level) / 2)) > 0.2


def test_what_is_no_share_may_be_above_one() -> None:
    assert interval([score(1.5)], NO_SPREAD, "ail_ratio") == pytest.approx((1.47, 1.52))
    assert interval([score(-0.5)], NO_SPREAD, "lift") == pytest.approx((-0.53, -0.48))
    assert interval([score(0.99)], NO_SPREAD, "auc") == pytest.approx((0.96, 1.0))
