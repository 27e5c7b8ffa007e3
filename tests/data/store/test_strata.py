"""Weights of a mixture's stores: counts drawn in an epoch, none twice in a batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dermsearch.data.prepare.mix import weights_of
from dermsearch.data.store.strata import Strata
from dermsearch.errors import UserError
from dermsearch.pretext.batch import epoch_order

SIZES, WEIGHTS = (100, 20, 300), (1.0, 1.0, 2.0)
EPOCHS, COUNT = 12, 420


def strata(sizes: tuple[int, ...] = SIZES, weights: tuple[float, ...] = WEIGHTS) -> Strata:
    """Stores whose units do not lie together."""
    of = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Strata(of, np.array(weights))


def test_an_epoch_holds_each_store_by_its_weight() -> None:
    told = strata()
    assert told.quotas(COUNT).tolist() == [105, 105, 210]
    assert told.quotas(418).tolist() == [105, 104, 209] and told.quotas(418).sum() == 418
    for epoch in range(EPOCHS):
        drawn = told.order(7, epoch, COUNT)
        assert np.bincount(told.stores[drawn]).tolist() == [105, 105, 210]


def test_units_of_a_store_come_equally_often_over_the_epochs() -> None:
    told = strata()
    seen = np.zeros(len(told.stores), int)
    for epoch in range(EPOCHS):
        seen += np.bincount(told.order(7, epoch, COUNT), minlength=len(seen))
        for store in range(3):
            own = seen[told.stores == store]
            assert own.max() - own.min() <= 1, (epoch, store)


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    told, one = strata(), strata().order(7, 3, COUNT)
    assert np.array_equal(one, told.order(7, 3, COUNT)), "whatever was asked before"
    for other in (told.order(8, 3, COUNT), told.order(7, 4, COUNT)):
        assert not np.array_equal(one, other)


def test_batches_are_mixed_alike_and_hold_nothing_twice() -> None:
    """As long as none of them takes more than half of a store, which `most` bounds."""
    told = strata((100, 44, 300))
    assert (2 * told.most(64) <= np.bincount(told.stores)).all()
    for seed, epoch in itertools.product(range(5), range(EPOCHS)):
        for batch in told.order(seed, epoch, 64 * 7).reshape(7, 64):
            held = np.bincount(told.stores[batch], minlength=3)
            assert (held <= told.most(64)).all() and held == pytest.approx([16, 16, 32], abs=5)
            assert len(set(batch.tolist())) == 64


def test_rounds_of_a_store_are_other_ones() -> None:
    told = strata((50,), (3.0,))
    one, two = told.order(0, 0, 100).reshape(2, 50)
    assert sorted(one) == sorted(two) == list(range(50)) and not np.array_equal(one, two)
    assert np.corrcoef(one.argsort(), told.order(0, 6, 50).argsort())[0, 1] < 0.9, "old neighbours part"


def test_draws_with_replacement_keep_the_weights() -> None:
    told = strata()
    drawn = epoch_order(0, 0, len(told.stores), 40_000, True, strata=told)
    assert np.bincount(told.stores[drawn]) / 40_000 == pytest.approx([0.25, 0.25, 0.5], abs=0.01)
    rare = np.where(np.arange(len(told.stores)) % 10 == 0, 9.0, 1.0)  # a tenth of each store, half of its chances
    drawn = epoch_order(0, 0, len(told.stores), 40_000, True, rare, told)
    assert np.bincount(told.stores[drawn]) / 40_000 == pytest.approx([0.25, 0.25, 0.5], abs=0.01)
    assert (rare[drawn] == 9).mean() == pytest.approx(0.5, abs=0.1)


def test_a_store_without_an_image_takes_no_share() -> None:
    told = Strata(np.array([0, 0, 2, 2]), np.array([1.0, 5.0, 3.0]))
    assert told.quotas(8).tolist() == [2, 0, 6] and told.chances().tolist() == [0.125, 0.125, 0.375, 0.375]
    assert np.bincount(told.stores[told.order(0, 0, 8)], minlength=3).tolist() == [2, 0, 6]


def test_weights_in_words() -> None:
    stores = ["data/a", "data/b", "data/c"]
    assert weights_of(stores, None) is None and weights_of(stores, ["equal"]) == [1, 1, 1]
    assert weights_of(stores, ["b=2", "a=0.5"]) == [0.5, 2, 1]
    for told, said in (
        ("d=2", "--weight: 'd' is none of the stores"),
        ("b", "must be b with a number above 0, such as b=2, not 'b'"),
        ("b=0", "such as b=2, not 'b=0'"),
        ("b=nan", "not 'b=nan'"),
        ("b=x", "not 'b=x'"),
    ):
        with pytest.raises(UserError, match=said):
            weights_of(stores, [told])
