"""Who judges the nodes of a study: its lines of `downstream`, one judge for each draw of labels.

An evaluator looks at what a stage hands on, in the stage's own job. A fit trains a predictor from it, as a leaf of
the tree, and that is judged. A segment is judged only by what decides on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from dermsearch.evaluate.base import PROTOCOLS, reads_tables
from dermsearch.fit.base import is_fit
from dermsearch.nature import TARGET
from dermsearch.search.tree.node import Node
from dermsearch.storage.keys import fit_key
from dermsearch.study.config import Downstream, Study
from dermsearch.work.job import Cases, Judge

Judgement = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What became of one judgement of a node."""

    judge: Judge
    judgement: Judgement | None  # its rows and counts; see `Judges.kept`
    reason: str = ""  # why there is none
    reused: bool = False
    traceback: str = ""  # of a bug in a protocol


class Judges:
    """All of a study's."""

    def __init__(self, study: Study, sets: Mapping[str, Cases], precision: str, split: str = "val") -> None:
        self.objective, self.sets, self.precision = study.objective, sets, precision
        judges = [judge for each in study.entries.values() for judge in draws(each, study, split, sets)]
        self.fits = [judge for judge in judges if is_fit(PROTOCOLS.find(judge.protocol))]
        self.evaluators = [judge for judge in judges if judge not in self.fits]
        # The objective is the mean over lines of downstream, and of each over its draws.
        self.lines = [[j for j in draws(entry, study, split, sets) if j.labelled == few] for entry, few in study.wanted]
        self.wanted = [judge for line in self.lines for judge in line]

    @property
    def main(self) -> Cases:
        """The data set that stages train on."""
        return next(iter(self.sets.values()))

    def of(self, node: Node) -> list[Judge]:
        """Those that judge it in its own job."""
        if node.judge is not None:
            return [node.judge]
        if not node.until:
            return self.evaluators
        return [judge for judge in self.evaluators if judge in self.wanted] if node.judged else []

    def fits_of(self, node: Node) -> list[Judge]:
        """Those that train a predictor from what it hands on."""
        if not node.until:
            return self.fits
        return [judge for judge in self.fits if judge in self.wanted] if node.judged else []

    def key(self, node: Node, judge: Judge) -> str:
        """Of a judgement of the node."""
        return judge.key(node.key, self.sets[judge.data], self.precision, node.seed)

    def fit_key(self, node: Node, judge: Judge) -> str:
        """Of the predictor that is trained from it."""
        own = judge.protocol, judge.version, judge.config, judge.view(self.sets[judge.data]), judge.labelled, judge.draw
        return fit_key(node.key, *own, self.precision, node.seed)

    def value(self, verdicts: Sequence[Verdict]) -> tuple[float | None, float]:
        """The objective, on the mean over draws, and how much it may be worth; None if a draw is missing."""
        of = {each.judge.model_dump_json(): self._row(each) for each in verdicts if each.judge in self.wanted}
        lines = [[of.get(judge.model_dump_json()) for judge in line] for line in self.lines]
        found = [[row for row in line if row is not None and row["value"] is not None] for line in lines]
        if any(len(rows) < len(line) for rows, line in zip(found, lines, strict=True)):
            return None, float("inf")
        values = [fmean(row["value"] for row in rows) for rows in found]
        highs = [fmean(row.get("ci_high") or float("inf") for row in rows) for rows in found]
        return fmean(values), fmean(highs)

    def kept(self, verdict: Verdict) -> Verdict:
        """What of it is still asked for once its rows are in the tables: of thousands of stages no more is kept."""
        if verdict.judgement is None:
            return verdict
        row = self._row(verdict)
        return replace(verdict, judgement={"rows": [] if row is None else [row]})

    def _row(self, verdict: Verdict) -> dict[str, Any] | None:
        o = self.objective
        wanted = (o.metric, o.label, "", "val")
        rows = verdict.judgement["rows"] if verdict.judgement else []
        return next((r for r in rows if (r["metric"], r["label"], r["class"], r["split"]) == wanted), None)


def draws(entry: Downstream, study: Study, split: str, sets: Mapping[str, Cases]) -> Iterator[Judge]:
    """One for each number of labels and each draw of so many. All labels are drawn once, unless a fit is repeated."""
    protocol = PROTOCOLS.find(entry.protocol)
    config = protocol.Config.model_validate(entry.config).model_dump(mode="json")
    source = ""
    if TARGET in protocol.nature.needs:  # not the data set's name is part of keys, but what is seen of it
        source = config.pop("source") or next(iter(study.sets))
    for labelled in entry.labelled if protocol.nature.learns else ("all",):
        repeats = entry.repeats if protocol.nature.learns and (labelled != "all" or is_fit(protocol)) else 1
        for draw in range(repeats):
            yield Judge(
                protocol=entry.protocol,
                version=protocol.version,
                config=config,
                data=entry.data,
                labelled=labelled,
                draw=draw,
                split=split,
                metadata=study.sets[entry.data].metadata if reads_tables(protocol, config) else (),
                source=source,
                source_view=sets[source].view if source in sets else {},
            )
