"""Parameter groups and the learning rate of every step."""

import copy
import math
from typing import Any

import pytest
import timm
import torch
from pretext import tiny
from torch import nn

from dermsearch.pretext.base import find_task
from dermsearch.training.optim import FALLBACK, LARS, build, rate, set_step

TRAIN: dict[str, Any] = {
    **FALLBACK,
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


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars"])
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


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_one_kernel_of_gpus_comes_to_the_same(kind, monkeypatch):
    """CPUs have it too; they keep what they had, to the bit."""
    ends = []
    for gpu in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        with monkeypatch.context() as patch:
            patch.setattr(nn.Parameter, "is_cuda", gpu)
            optimizer = build(net, {**TRAIN, "optimizer": kind, "lr": 0.01}, {})
        assert {(g["fused"], g["foreach"]) for g in optimizer.param_groups} == {(True, None) if gpu else (None, True)}
        for _ in range(5):
            optimizer.zero_grad()
            net(torch.ones(3, 4) + torch.arange(3.0)[:, None]).square().sum().backward()
            optimizer.step()
        ends.append([p.detach().clone() for p in net.parameters()])
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize("name, part, key, value", [
    ("odc", "classifier", "momentum", 0.0),
    ("relative_location", "neck", "weight_decay", 5e-4),
    ("relative_location", "head", "weight_decay", 5e-4),
])  # fmt: skip
def test_tasks_options_reach_the_optimiser(name, part, key, value, tmp_path):
    """In every branch."""
    encoders = tiny.encoders(name, ("derm", "clinic"), "separate")
    run = tiny.Steps(name, tiny.make_store(tmp_path / "s"), encoders, begin=False)
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


def test_cosine_ends_at_final_lr():
    found = rates(1000, warmup=0.1, final_lr=0.25)
    assert found[100] == 0.4 and found[-1] == pytest.approx(0.1, rel=1e-4) and min(found[100:]) > 0.1
    assert found[550] == pytest.approx(0.25)


def test_steps():
    found = rates(10, schedule="step", milestones=(0.5, 0.8), factor=0.1)
    assert found == pytest.approx([0.4] * 5 + [0.04] * 3 + [0.004] * 2)
    assert rates(10, schedule="step", milestones=(0.5,), factor=0.5, warmup=0.2)[:3] == pytest.approx(
        [0.4 / 3, 0.8 / 3, 0.4]
    )


def test_weight_decay_goes_to_its_end_where_the_stage_says_what_it_is():
    """Not in what has no decay, nor in what a task gives one of its own."""
    net, train = Net(), {**TRAIN, "optimizer": "adamw", "weight_decay": 0.04, "weight_decay_end": 0.4}
    optimizer = build(net, train, {"head.": {"weight_decay": 0.5}})
    for step, expected in ((0, 0.04), (50, 0.22), (100, 0.4)):
        assert set_step(optimizer, step, 100, train) == rate(step, 100, train)
        found = settings_of(net, optimizer)
        assert found["body.0.weight"]["weight_decay"] == pytest.approx(expected)
        assert (found["head.weight"]["weight_decay"], found["body.0.bias"]["weight_decay"]) == (0.5, 0.0)
        assert found["body.0.weight"]["lr"] == rate(step, 100, train)
    set_step(optimizer, 50, 100, {**train, "weight_decay_end": None})
    assert settings_of(net, optimizer)["body.0.weight"]["weight_decay"] == 0.04


def test_tokens_and_positions_do_not_decay():
    net = nn.ModuleDict({"backbone": timm.create_model("test_vit", num_classes=0, reg_tokens=2)})
    net.register_parameter("mask_token", nn.Parameter(torch.zeros(1, 1, 64)))
    found = settings_of(net, build(net, TRAIN, {}))
    free = ("mask_token", "backbone.cls_token", "backbone.pos_embed", "backbone.reg_token")
    assert [found[n]["weight_decay"] for n in free] == [0.0] * 4
    assert found["backbone.blocks.0.attn.qkv.weight"]["weight_decay"] == 0.01


def plain_lars(p, g, v, lr, momentum, decay, adapted):
    """One step as You et al. write it, in numbers of Python."""
    length, slope = (math.sqrt(sum(x * x for x in values)) for values in (p, g))
    ratio = 0.001 * length / (slope + decay * length) if adapted and length and slope else 1.0
    v = [momentum * old + ratio * (x + decay * w) for old, x, w in zip(v, g, p, strict=True)]
    return [w - lr * m for w, m in zip(p, v, strict=True)], v


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lars(decay):
    """Two steps with another rate in each. A weight without decay is adapted all the same, a bias never is."""
    torch.manual_seed(0)
    net = nn.Linear(3, 2).double()
    train = {**TRAIN, "optimizer": "lars", "weight_decay": decay}
    optimizer = build(net, train, {})
    assert isinstance(optimizer, LARS)
    state = {n: (p.flatten().tolist(), [0.0] * p.numel()) for n, p in net.named_parameters()}
    for lr in (0.4, 0.1):
        optimizer.zero_grad()
        net(torch.arange(6.0, dtype=torch.float64).view(2, 3)).square().sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = lr
        for n, p in net.named_parameters():
            own = n == "weight"
            values, before = state[n]
            state[n] = plain_lars(values, p.grad.flatten().tolist(), before, lr, 0.9, decay if own else 0.0, own)
        optimizer.step()
        for n, p in net.named_parameters():
            assert p.flatten().tolist() == pytest.approx(state[n][0], rel=1e-10), (n, lr)


def test_lars_moves_what_has_no_length():
    """A weight of zeros would never move if it moved in proportion to its length."""
    net = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(net.weight)
    net(torch.ones(1, 2)).sum().backward()
    build(net, {**TRAIN, "optimizer": "lars", "weight_decay": 0.0}, {}).step()
    assert net.weight.tolist() == [[pytest.approx(-0.4)] * 2]


def test_lars_is_restored():
    torch.manual_seed(0)
    train = {**TRAIN, "optimizer": "lars"}
    one, x = nn.Linear(3, 2), torch.randn(5, 3)

    def step(net, optimizer):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    first = build(one, train, {})
    step(one, first)
    other = nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    second = build(other, train, {})
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(one, first)
    step(other, second)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
