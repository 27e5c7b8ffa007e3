"""How often the images of each store of a mixture come in an epoch, where a weight decides and not their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Strata:
    """Of which store every unit of a pool is, and what weight each store has."""

    stores: np.ndarray  # (units,) their numbers
    weights: np.ndarray  # (stores,)

    def chances(self, own: np.ndarray | None = None) -> np.ndarray:
        """The chance of every unit, so that each store has its weight; `own` are those within a store, else equal."""
        own = np.ones(len(self.stores)) if own is None else own
        held = np.bincount(self.stores, own, len(self.weights))
        found = own * (self.weights / np.where(held, held, 1))[self.stores]
        return found / found.sum()

    def quotas(self, count: int) -> np.ndarray:
        """How many of `count` units are each store's: its share, to the nearest whole number that makes the sum."""
        share = count * np.bincount(self.stores, self.chances(), len(self.weights))
        found = np.floor(share).astype(int)
        found[(found - share).argsort(kind="stable")[: count - found.sum()]] += 1
        return found

    def order(self, seed: int, epoch: int, count: int) -> np.ndarray:
        """The units of an epoch, the same on every process; each store's lie evenly in it, so batches are mixed alike.

        A store's units come in rounds that go on from epoch to epoch: over any time each has come as often as the
        others of its store, or once less. A round shuffles the one before it by half of its length at most, so at least
        half of a store lies between a unit and its return: see `most`.
        """
        rng, places, drawn = np.random.default_rng([seed, epoch, len(self.stores)]), [], []
        for store, quota in enumerate(self.quotas(count).tolist()):
            units = np.flatnonzero(self.stores == store)
            if quota:
                drawn.append(rounds(units, np.random.default_rng([seed, store]), epoch * quota, quota))
                places.append((np.arange(quota) + rng.random(quota)) / quota)
        return np.concatenate(drawn)[np.concatenate(places).argsort(kind="stable")]

    def most(self, batch: int) -> np.ndarray:
        """How many units of each store a batch may hold; up to half of a store, none of it stands in a batch twice."""
        share = np.bincount(self.stores, self.chances(), len(self.weights))
        return np.ceil(share * (batch + 2 * len(share)) + 2).astype(int)


def rounds(units: np.ndarray, rng: np.random.Generator, first: int, count: int) -> np.ndarray:
    """Of an endless sequence in which all units come again and again, `count` from place `first`."""
    order, found, n = rng.permutation(units), [], len(units)
    for each in range((first + count - 1) // n + 1):
        if each:
            order = order[(np.arange(n) + rng.uniform(0, n / 2, n)).argsort(kind="stable")]
        if (each + 1) * n > first:
            found.append(order)
    start = first % n
    return np.concatenate(found)[start : start + count]
