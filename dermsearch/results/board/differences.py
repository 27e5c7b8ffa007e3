"""How much higher every curriculum of a study scores than another one: no pre-training, the best task alone, the best.

Where the study kept its predictions, patients are drawn together for both. Where it did not, a difference has the
patients' spread of both scores, as if they were other patients: wider than need be, and said to be unpaired.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import fmean

import numpy as np

from dermsearch.metrics import AVERAGED, case_weights
from dermsearch.results.board.intervals import Spread
from dermsearch.results.board.paired import Difference, Replicate, by_replicate, patients, together
from dermsearch.results.tables.lineages import Key
from dermsearch.results.tables.measure import Measure, Score
from dermsearch.results.tables.said import said
from dermsearch.results.tables.schema import Results

Resampled = Mapping[str, Mapping[Replicate, np.ndarray]]  # by stage


def drawn(results: Results, measure: Measure) -> Resampled:
    """A measure of every stage whose predictions were kept: itself, then on every resample of the patients.

    It takes nearly all of the time that a board takes, and several ask for the same: it is made once.
    """
    if measure not in results.resampled:
        found: dict[str, dict[Replicate, np.ndarray]] = {}
        for each in said(results, measure) if measure.metric in AVERAGED and not measure.parts else ():
            weight = weights_of(each.groups.astype(np.int64).tobytes())
            found.setdefault(each.stage, {})[each.seed, each.draw] = each.scores(measure, weight)
        results.resampled[measure] = found
    return results.resampled[measure]


@lru_cache(maxsize=4)  # all stages of a study are judged on the same cases
def weights_of(groups: bytes) -> np.ndarray:
    """`case_weights` of these groups, drawn once."""
    return case_weights(np.frombuffer(groups, np.int64))


def differences(
    scores: Mapping[Key, Sequence[Score]], references: Mapping[Key, Key], drawn: Resampled
) -> dict[Key, Difference]:
    """What each lineage is above its reference, over the seeds and draws that both have."""
    apart = {
        key: found
        for key, other in references.items()
        if key != other and (found := replicate_differences(scores[key], scores.get(other, ())))
    }
    seeds = any(len({seed for seed, _ in found}) > 1 for found in apart.values())
    values = {key: by_replicate(found, seeds) for key, found in apart.items()}
    first = {key: (key.root, key.curriculum.prefix(1), key.settings[:1]) for key in values}
    spread = Spread.of_differences(((first[key], values[key]) for key in values), seeds)
    alone = {key: patients_of(scores[key]) for key in {*values, *map(references.__getitem__, values)}}
    out = {}
    for key, of in values.items():
        ours, theirs = scores[key], scores[references[key]]
        half = paired_patients(ours, theirs, apart[key], drawn)
        paired = half is not None
        half = unpaired(alone[key], alone[references[key]]) if half is None else half
        out[key] = Difference(fmean(of), together(half, spread.half(len(of))), paired)
    return out


def replicate_differences(ours: Iterable[Score], theirs: Iterable[Score]) -> dict[Replicate, float]:
    """Of two curricula, by seed and draw; where one has other draws than the other, of their means."""
    by_seed = {score.seed: score for score in theirs}
    found: dict[Replicate, float] = {}
    for score in ours:
        if (other := by_seed.get(score.seed)) is None:
            continue
        a, b = score.values, other.values
        if (len(a), score.draws) != (len(b), other.draws):
            a, b = (score.value,), (other.value,)
        found |= {(score.seed, draw): x - y for draw, (x, y) in enumerate(zip(a, b, strict=True))}
    return found


def paired_patients(
    ours: Sequence[Score], theirs: Sequence[Score], shared: Mapping[Replicate, float], drawn: Resampled
) -> float | None:
    """The patients' half width where predictions of every shared replicate of both are there."""
    if not drawn:
        return None
    seeds = {seed for seed, _ in shared}
    a, b = (
        {r: values for score in side if score.seed in seeds for r, values in drawn.get(score.stage, {}).items()}
        for side in (ours, theirs)
    )
    # The same cases: the same number of resamples, and each seed at least once in both.
    if {seed for seed, _ in a.keys() & b.keys()} != seeds or len({len(v) for v in (*a.values(), *b.values())}) != 1:
        return None
    return patients(a, b)


def unpaired(ours: float | None, theirs: float | None) -> float | None:
    """The patients' half width of a difference as if each side had patients of its own."""
    known = [half for half in (ours, theirs) if half is not None]
    return math.hypot(*known) if known else None


def patients_of(scores: Iterable[Score]) -> float | None:
    """Half the width of a curriculum's interval over patients alone."""
    halves = [(s.below + s.above) / 2 for s in scores if s.below is not None and s.above is not None]
    return fmean(halves) if halves else None
