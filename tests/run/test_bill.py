"""What a plan says of time and room, against what can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest
from conftest_search import make_study

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.evaluate.predictions import predictions
from dermsearch.run import bill as reckoning
from dermsearch.run.bill import Bill, bill, lines, operations, parameters, room, span
from dermsearch.run.plan import make_plan
from dermsearch.search.space.checks import space_of
from dermsearch.storage.stages import columns


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


def test_predictions_take_the_room_that_is_told() -> None:
    rng, n = np.random.default_rng(0), 1000
    said = {label: rng.dirichlet(np.ones(len(names)), n) for label, names in SEVEN_POINT.items()}
    truth = {label: rng.integers(0, len(names), n) for label, names in SEVEN_POINT.items()}
    table = predictions(truth, SEVEN_POINT, np.arange(n), said, np.array([f"case_{i:05d}" for i in range(n)]))
    assert len(columns(table)) / len(table) == pytest.approx(reckoning.ROW, rel=0.25)


def test_the_plan_tells_it(tmp_path: Path) -> None:
    study = make_study(data={"cases": 200, "size": 32}, compute={"engine": "inline", "store": str(tmp_path), "gpus": 1})
    plan, _ = make_plan(study)
    assert plan.bill is not None and plan.bill.training == plan.passes
    told = "\n".join(lines(Bill(60_000, 6000, 24.3e9, 100, 2, 3.2e9, 4e6), gpus=1))
    assert "about 6 min on this machine: 5 min to train, 30 s to judge" in told
    assert "100 passes a second, 2 stages at once" in told
    assert f"{span(66_000 * 24.3e9 / 312e12 / 0.2)} on one A100" in told
    assert "3.2 GB in the stage store, 4.0 MB of it predictions" in told
    assert "GPU" not in "".join(lines(plan.bill, gpus=0))


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
