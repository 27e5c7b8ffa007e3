"""Under several processes the first one judges, and nothing that it does there waits for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_search import make_study
from gloo import Group, two  # noqa: F401

from dermsearch import world
from dermsearch.data.open import open_cases
from dermsearch.engines.inline import run_inline
from dermsearch.models.batchnorm import across_processes
from dermsearch.run.run import sets_of, starts
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.tree.driver import Driver
from dermsearch.storage.stages import StageStore
from dermsearch.work import judging
from dermsearch.work.job import Job
from dermsearch.work.record import Record
from dermsearch.work.worker import run_job

STUDY = {
    "data": {"cases": 40, "size": 32},
    "encoder": {"name": "test_resnet"},
    "curriculum": {"tasks": {"rotation": {"lr": {"select": [0.01, 0.1], "epochs": 1}}}, "length": [1, 1]},
    "train": {"epochs": 3, "batch": 16, "precision": "fp32"},
    "downstream": {"knn": {"k": 3}},
    "objective": {"protocol": "knn"},
    "search": {"pruner": "halving", "rungs": [2]},
}


def work(job: Job) -> Record:
    """A job on this process, judged by what first lets the encoders see images as if they were in training."""
    look = judging.look

    def trained(encoders: Any, *rest: Any) -> Any:
        across_processes(encoders).train()(torch.rand(4, 3, 32, 32), "derm")
        return look(encoders, *rest)

    judging.look = trained
    try:
        return run_job(job)
    finally:
        judging.look = look


@pytest.mark.slow
def test_rates_and_rungs_are_judged_by_a_protocol_that_trains(two: Group, tmp_path: Path) -> None:  # noqa: F811
    study = make_study(**STUDY, compute={"engine": "ray", "workers": 2, "store": str(tmp_path / "store")})
    cases, space = open_cases(study.main, tmp_path / "cases"), space_of(study)
    proposer, store = Proposer(space, study.search, tmp_path / "journal"), StageStore(study.compute.store)
    sets = sets_of(study, {"data": cases})
    driver = Driver(study, space, proposer, store, sets, starts(study), str(tmp_path / "cases"), "fp32")
    run_inline(driver, lambda job: two(work, job)[0] if job.workers > 1 else work(job))
    assert not driver.stopped and [t["status"] for t in driver.window.trials] == ["done"]
    assert {n.record["workers"] for n in driver.tree.trained() if n.status == "done"} == {2}


def apart() -> list[float]:
    """What BatchNorm over all processes makes of 0 and 1 here, 10 and 11 there; then of the first's rows alone."""
    layer = across_processes(torch.nn.BatchNorm1d(1, affine=False))
    x = torch.tensor([[0.0], [1.0]]) + 10 * world.rank()
    seen = [float(layer(x).abs().max())]
    if world.rank() == 0:
        with world.alone():
            assert (world.size(), world.rank()) == (1, 0)
            seen.append(float(layer(x).abs().max()))
    assert world.size() == 2
    return seen


def test_alone_batchnorm_sees_its_own_rows(two: Group) -> None:  # noqa: F811
    (together, alone), (other,) = two(apart)
    assert together == pytest.approx(other) == pytest.approx(5.5 / 25.25**0.5) and alone == pytest.approx(1, abs=1e-4)
