"""One task's whole settings: rates that suit the optimiser, and names with dots."""

from __future__ import annotations

import pytest

from dermsearch.curriculum import Curriculum
from dermsearch.pretext.simclr import SimCLR
from dermsearch.search.space import settings
from dermsearch.search.space.cost import prices
from dermsearch.search.space.proposal import Proposal
from dermsearch.search.space.settings import read_task
from dermsearch.search.space.space import Space
from dermsearch.study.config import Curricula, Train
from dermsearch.training.optim import RATES


@pytest.mark.parametrize(
    ("task", "given", "lr"),
    [
        ("simclr", {}, 0.3 * 128 / 256),  # its authors', in proportion to the batch
        ("simclr", {"optimizer": "lars"}, 0.3 * 128 / 256),
        ("simclr", {"optimizer": "adamw"}, RATES["adamw"] * 128 / 256),  # not LARS's 0.3
        ("simclr", {"optimizer": "sgd"}, RATES["sgd"] * 128 / 256),
        ("moco_v2", {"optimizer": "lars"}, RATES["lars"] * 128 / 256),
        ("simclr", {"optimizer": "adamw", "lr": 0.3}, 0.3),  # whoever asks for it
    ],
)
def test_another_optimiser_has_another_rate(task, given, lr):
    whole = read_task(task, given, Train()).whole({})
    assert whole["train"]["lr"] == pytest.approx(lr)


def test_a_searched_optimiser_has_the_rate_of_each():
    read = read_task("simclr", {"optimizer": {"choice": ["lars", "adamw"]}}, Train())
    rates = [read.whole({"simclr.optimizer": name})["train"]["lr"] for name in ("lars", "adamw")]
    assert rates == pytest.approx([0.15, 0.0005])


def test_a_task_whose_name_has_a_dot_keeps_what_is_searched(monkeypatch):
    """As a package may call its own: acme.simclr."""
    monkeypatch.setattr(settings, "task_names", lambda: ["acme.simclr", "rotation"])
    monkeypatch.setattr(settings, "find_task", lambda name: SimCLR)
    tasks = {"acme.simclr": {"temperature": {"choice": [0.1, 0.5]}}, "rotation": {"lr": {"choice": [0.1, 0.2]}}}
    space = Space(Curricula(tasks=tasks, length=(1, 2)), Train())
    dimension = space.dimensions[0]
    assert (dimension.name, dimension.task) == ("acme.simclr.temperature", "acme.simclr")
    assert dimension.of(["acme.simclr"]) and not dimension.of(["rotation"])
    whole = space.given["acme.simclr"].whole({"acme.simclr.temperature": 0.1})
    assert whole["config"]["temperature"] == 0.1
    both = Proposal(Curriculum(("acme.simclr", "rotation")), (("acme.simclr.temperature", 0.1), ("rotation.lr", 0.2)))
    assert both.prefix(1).settings == {"acme.simclr.temperature": 0.1}
    assert prices(space)(both.prefix(1)) == 2 * 10  # two views, ten epochs
