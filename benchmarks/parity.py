"""Is the gradient of several processes that of one? Every task, and lightly's NT-Xent beside them.

    python benchmarks/parity.py [--tasks simclr byol] [--processes 2 4]

Each task takes two steps with a small backbone in double precision, its global batch dealt to so many processes over
gloo, gradients averaged as DistributedDataParallel does. Told are the cosine between the whole gradient and that of one
process on the same global batch, and the ratio of their lengths: the farthest from 1 of both steps and all processes.
Both must be within 1e-4 of 1 for every task of dermsearch, else the exit code is 1.
lightly's NTXentLoss stands in the same network with the same synchronised BatchNorm, once as it is by default, once
with gather_distributed=True, so only the loss makes a difference.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

from dermsearch import world
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool
from dermsearch.data.store.splits import Split
from dermsearch.data.views.augment import PatchGrid, View
from dermsearch.models.batchnorm import across_processes
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import mlp
from dermsearch.pretext.base import TASKS, Batch, Loss, Material, Settings, Task, find_task
from dermsearch.pretext.batch import epoch_order
from dermsearch.training import optim
from dermsearch.training.learner import WholeImages
from dermsearch.training.precision import autocast
from dermsearch.training.stage import Learner, Recipe, number_dropout

CASES, SIDE, BATCH, STEPS = 48, 64, 16, 2
TOLERANCE = 1e-4
CPU = torch.device("cpu")
TRAIN = {"optimizer": "sgd", "lr": 0.02, "lr_batch": 256, "momentum": 0.9, "weight_decay": 1e-4}
TRAIN |= {"schedule": "constant", "warmup": 0.0, "clip": None, "epochs": 1, "batch": BATCH}

# What suits 48 images in batches of 16; a task that is not here has its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "moco_v2": {"queue": 32, "out": 16},
    "odc": {"clusters": 4, "small": 5, "recompute": 2, "hidden": 32, "feature": 16},
    "simclr": {"hidden": 32, "out": 16},
    "byol": {"hidden": 32, "out": 16},
    "swav": {"prototypes": 8, "out": 16, "queue": 24, "frozen_epochs": 0, "local": 2},
    "dino": {"out": 16, "hidden": 32, "bottleneck": 8, "local": 2, "frozen_epochs": 0, "momentum_encoder": 0.9},
    "ibot": {"out": 16, "hidden": 32, "bottleneck": 8, "local": 2, "frozen_epochs": 0, "momentum_encoder": 0.9},
    "joint_supervised": {"out": 16},
    "paired_contrast": {"out": 16},
    "pseudo_labels": {"width": 32, "feedforward": 16, "frozen": False},
}
BACKBONE = {"ibot": "test_vit"}  # else:
USUAL = "test_resnet"


class LightlyLoss(Task):
    """A backbone, a head and lightly's NTXentLoss."""

    name = "lightly"

    class Config(Settings):
        """Whether negatives come from all processes."""

        gather: bool = False

    def __init__(self, backbone: nn.Module, config: Any, setting: Any) -> None:
        from lightly.loss import NTXentLoss

        super().__init__(backbone, config, setting)
        self.view = View(setting.size, (0.08, 1.0), (3 / 4, 4 / 3), 0.5)
        self.head = mlp(setting.dim, setting.dim, 16)
        self.nt_xent = NTXentLoss(gather_distributed=config.gather)

    def loss(self, batch: Batch) -> Loss:
        """One view after the other, as lightly's documents do it."""
        features = [self.backbone(x) for x in batch.views([self.view] * 2, "view")]
        return Loss(self.nt_xent(*map(self.head, features)), features[0], {})


THEIRS = {"lightly NTXentLoss": {"gather": False}, "  gather_distributed=True": {"gather": True}}


def double(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Whatever enters a network does so in double precision."""
    return tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


class Exact(Batch):
    """A batch whose pictures are in double precision."""

    def views(self, *args: Any, **named: Any) -> list[Tensor]:
        return [x.double() for x in super().views(*args, **named)]

    def patches(self, grid: PatchGrid, use: str) -> Tensor:
        return super().patches(grid, use).double()


def gradients(name: str, folder: str) -> list[Tensor]:
    """The whole gradient of each step, as this process has it after averaging.

    BatchNorm over few rows magnifies rounding, and would hide a small mistake: hence double precision. The first step
    leaves zeros behind the branches that timm starts at zero, and empty banks; so there is a second.
    """
    task, config = (LightlyLoss, THEIRS[name]) if name in THEIRS else (find_task(name), SMALL.get(name, {}))
    seen, branches = (("derm", "clinic"), "separate") if task.joint else (("derm",), "shared")
    encoders = Encoders.random(BACKBONE.get(name, USUAL), seen, branches, 3)
    recipe = Recipe(task.name, task.Config(**config).model_dump(), TRAIN, 7, "fp32")
    cases, rows = CaseStore(folder), np.arange(CASES)
    if task is LightlyLoss:
        pools = {"shared": CasePool(cases, seen, rows, CPU)}
    else:
        pools = find_task(recipe.task).pools(Material(encoders, cases, rows, CPU, recipe.look))
    learner = across_processes(Learner(task, encoders, pools, recipe)).train()
    (one,) = learner.each()
    for part in one.children():
        part.double()
    optimizer = optim.build(learner, TRAIN, learner.options())
    whole = WholeImages(pools, autocast(CPU, "fp32"))
    learner.tell("begin", whole)
    for task in learner.each():
        task.enter_epoch(0)
    learner.tell("begin_epoch", whole, 0)
    model = DistributedDataParallel(learner, forward_sync_buffers=False) if world.size() > 1 else learner
    found = []
    for step in range(STEPS):
        number_dropout(learner, step)
        batches = {b: Exact(epoch_order(7, step, CASES, BATCH, False), p, SIDE, 5, 0, step) for b, p in pools.items()}
        one.before_step(step)
        total, _ = model(batches)
        optimizer.zero_grad()
        total.backward()
        one.after_backward(step)
        found.append(torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None]).double())
        optimizer.step()
        learner.tell("after_step", batches)
    return found


def serve(names: list[str], folder: str, rank: int, size: int, meet: str, pipe: Connection) -> None:
    """The life of one process of a group: the gradients of every name, or what went wrong."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    register_module_forward_pre_hook(double)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size)
    for name in names:
        pipe.send([g.numpy() for g in gradients(name, folder)])
    if size > 1:
        dist.destroy_process_group()


def by(size: int, names: list[str], folder: str) -> dict[str, list[list[np.ndarray]]]:
    """For each name, the gradients of every step on each of so many processes."""
    context = get_context("spawn")
    ends, processes = [], []
    with tempfile.TemporaryDirectory() as place:
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=serve, args=(names, folder, rank, size, f"{place}/meet", there), daemon=True
            )
            process.start()
            there.close()
            ends.append(here)
            processes.append(process)
        try:
            return {name: [end.recv() for end in ends] for name in names}
        except EOFError:
            sys.exit(f"a process of {size} died; its message stands above")
        finally:
            for process in processes:
                process.terminate()
                process.join()


def compare(one: list[np.ndarray], every: list[list[np.ndarray]]) -> tuple[float, float]:
    """Cosine and ratio of lengths with the single process's gradients, each the farthest from 1."""
    cosines, ratios = [], []
    for many in every:
        for a, b in zip(one, many, strict=True):
            lengths = np.linalg.norm(a), np.linalg.norm(b)
            cosines.append(float(a @ b / (lengths[0] * lengths[1])))
            ratios.append(float(lengths[1] / lengths[0]))
    return tuple(
        max(values, key=lambda v: abs(1 - v) if math.isfinite(v) else math.inf) for values in (cosines, ratios)
    )


def importable(name: str) -> bool:
    """Is the task there?"""
    try:
        find_task(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return False
    return True


def main() -> None:
    """Compute, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS.shipped), choices=list(TASKS.shipped))
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    if uneven := [n for n in given.processes if n < 2 or BATCH % n]:
        parser.error(f"--processes: must be 2 or more and divide {BATCH}, not {uneven[0]}")
    names = [name for name in given.tasks if importable(name)] + list(THEIRS)
    with tempfile.TemporaryDirectory() as folder:
        write_store(f"{folder}/store", synthetic(CASES, SIDE, 0), Split("patient"), SEVEN_POINT, {"source": "drawn"})
        found = {size: by(size, names, f"{folder}/store") for size in (1, *given.processes)}
    print(f"the gradient of a batch of {BATCH}, against one process on the same batch: cosine, ratio of lengths")
    print(f"{'processes':<26}" + "".join(f"{size:>12}{'':>11}" for size in found))
    wrong = []
    for name in names:
        row = f"{name:<26}"
        for size, gradients_of in found.items():
            cosine, ratio = compare(found[1][name][0], gradients_of[name])
            row += f"{cosine:>13.6f}{ratio:>10.6f}"
            if name not in THEIRS and not max(abs(1 - cosine), abs(1 - ratio)) < TOLERANCE:
                wrong.append(f"{name} on {size}")
        print(row)
    print(f"farther than {TOLERANCE:g} from 1: {', '.join(wrong)}" if wrong else f"all tasks are within {TOLERANCE:g}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
