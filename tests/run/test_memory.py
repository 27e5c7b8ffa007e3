"""The memory that a plan tells of, against what can be counted by hand and what autograd really keeps."""

from pathlib import Path

import pytest
import torch
from conftest_search import make_study
from torch import nn

from dermsearch.run import memory
from dermsearch.run.bill import parameters
from dermsearch.run.memory import OF_PROCESS, OF_WEIGHT, kept_of, need, sizes_of, steps
from dermsearch.run.plan import lines, make_plan
from dermsearch.search.space.checks import space_of


def test_what_is_kept_can_be_counted() -> None:
    """A layer keeps its input for the gradient of its weight, a ReLU its output; what both keep lies there once."""
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    images = torch.zeros(8, 10)
    weights = 20 * 5 * 4  # of the last, through which the gradient goes
    assert kept_of(network, images, "fp32") == 8 * (10 + 20) * 4 + weights


def test_an_image_takes_half_the_room_in_half_the_precision() -> None:
    """ResNet-50 at 224 px keeps some 22 M numbers of an image."""
    (single, weights), (half, _) = (sizes_of("resnet50", 224, precision) for precision in ("fp32", "bf16"))
    assert single == pytest.approx(22e6 * 4, rel=0.05) and half / single == pytest.approx(0.5, abs=0.02)
    assert weights == parameters("resnet50")
    assert sizes_of("resnet50", 112, "fp32")[0] == pytest.approx(single / 4, rel=0.02)


def test_most_is_told_of_what_needs_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "sizes_of", lambda name, size, precision: (1e6, 10_000))
    given = {
        "data": {"cases": 200, "size": 32, "modalities": ["derm", "clinic"]},
        "curriculum": {
            "tasks": {"rotation": {"batch": 16}, "moco_v2": {"batch": 32, "accumulate": 2}},
            "length": [1, 2],
        },
    }
    study = make_study(**given, encoder={"name": "resnet10t", "branches": "separate"}, downstream={"linear": {}})
    found = {what: (batch, share, passes) for what, batch, share, passes in steps(study, space_of(study))}
    assert found == {"rotation": (16, 1, 4 * 2), "moco_v2": (32, 0.5, pytest.approx(4 / 3 * 2))}  # two branches at once
    most = need(study, space_of(study))
    assert (most.what, most.batch) == ("rotation", 16)
    assert most.bytes == OF_PROCESS + 16 * 4 * 2 * 1e6 + 2 * 10_000 * OF_WEIGHT

    gpus = {"engine": "ray", "workers": 2, "gpus": 1}
    judged = {"downstream": {"finetune": {"batch": 64}}, "objective": {"protocol": "finetune"}}
    study = make_study(**given, **judged, encoder={"name": "resnet10t"}, compute=gpus)
    found = {what: (batch, share, passes) for what, batch, share, passes in steps(study, space_of(study))}
    assert found["rotation"] == (16, 0.5, 4) and found["finetune"] == (64, 0.5, 2)  # both images of a case
    assert need(study, space_of(study)).bytes == 64 * 0.5 * 2 * 1e6 + 10_000 * OF_WEIGHT, "of the GPU alone"


def test_the_plan_tells_it(tmp_path: Path) -> None:
    study = make_study(data={"cases": 200, "size": 32}, compute={"engine": "inline", "store": str(tmp_path)})
    told = "\n".join(lines(make_plan(study)))
    assert "  memory     about 1.0 GB for each worker, most of it in relative_location with batches of 16" in told
    gpus = make_study(data={"cases": 200, "size": 32}, compute={"store": str(tmp_path), "gpus": 1})
    assert " of a GPU for each worker, most of it in " in "\n".join(lines(make_plan(gpus)))
