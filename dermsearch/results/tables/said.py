"""What classifiers said of cases, from the table of predictions: scores on any weighting of the same patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from dermsearch import metrics
from dermsearch.results.tables.measure import Measure, judged
from dermsearch.results.tables.schema import Results


@dataclass(frozen=True)
class Answers:
    """One label of one judgement: what is true of each case, and how probable each class was said to be."""

    name: str
    classes: tuple[str, ...]
    cases: np.ndarray  # names
    groups: np.ndarray  # patients, else lesions
    truth: np.ndarray  # class indices, -1 where unknown
    probabilities: np.ndarray  # (cases, classes)


@dataclass(frozen=True)
class Said:
    """One judgement: a stage judged by a protocol that learnt from one draw of labels."""

    stage: str
    curriculum: str
    root: str
    seed: int
    draw: int
    labels: Mapping[str, Answers]

    def scores(self, measure: Measure, weights: np.ndarray) -> np.ndarray:
        """(replicates,) of a whole-label metric, or its mean over labels, under weights (cases, replicates)."""
        chosen = self.labels if measure.label == metrics.MEAN_LABEL else {measure.label: self.labels[measure.label]}
        whole = [metrics.whole(measure.metric, x.truth, x.probabilities, weights) for x in chosen.values()]
        found = [metrics.Measurement("", "", measure.metric, 0, values) for values in whole]
        return next(metrics.mean_over_labels(found, 0, {})).values

    @property
    def groups(self) -> np.ndarray:
        """Of its cases."""
        return next(iter(self.labels.values())).groups


def said(results: Results, measure: Measure, table: str = "predictions") -> list[Said]:
    """Every judgement of one protocol that left predictions, whatever its metric."""
    rows: pa.Table = getattr(results, table)
    return list(parted(rows.filter(judged(measure))))


def parted(rows: pa.Table) -> Iterator[Said]:
    """The table cut where a judgement or a label begins: its rows lie case by case and class by class."""
    if not len(rows):
        return
    words = {name: column(rows, name) for name in ("stage", "curriculum", "root", "label", "case", "truth", "class")}
    numbers = {name: rows[name].to_numpy() for name in ("seed", "draw", "group", "probability")}
    told = np.stack([words["stage"][0], words["label"][0], numbers["seed"], numbers["draw"]])
    cuts = np.r_[0, 1 + np.flatnonzero((np.diff(told) != 0).any(0)), len(rows)]
    found: dict[tuple[str, int, int], dict[str, Answers]] = {}
    about: dict[tuple[str, int, int], tuple[str, str]] = {}
    for start, stop in pairwise(cuts.tolist()):
        word = {name: values[which[start]] for name, (which, values) in words.items()}
        key = (word["stage"], int(numbers["seed"][start]), int(numbers["draw"][start]))
        about[key] = word["curriculum"], word["root"]
        found.setdefault(key, {})[word["label"]] = label_of(word["label"], words, numbers, slice(start, stop))
    for key, labels in found.items():
        yield Said(key[0], *about[key], *key[1:], labels)


def label_of(
    name: str, words: Mapping[str, tuple[np.ndarray, list[str]]], numbers: Mapping[str, np.ndarray], part: slice
) -> Answers:
    """The rows of one label of one judgement."""
    which, values = words["class"]
    case = words["case"][0][part]
    classes = which[part][: 1 + int(np.argmax(np.r_[np.diff(case) != 0, True]))]
    every = slice(part.start, part.stop, len(classes))
    names = tuple(values[c] for c in classes)
    true, truths = words["truth"]
    place = np.array([*(names.index(word) if word in names else -1 for word in truths), -1])  # null comes as -1
    cases = np.array(words["case"][1], object)[words["case"][0][every]]
    probabilities = numbers["probability"][part].reshape(-1, len(names))
    return Answers(name, names, cases, numbers["group"][every], place[true[every]], probabilities)


def column(rows: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """A column of words as numbers, -1 where null, and what they stand for."""
    found = rows[name].unify_dictionaries().combine_chunks()
    found = found.chunk(0) if isinstance(found, pa.ChunkedArray) else found
    return found.indices.fill_null(-1).to_numpy(zero_copy_only=False), found.dictionary.to_pylist()
