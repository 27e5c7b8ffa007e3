"""BatchNorm over processes against torch's own on the whole batch."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gloo import Group
from torch import nn

from dermsearch import world
from dermsearch.models.batchnorm import WorldBatchNorm, across_processes

SHAPES = {"rows": (nn.BatchNorm1d, (16, 5)), "images": (nn.BatchNorm2d, (8, 5, 6, 4))}
SETTINGS = [{}, {"affine": False}, {"momentum": 0.003}, {"momentum": None}, {"track_running_stats": False}]


def run(kind: str, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Two forward and backward passes with this process's rows; what comes out, for the global batch."""
    norm_class, shape = SHAPES[kind]
    torch.manual_seed(0)
    norm = norm_class(shape[1], **settings)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    across_processes(norm)
    assert type(norm) is (WorldBatchNorm if world.size() > 1 else norm_class)
    own = world.mine(shape[0])
    for _ in range(2):
        x = (3 * torch.randn(shape) + 7)[own].requires_grad_()
        wanted = torch.randn(shape)[own]  # a loss to which every row adds something else
        y = norm(x)
        norm.zero_grad()
        # The mean over processes of each one's mean is the mean of the whole.
        (y * wanted + y.square() * wanted.roll(1, -1)).mean().backward()
    found = {"y": world.gather(y), "x.grad": world.gather(x.grad) / world.size(), **dict(norm.named_buffers())}
    for name, p in norm.named_parameters():
        found[f"{name}.grad"] = world.reduce_sum(p.grad) / world.size()
    if norm.track_running_stats:
        found["eval"] = world.gather(norm.eval()(x))
    return {k: v.detach() for k, v in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_the_whole_batch(kind, settings, two: Group):
    whole = run(kind, settings)
    for part in two(run, kind, settings):
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(part[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_equals_the_whole_batch_on_four(kind, four: Group):
    whole = run(kind, {})
    for part in four(run, kind, {}):
        for name, value in whole.items():
            torch.testing.assert_close(part[name], value, rtol=1e-4, atol=1e-5)


def changed(kind: str, settings: dict[str, Any], to: type) -> nn.Module:
    """A norm of torch's as it is made one over processes of CPUs or of GPUs."""
    norm = SHAPES[kind][0](5, **settings)
    norm.__class__, norm.process_group = to, None
    return norm


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("to", [WorldBatchNorm, nn.SyncBatchNorm])
def test_alone_both_are_torchs_own(to, kind, settings):
    """What the two have in common without a GPU: one process, training and evaluation, and what is saved."""
    norm, own = changed(kind, settings, to), SHAPES[kind][0](5, **settings)
    x = torch.randn(SHAPES[kind][1])
    for _ in range(2):
        assert torch.equal(norm(x), own(x))
    assert norm.state_dict().keys() == own.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), own.buffers(), strict=True))
    assert torch.equal(norm.eval()(x), own.eval()(x))


class OnGpu(nn.Sequential):
    """A module that says that it lies on a GPU."""

    def parameters(self, recurse: bool = True) -> Any:
        return iter([SimpleNamespace(is_cuda=True)])


def kinds_on_a_gpu() -> list[tuple[str, bool]]:
    module = across_processes(OnGpu(nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm1d(3))))
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [(type(m).__name__, m.process_group is None) for m in norms]


def test_on_gpus_torchs_own_is_taken(two: Group):
    assert two(kinds_on_a_gpu) == [[("SyncBatchNorm", True)] * 2] * 2


def kept_type(dtype: torch.dtype) -> torch.dtype:
    norm = across_processes(nn.BatchNorm1d(3))
    return norm(torch.randn(4, 3).to(dtype)).dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_keeps_the_type_of_its_input(dtype, two: Group):
    assert two(kept_type, dtype) == [dtype] * 2


def marked() -> list[str]:
    """The kinds of norm after the change, and what is said of one that cannot be changed."""
    local = nn.Sequential(nn.BatchNorm1d(3))
    local.local_batchnorm = True
    both = across_processes(nn.Sequential(nn.Sequential(nn.BatchNorm2d(3)), local, nn.LayerNorm(3)))
    kinds = [type(m).__name__ for m in both.modules() if not isinstance(m, nn.Sequential)]
    try:
        across_processes(nn.BatchNorm3d(3))
    except ValueError as error:
        kinds.append(str(error))
    return kinds


def test_marked_modules_keep_their_own(two: Group):
    assert marked() == ["BatchNorm2d", "BatchNorm1d", "LayerNorm"]
    for kinds in two(marked):
        assert kinds[:3] == ["WorldBatchNorm", "BatchNorm1d", "LayerNorm"]
        assert "BatchNorm3d cannot be synchronised" in kinds[3]
