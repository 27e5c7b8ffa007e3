"""A stage's steps taken by hand, without the trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dermsearch.data.store.case_store import CaseStore
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Material, find_task
from dermsearch.pretext.batch import Batch, epoch_order
from dermsearch.testing.small import BATCH, CPU, ROWS, SIZE, SmallStage
from dermsearch.training import optim
from dermsearch.training.learner import Learner, WholeImages, number_dropout
from dermsearch.training.precision import autocast


class Steps:
    """Of a small stage, from its beginning."""

    def __init__(
        self, small: SmallStage, store: CaseStore, made: Encoders | None = None, begin: bool = True, **settings: Any
    ) -> None:
        task = find_task(small.name)
        self.encoders = small.encoders() if made is None else made
        self.recipe = small.recipe(**settings)
        self.pools = task.pools(Material(self.encoders, store, ROWS, CPU))
        self.learner = Learner(task, self.encoders, self.pools, self.recipe).train()
        self.optimizer = optim.build(self.learner, self.recipe.train, self.learner.options())
        self.units = len(next(iter(self.pools.values())))
        self.at = 0
        if begin:
            self.learner.tell("begin", self.whole())
            for one in self.learner.each():
                one.enter_epoch(0)
            self.learner.tell("begin_epoch", self.whole(), 0)

    def whole(self) -> WholeImages:
        """What gives outputs on whole images."""
        return WholeImages(self.pools, autocast(CPU, "fp32"))

    def batches(self) -> dict[str, Batch]:
        """The batches of the step that is next."""
        number_dropout(self.learner, self.at)
        chosen = epoch_order(7, self.at, self.units, BATCH, False)
        return {b: Batch(chosen, pool, SIZE, 5, 0, self.at) for b, pool in self.pools.items()}

    def backward(self, model: torch.nn.Module | None = None) -> Tensor:
        """Forward and backward of the next step; the loss of this process's rows."""
        for task in self.learner.each():
            task.before_step(self.at)
        total, self.losses = (self.learner if model is None else model)(self.batches())
        self.optimizer.zero_grad()
        total.backward()
        for task in self.learner.each():
            task.after_backward(self.at)
        return total.detach()

    def finish(self) -> None:
        """The rest of the step."""
        self.optimizer.step()
        self.learner.tell("after_step", self.batches())
        self.at += 1

    def step(self) -> float:
        """One whole step."""
        loss = self.backward()
        self.finish()
        return float(loss)
