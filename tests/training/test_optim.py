"""Parameter groups and the learning rate of every step."""

import math
from typing import Any

import pytest
import torch
from pretext import tiny
from torch import nn

from dermsearch.pretext.base import find_task
from dermsearch.training.optim import build, rate

TRAIN: dict[str, Any] = {
    "optimizer": "sgd", "lr": 0.4, "momentum": 0.9, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.0,
}  # fmt: skip


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.header = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 2).requires_grad_(False)


def settings_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    names = {p: n for n, p in module.named_parameters()}
    return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_norms_and_biases_do_not_decay(kind):
    net = Net()
    found = settings_of(net, build(net, {**TRAIN, "optimizer": kind}, {}))
    assert {n for n, g in found.items() if g["weight_decay"]} == {"body.0.weight", "head.weight", "header.weight"}
    assert {n for n, _ in net.named_parameters()} - set(found) == {"frozen.weight", "frozen.bias"}
    assert all(g["lr"] == 0.4 for g in found.values())


def test_options_by_prefix():
    net = Net()
    options = {"head.": {"weight_decay": 0.5, "momentum": 0.0}}
    found = settings_of(net, build(net, TRAIN, options))
    assert (found["head.weight"]["weight_decay"], found["head.weight"]["momentum"]) == (0.5, 0.0)
    assert (found["head.bias"]["weight_decay"], found["head.bias"]["momentum"]) == (0.0, 0.0)
    assert (found["header.weight"]["weight_decay"], found["body.0.weight"]["momentum"]) == (0.01, 0.9)


@pytest.mark.parametrize("name, part, key, value", [
    ("odc", "classifier", "momentum", 0.0),
    ("relative_location", "neck", "weight_decay", 5e-4),
    ("relative_location", "head", "weight_decay", 5e-4),
])  # fmt: skip
def test_tasks_options_reach_the_optimiser(name, part, key, value, tmp_path):
    """In every branch."""
    run = tiny.Steps(name, tiny.make_store(tmp_path / "s"), tiny.encoders(("derm", "clinic"), "separate"), begin=False)
    found = settings_of(run.learner, run.optimizer)
    defaults = find_task(name).train_defaults
    for branch in ("derm", "clinic"):
        own = [g for n, g in found.items() if n.startswith(f"tasks.{branch}.{part}.") and n.endswith("0.weight")]
        own += [found[n] for n in (f"tasks.{branch}.{part}.weight",) if n in found]
        assert own and all(g[key] == value for g in own)
        assert found[f"tasks.{branch}.backbone.conv1.0.weight"][key] == defaults[key] != value


def test_a_step_is_sgds():
    net = nn.Linear(2, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = build(net, {**TRAIN, "weight_decay": 0.5}, {})
    for expected in (1 - 0.4 * (1 + 0.5), None):
        optimizer.zero_grad()
        net(torch.ones(1, 2)).sum().backward()
        before = net.weight.detach().clone()
        optimizer.step()
        if expected is None:  # the second step remembers the first gradient, 1.5
            expected = float(before[0, 0]) - 0.4 * (0.9 * 1.5 + 1 + 0.5 * float(before[0, 0]))
        assert net.weight[0, 0].item() == pytest.approx(expected)


def rates(steps: int, **train: Any) -> list[float]:
    return [rate(s, steps, {**TRAIN, **train}) for s in range(steps)]


def test_cosine():
    found = rates(10)
    assert found == pytest.approx([0.2 * (1 + math.cos(math.pi * s / 10)) for s in range(10)])
    assert found[0] == 0.4 and found[5] == pytest.approx(0.2) and 0 < found[-1] < 0.02


def test_warmup_climbs_in_a_line():
    found = rates(20, warmup=0.2)
    assert found[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert found[4:] == pytest.approx([0.2 * (1 + math.cos(math.pi * s / 16)) for s in range(16)])
    assert max(found) == 0.4 and min(found) > 0


def test_constant():
    assert rates(10, schedule="constant") == [0.4] * 10
    assert rates(10, schedule="constant", warmup=0.3) == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 7)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_every_step_has_a_rate(steps, warmup):
    for schedule in ("cosine", "constant"):
        assert all(0 < r <= 0.4 for r in rates(steps, warmup=warmup, schedule=schedule))
