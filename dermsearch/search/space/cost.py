"""What stages cost before any was measured: passes through the backbone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from dermsearch.search.space.proposal import Proposal, Values
from dermsearch.search.space.space import Space


def relative_cost(space: Space, task: str, settings: dict[str, Any]) -> float:
    """Passes through the backbone per training image and modality in a stage, over all of its epochs."""
    cls = space.tasks[task]
    return settings["train"]["epochs"] * cls.cost(cls.Config.model_validate(settings["config"]), space.size)


def prices(space: Space) -> Callable[[Proposal], float]:
    """What the last stage of a proposal costs in passes, reckoned once for each task and its settings."""

    @functools.cache
    def price(task: str, own: Values) -> float:
        return relative_cost(space, task, space.settings(task, dict(own)))

    return lambda proposal: price(proposal.curriculum.last, proposal.own(proposal.curriculum.last))
