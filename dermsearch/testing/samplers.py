"""What every sampler promises, see docs/samplers.md."""

from __future__ import annotations

import random
import zlib
from collections import deque
from typing import Any

import numpy as np

from dermsearch.search.propose.known import stages
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.propose.sampler import SAMPLERS, Sampler
from dermsearch.search.space.checks import space_of
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.space import Space
from dermsearch.study.config import Search, Study
from dermsearch.testing.claims import claim

PLAIN: dict[str, Any] = {"relative_location": {}, "moco_v2": {"queue": 64}, "odc": {"clusters": 4}}
CHOICES = {"moco_v2": {"queue": 64, "temperature": {"choice": [0.1, 0.2]}}, "odc": {"clusters": {"choice": [4, 8]}}}
RANGES = {"moco_v2": {"queue": 64, "lr": {"log": [0.01, 1.0]}}, "odc": {"clusters": {"range": [4, 12]}}}
SPACES: dict[str, dict[str, Any]] = {
    "any order": {"tasks": PLAIN, "length": [1, 3]},
    "no singles": {"tasks": PLAIN, "length": [2, 3]},
    "repeats": {"tasks": PLAIN, "length": [1, 2], "repeats": True},
    "choices": {"tasks": CHOICES, "length": [1, 2]},
}


def check_sampler(name: str) -> None:
    """The installed sampler of that name, on small spaces with scores that nothing is trained for."""
    sampler = SAMPLERS.find(name)
    claim(isinstance(sampler, type) and issubclass(sampler, Sampler), f"{name}: is a class of Sampler")
    for space, curriculum in SPACES.items():
        _check(name, made_space(curriculum, trials=300), f"a space of {space}")
    if not sampler.finite:
        proposed = searched(name, made_space({"tasks": RANGES, "length": [1, 2]}, trials=12))
        claim(len(set(proposed)) == 12, f"{name}: an endless space has 12 proposals for 12 trials")


def _check(name: str, study: tuple[Space, Search], where: str) -> None:
    proposed = searched(name, study)
    everything = set(study[0].every())
    claim(set(proposed) <= everything, f"{name}: proposes what {where} holds")
    covered = {stage for proposal in proposed for stage in stages(proposal)}
    claim(everything <= covered, f"{name}: ends only when every proposal of {where} has its score")
    random.seed(1)
    np.random.seed(1)
    claim(searched(name, study) == proposed, f"{name}: by the same seed it proposes the same in {where}")
    lost = next(p for p in proposed if len(p.curriculum) > 1).prefix(1)
    searched(name, study, lost)


def made_space(curriculum: dict[str, Any], trials: int) -> tuple[Space, Search]:
    """The space of a small study, and how it is searched; the sampler is named later."""
    raw = {"name": "small", "data": {"cases": 80, "size": 32}, "encoder": {"name": "resnet10t"}}
    search = {"sampler": "random", "trials": trials, "lag": 3}
    study = Study.model_validate({**raw, "curriculum": curriculum, "search": search})
    return space_of(study), study.search


def searched(name: str, study: tuple[Space, Search], lost: Proposal | None = None) -> list[Proposal]:
    """What a whole search proposes, with three under way; a stage that is lost fails."""
    space, search = study
    proposer = Proposer(space, search.model_copy(update={"sampler": name}), None)
    propose = proposer.sampler.propose

    def watched() -> Proposal | None:
        proposal = propose()
        if proposal is not None and not proposer.known.open(proposal):
            raise AssertionError(f"{name}: proposes what `self.known.open` lets through, not {proposal}")
        return proposal

    proposer.sampler.propose = watched  # type: ignore[method-assign]
    proposed, under_way = [], deque(proposer.ask())
    while under_way:
        asked = under_way.popleft()
        proposed.append(asked.proposal)
        path = stages(asked.proposal)
        failed = lost in path
        proposer.tell(asked, [None if failed and lost in stages(stage) else score(stage) for stage in path])
        under_way += proposer.ask()
    proposer.end()
    return proposed


def score(stage: Proposal) -> float:
    """A number that only the stage decides."""
    return zlib.crc32(repr((stage.curriculum.tasks, stage.values)).encode()) / 2**32
