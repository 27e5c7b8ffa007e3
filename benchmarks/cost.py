"""What a task costs beside the network that it trains: operations and memory of a step, counted; nothing is computed.

    python benchmarks/cost.py [--batch 64]

Every task at ResNet-50 and 224 px in bf16, iBOT at ViT-S/16; each in its own settings, SSD-KD as the student learns.

GFLOP   of an image, forward and backward, by torch's counter, which knows products and
        convolutions; views are not in it. Of one that is a case's, as in joint tasks, too.
times   so many times the bare network's, forward and backward; beside it what the task says (`cost`), by which `plan`
        reckons hours.
MB      of an image: what autograd keeps of the forward pass until the gradient is back, weights not among it; and so
        many times the bare network's.
state   MB of the stage beside its batch: weights, buffers, gradients, what the optimiser remembers.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.data.views.augment import PatchGrid, View
from dermsearch.data.views.pictures import Pictures
from dermsearch.models.encoders import Encoders, backbone
from dermsearch.pretext.base import TASKS, Batch, Material, find_task
from dermsearch.run.memory import kept_of
from dermsearch.testing.cuda import move
from dermsearch.testing.small import COLUMNS, CPU, ROWS, make_store
from dermsearch.training import optim
from dermsearch.training.learner import Learner, Recipe

SIZE, NETWORKS = 224, {"ibot": "vit_small_patch16_224"}
SETTINGS: dict[str, dict[str, Any]] = {"ssd_kd": {"teaching": 0.0, "rotating": 0.0}, "slimp": {"lesions": 4}}
FAKE = FakeTensorMode(allow_non_fake_inputs=True)
UNITS = 8192  # the same few cases again and again: enough for every queue


class Blank(Batch):
    """Whose views have sides and no numbers."""

    @property
    def pictures(self) -> Pictures:  # type: ignore[override]
        return Pictures(torch.empty(len(self.own), 3, SIZE, SIZE, dtype=torch.uint8))

    def views(
        self, views: Sequence[View], use: str, units: np.ndarray | None = None, again: bool = False
    ) -> list[Tensor]:
        return [torch.empty(len(self.own if units is None else units), 3, v.size, v.size) for v in views]

    def whole(self) -> Tensor:
        return torch.empty(len(self.own), 3, self.size, self.size)

    def patches(self, grid: PatchGrid, use: str) -> Tensor:
        return torch.empty(len(self.own), 9, 3, grid.patch, grid.patch)


class Stage:
    """A task's stage on fake numbers, whose steps count."""

    def __init__(self, name: str, store: CaseStore) -> None:
        task = self.task = find_task(name)
        self.config = task.Config(**SETTINGS.get(name, {}))
        seen, branches = (("derm", "clinic"), "separate") if task.joint else (("derm",), "shared")
        encoders = Encoders(NETWORKS.get(name, "resnet50"), seen, branches)
        self.pools = task.pools(Material(encoders, store, np.resize(ROWS, UNITS), CPU, Look(SIZE)))
        read = tuple(column.name for column in COLUMNS) if task.tables else ()
        train = {"epochs": 100, **task.train_defaults, "lr": 0.01, "warmup": 0.0, "clip": None}
        recipe = Recipe(name, self.config.model_dump(), {**train, "batch": UNITS // 16}, 0, "bf16", Look(SIZE), read)
        self.learner = Learner(task, encoders, self.pools, recipe).train()
        with FAKE:
            move(self.learner, CPU)
        self.optimizer = optim.build(self.learner, recipe.train, self.learner.options())

    def forward(self, batch: int) -> Tensor:
        """The loss of so many units."""
        units = np.arange(batch)
        return self.learner({b: Blank(units, pool, SIZE, 5, 50, 5000) for b, pool in self.pools.items()})[0]

    def step(self, batch: int) -> None:
        """What a step does, but for what follows it in a few tasks: too little to count."""
        for one in self.learner.each():
            one.before_step(5000)
        self.forward(batch).backward()
        for one in self.learner.each():
            one.after_backward(5000)
        self.optimizer.step()

    def state(self) -> int:
        """Bytes of what is there between two steps, and of the gradients."""
        tensors = [*self.learner.parameters(), *self.learner.buffers()]
        tensors += [p.grad for p in self.learner.parameters() if p.grad is not None]
        tensors += [t for own in self.optimizer.state.values() for t in own.values() if isinstance(t, Tensor)]
        return sum(t.nbytes for t in tensors)


def kept(forward: Callable[[int], object], batch: int) -> float:
    """Bytes that one image more keeps."""
    with FAKE:
        few, more = (kept_of(lambda _, n=n: forward(n), torch.empty(0), "bf16") for n in (batch // 2, batch))
    return (more - few) / (batch - batch // 2)


def bare(name: str, batch: int) -> tuple[float, float]:
    """FLOPs and bytes of an image in a network by itself."""
    network = backbone(name).train()
    with FAKE:
        move(network, CPU)
    with FAKE, FlopCounterMode(display=False) as counter:
        network(torch.empty(batch, 3, SIZE, SIZE)).sum().backward()
    return counter.get_total_flops() / batch, kept(lambda n: network(torch.empty(n, 3, SIZE, SIZE)), batch)


def told(name: str, flops: float, memory: float, alone: tuple[float, float], says: float, state: float) -> str:
    """A row of the table."""
    times = f"{flops / alone[0]:>8.2f}{f'{says:.2f}' if says else '':>8}"
    return f"{name:<24}{flops / 1e9:>9.1f}{times}{memory / 1e6:>9.1f}{memory / alone[1]:>8.2f}{state / 1e6:>10.0f}"


def main() -> None:
    """Count all tasks and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="units of a step; losses of pairs grow with its square")
    parser.add_argument("tasks", nargs="*", default=list(TASKS.shipped))
    given = parser.parse_args()
    print(f"{f'batches of {given.batch}':<24}{'GFLOP':>9}{'times':>8}{'says':>8}{'MB':>9}{'times':>8}{'state, MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        store, alone = make_store(Path(folder) / "store"), dict[str, tuple[float, float]]()
        for name in given.tasks:
            network = NETWORKS.get(name, "resnet50")
            if network not in alone:
                alone[network] = bare(network, given.batch)
                print(told(network, *alone[network], alone[network], 0, 0), flush=True)
            stage = Stage(name, store)
            images = given.batch * len(stage.pools)
            with FAKE, FlopCounterMode(display=False) as counter:
                stage.step(given.batch)
            memory = kept(stage.forward, given.batch) / len(stage.pools)
            flops, says = counter.get_total_flops() / images, stage.task.cost(stage.config, SIZE)
            print(told(name, flops, memory, alone[network], says, stage.state()), flush=True)


if __name__ == "__main__":
    main()
