"""A study whose training and judging are stand-ins of a millisecond, so that every moment of a run can be tried.

The driver, the worker's code, the store and the tables are the real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_search import make_study
from endurance.faults import Shaky

from dermsearch.data.open import open_cases
from dermsearch.engines.inline import run_inline
from dermsearch.evaluate import Judgement
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.results.tables import schema as tables
from dermsearch.run.record import Recorder
from dermsearch.run.run import prepare_folder, sets_of, starts
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.tree.driver import Driver
from dermsearch.storage.files import StoreLost
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.training.stage import Trained
from dermsearch.upkeep.upkeep import verify
from dermsearch.work import judging, stages
from dermsearch.work.cases import open_store

STUDY = make_study(
    data={"cases": 40, "size": 32},
    encoder={"name": "test_resnet"},
    curriculum={"tasks": {"relative_location": {}, "moco_v2": {}}, "length": [2, 2], "order": "listed"},
    downstream={"knn": {}},
    objective={"protocol": "knn"},
)
# The same with a choice of two rates for an epoch each, and a pruner that looks after two of three epochs.
IN_PARTS = make_study(
    data={"cases": 40, "size": 32},
    encoder={"name": "test_resnet"},
    curriculum={
        "tasks": {"relative_location": {"lr": {"select": [0.01, 0.1], "epochs": 1}}, "moco_v2": {}},
        "length": [1, 1],
    },
    train={"epochs": 3, "batch": 16, "precision": "fp32"},
    downstream={"knn": {}},
    objective={"protocol": "knn"},
    search={"pruner": "halving", "rungs": [2]},
)
# A search that learns, with two proposals under way.
SEARCHED = make_study(
    data={"cases": 40, "size": 32},
    encoder={"name": "test_resnet"},
    curriculum={"tasks": {"relative_location": {"lr": {"log": [0.01, 0.1]}}, "moco_v2": {}}, "length": [1, 2]},
    train={"epochs": 1, "batch": 16, "precision": "fp32"},
    downstream={"knn": {}},
    objective={"protocol": "knn"},
    search={"sampler": "curriculum_prior", "trials": 5, "lag": 2},
)


class Encoders(torch.nn.Module):
    """A few weights, for a run of milliseconds."""

    modalities = ("derm",)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.rand(5, generator=torch.Generator().manual_seed(seed)))

    def part(self) -> Part:
        return Part({}, self.state_dict())

    @classmethod
    def random(cls, *shape: Any, seed: int) -> Encoders:
        return cls(seed)

    @classmethod
    def empty(cls, *shape: Any) -> Encoders:
        return cls()

    def load(self, state: dict[str, Any]) -> Encoders:
        self.load_state_dict(state)
        return self


EPOCHS: list[tuple[str, str, int]] = []  # trained: in which store, of which stage or segment, and the how manieth


def train(
    recipe: Any, encoders: Any, cases: Any, rows: Any, partial: Any, report: Any, *rest: Any, until: int, **more: Any
) -> Trained:
    """Epochs that move the weights by what recipe and parent say, and go on from the state of the last."""
    state = partial.load() or {"weights": encoders.state_dict(), "history": "[]"}
    weights, history = state["weights"], json.loads(state["history"])
    for epoch in range(len(history), until or recipe.train["epochs"]):
        step = sum(map(ord, recipe.task)) / 1000 + epoch + recipe.train["lr"]
        weights = {n: w * (1 + step / 100) for n, w in weights.items()}
        history.append({"epoch": epoch + 1, "loss": step, "parts": {}, "seconds": 0.5})
        history[-1] |= {"embedding_std": 1.0, "effective_rank": 9.0}
        EPOCHS.append((partial.store.where, partial.name.split("/")[1], epoch))
        if epoch + 1 < recipe.train["epochs"]:
            partial.save({"weights": weights, "history": json.dumps(history)})
        report(history[-1])
    encoders.load_state_dict(weights)
    return Trained(history, {ENCODERS: encoders.part()})


class Looked:
    """The weights themselves."""

    images = None

    def __init__(self, encoders: Any, *rest: Any) -> None:
        self.features = encoders.w.tolist()

    def drawn(self, rows: Any) -> Looked:
        return self


def judge(features: Any, name: str, *rest: Any) -> Judgement:
    """A number that every feature has a part in."""
    row = {"split": "val", "label": "diagnosis", "class": "", "metric": "balanced_accuracy"}
    return Judgement([{**row, "value": sum(features)}], [])


class Bench:
    """Runs the study in a folder, and reads what came of it."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self.study = folder, study
        self.cases = open_cases(study.main, folder / "cases")

    def run(self, name: str) -> None:
        """As `dermsearch run` does it, without the screen."""
        open_store.cache_clear()
        folder = self.folder / name
        store = StageStore(str(folder / "store"))
        study, space = self.study, space_of(self.study)
        prepare_folder(folder / "out", study)
        proposer = Proposer(space, study.search, folder / "journal")
        sets = sets_of(study, {"data": self.cases})
        driver = Driver(study, space, proposer, store, sets, starts(study), str(self.folder / "cases"), "fp32")
        try:
            run_inline(driver)
            if driver.stopped:
                raise StoreLost(driver.stopped)
        finally:
            Recorder(driver, folder / "out").write()

    def tables(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """All that does not tell the time."""
        names = [t for t in tables.SCHEMAS if t not in tables.OPENED]
        read = {t: tables.read(self.folder / name / "out" / "tables" / f"{t}.arrow") for t in names}
        return {
            t: [{k: v for k, v in row.items() if k not in TIMES} for row in table.to_pylist()]
            for t, table in read.items()
        }

    def faults(self, name: str) -> list[str]:
        """The files that are not as they were written."""
        return [fault.file for fault in verify(StageStore(str(self.folder / name / "store")))]


TIMES = ("seconds", "reused", "process", "began", "ended", "libraries")


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Replace what trains, judges and writes."""
    patch.setattr(stages, "train_stage", train)
    patch.setattr(stages, "Encoders", Encoders)
    patch.setattr(judging, "look", Looked)
    patch.setattr(judging, "judge", judge)
    Shaky.instead(patch)
    write = tables.write

    def write_table(table: Any, path: Path) -> None:
        Shaky.strike("write", str(path))
        write(table, path)

    patch.setattr(tables, "write", write_table)
