"""Who judges the stages of a study: its lines of `downstream`, one judge for each draw of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.fit.base import is_fit
from dermsearch.study.config import Entry, Study
from dermsearch.work.job import Judge


@dataclass(frozen=True)
class Judges:
    """Of a study."""

    evaluators: tuple[Judge, ...]  # look at what a stage hands on, in the stage's own job
    fits: tuple[Judge, ...]  # each trains a predictor, as a node of its own
    wanted: tuple[Judge, ...]  # those of both whose numbers, on the mean over draws, are the objective

    @classmethod
    def of(cls, study: Study) -> Judges:
        """All of a study's."""
        entry, few = study.wanted
        judges = [judge for each in study.entries.values() for judge in draws(each)]
        wanted = [judge for judge in draws(entry) if judge.labelled == few]
        fits = [judge for judge in judges if is_fit(PROTOCOLS.find(judge.protocol))]
        return cls(tuple(j for j in judges if j not in fits), tuple(fits), tuple(wanted))

    @property
    def deciding(self) -> Judges:
        """Those alone that a segment is compared by."""
        evaluators, fits = ([j for j in some if j in self.wanted] for some in (self.evaluators, self.fits))
        return Judges(tuple(evaluators), tuple(fits), self.wanted)


def draws(entry: Entry) -> Iterator[Judge]:
    """One for each number of labels and each draw of so many. All labels are drawn once, unless a fit is repeated."""
    protocol = PROTOCOLS.find(entry.protocol)
    config = protocol.Config.model_validate(entry.config).model_dump(mode="json")
    for labelled in entry.labelled if protocol.nature.learns else ("all",):
        repeats = entry.repeats if labelled != "all" or is_fit(protocol) else 1
        for draw in range(repeats if protocol.nature.learns else 1):
            yield Judge(
                protocol=entry.protocol,
                version=protocol.version,
                config=config,
                data=entry.data,
                labelled=labelled,
                draw=draw,
            )
