"""What a plan says of time and room, against what can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest_search import make_study
from torch import Tensor

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.evaluate.predictions import predictions
from dermsearch.run import bill as reckoning
from dermsearch.run.bill import Bill, bill, grain, lines, measured, operations, parameters, room, span
from dermsearch.run.plan import make_plan
from dermsearch.search.space.checks import space_of
from dermsearch.storage.stages import columns

SPEED = reckoning.speed


@pytest.fixture(autouse=True)
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reckoning, "speed", lambda *_: 100.0)
    monkeypatch.setattr("os.cpu_count", lambda: 4)


def test_operations_are_those_of_the_network() -> None:
    """ResNet-18 at 224 px has 1.81 G products and sums forward; backward twice that, less the first layer's input."""
    assert operations("resnet18", 224) == pytest.approx(2 * 3 * 1.81e9, rel=0.03)
    assert operations("resnet18", 448) / operations("resnet18", 224) == pytest.approx(4, rel=0.01)
    assert parameters("resnet18") == 11_176_512


def test_a_study_comes_to_what_can_be_counted() -> None:
    study = make_study(
        downstream={"linear": {}, "finetune": {"labelled": ["all", 2], "repeats": 3, "epochs": 5}},
        data={"cases": 200, "size": 32, "modalities": ["derm"]},
        search={"seeds": [0, 1]},
    )
    found = bill(study, space_of(study), 1000.0, 6, {})
    judged, train, val, classes = 6 + 2, 140, 30, sum(map(len, SEVEN_POINT.values()))
    few = 2 * 5  # of the diagnosis, which has most classes
    fits = (5 * train + val / 3) + 3 * (5 * few + val / 3)
    assert found.training == 1000 and found.judging == pytest.approx(judged * (fits + (train + val) / 3))
    said = judged * (1 + 1 + 3) * val * classes * reckoning.ROW
    weights = parameters("resnet10t") * 4
    assert found.said == said and found.kept == pytest.approx((judged * weights * 5 + said) * reckoning.SPARE)
    assert found.at_once == 1, "inline"
    assert bill(study.model_copy(update={"compute": study.compute.model_copy(update={"engine": "ray"})}),
                space_of(study), 1000.0, 6, {}).at_once == 4  # fmt: skip


def test_hidden_patches_are_counted() -> None:
    """64 looks at every image are most of what judging takes."""
    sets = {"domain": "chest", "cases": 200, "size": 32, "modalities": ["xray"]}
    told = {}
    for probes, images, head in ((8, 20, "linear"), (4, 999, "linear"), (8, 0, "finetune")):
        study = make_study(
            data=sets,
            downstream={"attention": {"probes": probes, "images": images, "head": head, "size": 64, "epochs": 3}},
            objective={"protocol": "attention", "metric": "ail", "label": "finding"},
        )
        told[probes, images] = bill(study, space_of(study), 0.0, 1, {}).judging
    looks, train, val = 2 * (140 + 30) / 3, 140, 30  # of the stage and of what it begins with
    assert told[8, 20] == pytest.approx(looks + 2 * 4 * (train / 3 + val + 20 * 64 / 3))
    assert told[4, 999] == pytest.approx(looks + 2 * 4 * (train / 3 + val + 30 * 16 / 3))
    assert told[8, 0] == pytest.approx(looks + 2 * 4 * (3 * train + val))


def test_a_finer_map_costs_more_a_pass() -> None:
    """The last two of a ResNet's four parts see 4 and 16 times as many places; in all that is four times as much."""
    told = {}
    for stride in (None, 8):
        study = make_study(
            data={"cases": 200, "size": 64, "domain": "chest", "modalities": ["xray"]},
            downstream={"attention": {"stride": stride, "size": 192, "images": 0}},
            objective={"protocol": "attention", "metric": "ail", "label": "finding"},
        )
        told[stride] = bill(study, space_of(study), 0.0, 1, {}).judging
    looks = 2 * (140 + 30) / 3
    times = (told[8] - looks) / (told[None] - looks)
    assert times == pytest.approx(grain("resnet10t", 64, 8)) and 3.6 < times < 4.4


def test_predictions_take_the_room_that_is_told() -> None:
    rng, n = np.random.default_rng(0), 1000
    said = {label: rng.dirichlet(np.ones(len(names)), n) for label, names in SEVEN_POINT.items()}
    truth = {label: rng.integers(0, len(names), n) for label, names in SEVEN_POINT.items()}
    table = predictions(truth, SEVEN_POINT, np.arange(n), said, np.array([f"case_{i:05d}" for i in range(n)]))
    assert len(columns(table)) / len(table) == pytest.approx(reckoning.ROW, rel=0.25)


def test_the_plan_tells_it(tmp_path: Path) -> None:
    study = make_study(data={"cases": 200, "size": 32}, compute={"engine": "inline", "store": str(tmp_path), "gpus": 1})
    plan = make_plan(study)
    assert plan.bill is not None and plan.bill.training == plan.passes
    told = "\n".join(lines(Bill(60_000, 6000, 24.3e9, 100, 2, 3.2e9, 4e6), gpus=1))
    assert "about 6 min on this machine: 5 min to train, 30 s to judge" in told
    assert "100 passes a second, 2 stages at once" in told
    assert f"{span(66_000 * 24.3e9 / 312e12 / 0.2)} on one A100" in told
    assert "3.2 GB in the stage store, 4.0 MB of it predictions" in told
    assert "GPU" not in "".join(lines(plan.bill, gpus=0))


def test_a_network_that_takes_long_is_measured_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """At eight passes a second a batch of 32 takes four seconds, twice; a plan is asked for to save time."""
    clock, batches = [0.0], list[int]()

    class Slow(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            batches.append(len(images))
            clock[0] += len(images) / 8
            return images.requires_grad_()

    monkeypatch.setattr(reckoning, "backbone", lambda name: Slow())
    monkeypatch.setattr(reckoning.time, "perf_counter", lambda: clock[0])
    assert measured("slow", 8, torch.device("cpu"), 32, 1, "fp32") == 8
    assert batches == [2, 2, 8]


def test_a_study_for_gpus_is_not_measured_in_a_precision_that_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(reckoning, "speed", SPEED)
    monkeypatch.setattr(reckoning, "measured", lambda *given: asked.append(given[-1]) or 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for gpus in (0, 1):
        SPEED(make_study(train={"precision": "bf16"}, compute={"gpus": gpus}), "resnet10t", 32)
    assert asked == ["bf16", "auto"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1 s"),
        (89, "89 s"),
        (95, "2 min"),
        (5400, "1.5 h"),
        (36_000, "10 h"),
        (3e5, "3 days"),
        (4e8, "4,630 days"),
    ],
)
def test_spans(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("size", "said"), [(120, "0.1 kB"), (999_499, "999 kB"), (999_600, "1.0 MB"), (2.5e13, "25,000 GB")]
)
def test_room(size: float, said: str) -> None:
    assert room(size) == said
