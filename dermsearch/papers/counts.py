"""What printed percentages say about the counts behind them: which integers give exactly these digits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice

import numpy as np

SINGLE = 2e-7  # relative error of a number that went through single precision
LOOK = 1000  # of the counts that fit, how many are compared for the nearest


@dataclass(frozen=True)
class Printed:
    """A percentage as printed: 77.3 stands for anything that rounds to it."""

    value: float
    digits: int  # after the point; below 0: before it

    @classmethod
    def of(cls, text: str, percent: bool = True, decimals: int = 2) -> Printed:
        """Read a plain number, in percent or as a fraction; raises where the text is none.

        A fraction has so many decimals at least: spreadsheets print 0.80 as 0.8.
        """
        number = Decimal(text)
        exponent = number.as_tuple().exponent
        if not isinstance(exponent, int):
            raise ValueError(f"{text} is not finite")
        shift = 0 if percent else 2
        return cls(float(number.scaleb(shift)), max(0 if percent else decimals - shift, -exponent - shift))

    @property
    def unit(self) -> float:
        """One unit of the last digit."""
        return 10.0**-self.digits

    def bounds(self, units: float = 0.5) -> tuple[float, float]:
        """The fractions between which the number lies if it is off by so many units of its last digit at most."""
        half = max(units * self.unit, SINGLE * self.value)
        return (self.value - half) / 100, (self.value + half) / 100

    def __str__(self) -> str:
        return in_digits(self.value, self.digits)


def in_digits(value: float, digits: int) -> str:
    """A percentage with so many digits after the point; with fewer than none as tens."""
    return f"{round(value, digits) if digits < 0 else value:.{min(max(digits, 0), 6)}f}"


@dataclass(frozen=True)
class Counts:
    """How many cases are of the class that is reported, of how many; and the predictions where they are known."""

    positive: int
    total: int
    hits: int | None = None  # true positives
    false_alarms: int | None = None
    others: tuple[tuple[str, int], ...] = ()  # the label's other classes

    @property
    def negative(self) -> int:
        """Cases of any other class."""
        return self.total - self.positive


def rates(hits: int, false_alarms: int, counts: Counts) -> dict[str, float]:
    """Sensitivity, specificity and both predictive values; the value of what is never predicted counts as 0."""
    rejected = counts.negative - false_alarms
    left = counts.total - hits - false_alarms
    return {
        "sens": hits / counts.positive,
        "spec": rejected / counts.negative,
        "prec": hits / (hits + false_alarms) if hits + false_alarms else 0.0,
        "npv": rejected / left if left else 0.0,
    }


class Fits:
    """All pairs of true and false positives whose rates lie within the bounds, found without trying each pair."""

    def __init__(self, bounds: Mapping[str, tuple[float, float]], counts: Counts) -> None:
        positive, negative = counts.positive, counts.negative
        # For each number of true positives the bounds leave one interval of false positives.
        floor, ceiling = bounds.get("sens", (0.0, 1.0))
        first = max(0, math.ceil(positive * floor - 1e-9))
        last = min(positive, math.floor(positive * ceiling + 1e-9))
        if counts.hits is not None:
            first, last = max(first, counts.hits), min(last, counts.hits)
        hits = np.arange(first, last + 1)
        low = np.full(len(hits), 0 if counts.false_alarms is None else counts.false_alarms, float)
        high = np.full(len(hits), negative if counts.false_alarms is None else counts.false_alarms, float)
        if "spec" in bounds:
            floor, ceiling = bounds["spec"]
            low, high = np.maximum(low, negative * (1 - ceiling)), np.minimum(high, negative * (1 - floor))
        if "prec" in bounds:
            least, most = partner(hits, *bounds["prec"])
            low, high = np.maximum(low, least), np.minimum(high, most)
        if "npv" in bounds:  # the same with the classes exchanged: rejected cases are the hits
            least, most = rejected(positive - hits, *bounds["npv"])
            low, high = np.maximum(low, negative - most), np.minimum(high, negative - least)
        low, high = np.ceil(low - 1e-9), np.floor(high + 1e-9)
        self.counts = counts
        self.hits, self.low, self.high = hits[high >= low], low[high >= low], high[high >= low]

    def __len__(self) -> int:
        return int((self.high - self.low + 1).sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for hits, low, high in zip(self.hits, self.low, self.high, strict=True):
            yield from ((int(hits), alarms) for alarms in range(int(low), int(high) + 1))

    def nearest(self, values: Mapping[str, float]) -> tuple[int, int]:
        """The pair whose rates are nearest to the given ones; of very many, one of the first."""

        def distance(pair: tuple[int, int]) -> float:
            found = rates(*pair, self.counts)
            return sum(abs(found[name] - value) for name, value in values.items())

        return min(islice(self, LOOK), key=distance)


def partner(hits: np.ndarray, floor: float, ceiling: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most false positives with which hits / (hits + false) is within the bounds; 0 / 0 is 0."""
    hits = hits.astype(float)
    most = hits * (1 - floor) / floor if floor > 0 else np.full(len(hits), np.inf)
    least = hits * (1 - ceiling) / ceiling if 0 < ceiling < 1 else np.zeros(len(hits))
    impossible = (hits == 0) & (floor > 0) | (hits > 0) & (ceiling <= 0)
    return np.where(impossible, np.inf, least), np.where(impossible, -np.inf, most)


def rejected(missed: np.ndarray, floor: float, ceiling: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most true negatives with which true / (true + missed) is within the bounds; 0 / 0 is 0."""
    missed = missed.astype(float)
    least = np.maximum(missed * floor / (1 - floor), 1.0) if floor > 0 else np.zeros(len(missed))
    most = missed * ceiling / (1 - ceiling) if ceiling < 1 else np.full(len(missed), np.inf)
    return least, most


def other_positives(cells: Mapping[str, Printed], counts: Counts, most: int = 5) -> list[int]:
    """Numbers of positives among as many cases that do give these digits, the nearest to the stated one first."""
    bounds = {name: cell.bounds() for name, cell in cells.items()}
    found: list[int] = []
    for away in range(1, min(counts.total, 2 * LOOK)):
        for positive in (counts.positive - away, counts.positive + away):
            if 0 < positive < counts.total and len(Fits(bounds, Counts(positive, counts.total))):
                found.append(positive)
        if len(found) >= most:
            break
    return found[:most]


def mean_bounds(members: Sequence[Printed]) -> tuple[float, float]:
    """Between which percentages the mean of the unrounded numbers lies."""
    lows, highs = zip(*(member.bounds() for member in members), strict=True)
    return 100 * sum(lows) / len(members), 100 * sum(highs) / len(members)
