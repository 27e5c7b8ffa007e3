"""Several processes come to what one comes to: loss, gradient, banks, and the encoders after two epochs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from gloo import Group
from pretext import tiny
from torch.nn.parallel import DistributedDataParallel

from dermsearch import world
from dermsearch.data.store.case_store import CaseStore
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.momentum import Follower
from dermsearch.pretext import odc
from dermsearch.pretext.base import find_task
from dermsearch.training import stage

pytestmark = pytest.mark.slow

every_task = pytest.mark.parametrize("name", tiny.TASKS)
STEPS = 2


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> CaseStore:
    return tiny.make_store(tmp_path_factory.mktemp("data") / "store")


def steps(name: str, folder: str, modalities: tuple[str, ...]) -> list[dict[str, Any]]:
    """Loss, gradients and buffers of some steps, as this process sees them.

    Networks are in double precision: BatchNorm over few rows magnifies rounding, and would hide a small mistake.
    """
    torch.set_num_threads(1)
    run = tiny.Steps(name, CaseStore(folder), tiny.encoders(name, modalities, "separate"))
    across_processes(run.learner)
    for task in run.learner.each():
        for part in task.children():
            part.double()
        slow = [m.parts[0] for m in task.children() if isinstance(m, Follower)]
        for module in (*run.encoders.backbones.values(), *slow, *getattr(task, "teachers", {}).values()):
            # A network may be asked for its tokens or maps alone: then its first layer is what sees the images.
            module = next((getattr(module, n) for n in ("patch_embed", "conv1") if hasattr(module, n)), module)
            module.register_forward_pre_hook(lambda module, images: images[0].double())
    model = run.learner
    if world.size() > 1:
        model = DistributedDataParallel(run.learner, forward_sync_buffers=False)
    found = []
    for _ in range(STEPS):
        loss = run.backward(model)
        found.append(
            {
                "loss": float(world.reduce_sum(loss) / world.size()),
                "gradient": {n: p.grad.clone() for n, p in run.learner.named_parameters() if p.requires_grad},
            }
        )
        run.finish()
        found[-1]["buffers"] = {n: b.clone() for n, b in run.learner.named_buffers()}
    return found


def close(one: torch.Tensor, many: torch.Tensor, tolerance: float, atom: float) -> bool:
    """Same direction and same length, or both nothing."""
    a, b = one.double().flatten(), many.double().flatten()
    if a.norm() < atom and b.norm() < atom:
        return True
    cosine, scale = a @ b / (a.norm() * b.norm()), b.norm() / a.norm()
    return bool(abs(1 - cosine) < tolerance and abs(1 - scale) < tolerance)


def check(one: list[dict[str, Any]], every: list[list[dict[str, Any]]]) -> None:
    """The steps of one process against those of each of several."""
    for at in range(STEPS):
        tolerance = 1e-5
        for rank, many in enumerate(every):
            a, b = one[at], many[at]
            assert b["loss"] == pytest.approx(a["loss"], rel=tolerance), (at, rank)
            atom = 1e-5 * max(g.norm() for g in a["gradient"].values())
            for n, g in a["gradient"].items():
                assert close(g, b["gradient"][n], tolerance, atom), (at, rank, n)
            for n, buffer in b["buffers"].items():
                if ".key." in n and n.endswith("num_batches_tracked"):
                    continue  # counts the groups that this process encoded; not used
                assert torch.equal(buffer, every[0][at]["buffers"][n]), (at, rank, n)
                if buffer.is_floating_point():
                    torch.testing.assert_close(buffer, a["buffers"][n], rtol=1e-4, atol=1e-5)
                else:
                    assert torch.equal(buffer, a["buffers"][n]), (at, rank, n)


@every_task
def test_loss_and_gradient_on_two_processes(name, store, two: Group):
    arguments = (name, str(store.folder), ("derm", "clinic"))
    check(steps(*arguments), two(steps, *arguments))


@pytest.mark.long
@every_task
def test_loss_and_gradient_on_four_processes(name, store, four: Group):
    arguments = (name, str(store.folder), ("derm",))
    check(steps(*arguments), four(steps, *arguments))


@pytest.mark.long
def test_loss_and_gradient_on_more_processes_than_groups_of_keys(store):
    """MoCo shuffles its keys in four groups: of eight processes four encode keys, and all have what one has."""
    eight, arguments = Group(8), ("moco_v2", str(store.folder), ("derm",))
    try:
        check(steps(*arguments), eight(steps, *arguments))
    finally:
        eight.stop()


def test_loss_and_gradient_where_images_are_missing(tmp_path, two: Group):
    store = tiny.make_store(tmp_path / "store", missing={"clinic": [1, 5, 9, 30], "derm": [2, 44]})
    for name in (n for n in tiny.TASKS if find_task(n).joint):
        arguments = (name, str(store.folder), ("derm", "clinic"))
        check(steps(*arguments), two(steps, *arguments))


def whole_stage(name: str, folder: str, batch: int, precision: str) -> dict[str, Any]:
    """Two epochs by the trainer: history, encoders, and every buffer of the task."""
    torch.set_num_threads(1)
    made: list[stage.Learner] = []

    class Watched(stage.Learner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    kept, whole = tiny.Kept(), stage.Learner
    stage.Learner = Watched  # type: ignore[misc]
    try:
        encoders = tiny.encoders(name)
        fast = name in ("paired_contrast", "ssd_kd")  # four BatchNorms over 16 rows: rounding grows fast
        rate = 0.0002 if fast else 0.002
        recipe = tiny.recipe(name, batch=batch, lr=rate)
        history = stage.train_stage(
            replace(recipe, precision=precision),
            encoders, CaseStore(folder), tiny.ROWS, kept, lambda row: None, tiny.CPU,
        ).history  # fmt: skip
    finally:
        stage.Learner = whole  # type: ignore[misc]
    tasks = {n: b.clone() for n, b in made[0].named_buffers() if ".key." not in n}
    return {
        "history": history,
        "encoders": {n: v.clone() for n, v in encoders.state_dict().items()},
        "buffers": tasks,
        "kept": kept.data is not None,
    }


def far(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Distance of two sets of weights as a share of their length."""
    x, y = (torch.cat([v.double().flatten() for v in d.values()]) for d in (a, b))
    return float((x - y).norm() / x.norm())


# What one step gives is tried above for all; here, what the trainer adds, for one of each kind of state.
@pytest.mark.parametrize("name", ["odc", "moco_v2", "ibot", "slimp", "paired_contrast", "relative_location"])
def test_two_epochs_on_two_processes(name, store, two: Group):
    arguments = (name, str(store.folder), tiny.BATCH, "fp32")
    one, every = whole_stage(*arguments), two(whole_stage, *arguments)
    assert [r["kept"] for r in every] == [True, False]  # the first process writes
    start = tiny.encoders(name).state_dict()
    for many in every:
        for a, b in zip(one["history"], many["history"], strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
            assert b["lr"] == a["lr"]
            for column in ("grad_norm", "embedding_std", "effective_rank"):
                assert b[column] == pytest.approx(a[column], rel=1e-2)
            assert b["parts"] == pytest.approx(a["parts"], abs=0.02)
        moved = far(start, one["encoders"])
        assert moved > 1e-3 and far(one["encoders"], many["encoders"]) < 0.01 * moved
        for n, buffer in many["buffers"].items():
            assert torch.equal(buffer, every[0]["buffers"][n]), n
        assert all(torch.equal(v, every[0]["encoders"][n]) for n, v in many["encoders"].items())


def own_start(folder: str) -> dict[str, Any]:
    """A stage whose k-means comes out differently on every process, as on unlike machines."""
    real, starts = odc.kmeans, [lambda x, clusters, seed: (torch.arange(len(x)) + world.rank()) % clusters]
    with pytest.MonkeyPatch.context() as patch:  # the first one alone: later ones divide a cluster, alike everywhere
        patch.setattr(odc, "kmeans", lambda *given: (starts.pop() if starts else real)(*given))
        return whole_stage("odc", folder, tiny.BATCH, "fp32")


def test_the_first_process_decides_where_all_start(store, two: Group):
    one, other = two(own_start, str(store.folder))
    assert [n for n, b in one["buffers"].items() if not torch.equal(b, other["buffers"][n])] == []


def refused(function: Callable[..., Any], *args: Any) -> str:
    """The message of the failure."""
    try:
        function(*args)
    except stage.StageFailed as error:
        return str(error)
    return ""


def uneven(folder: str) -> str:
    return refused(whole_stage, "relative_location", folder, 15, "fp32")


def test_a_batch_that_does_not_divide_is_refused(store, two: Group):
    assert two(uneven, str(store.folder)) == ["relative_location: a batch of 15 does not divide among 2 workers"] * 2


def test_bf16_runs_on_two_processes(store, two: Group):
    one, other = two(whole_stage, "odc", str(store.folder), tiny.BATCH, "bf16")
    assert all(torch.equal(v, other["encoders"][n]) for n, v in one["encoders"].items())
