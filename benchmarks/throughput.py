"""SimCLR by dermsearch, by lightly's PyTorch recipe, and the bare network, on this machine, in one run.

    python benchmarks/throughput.py [--seconds 60] [--rounds 3] [--sizes 64 224] [--encoder resnet18]

The images are drawn lesions, stored a little larger than the views (96 px for 64, else 8/7 of the side), the same for
all. Every image gives two views, so views per second are twice the images per second that are told. Each side:

dermsearch     train_stage, as a study runs it: the case store, views made in batches on the device, both through the
               network at once, NT-Xent, SGD, history. bf16 where the hardware has it, channels_last.
lightly        the SimCLR of its documents, word for word in what matters: LightlyDataset over a folder of JPEGs of
               quality 95, SimCLRTransform, DataLoader with workers, torchvision's network, SimCLRProjectionHead,
               NTXentLoss, SGD at 0.06; single precision, as it comes. A second row runs it under bf16 autocast.
limit          dermsearch's network, head, loss, optimiser, precision, memory format and allocator settings on views
               that lie ready in memory: forward, backward, step, and nothing else.

All have a head of width 512 to 128, the same batch, and all cores for torch; lightly's workers come on top. Each has a
process of its own; they take turns, while the others wait, and medians of the rounds are compared. Left out: imports,
each turn's first epoch of dermsearch, first step of the limit and first batches of lightly (until its workers have
filled their queue; a process that waited must fetch its memory back), the
making of the store and of the JPEGs, and the saving of a stage's state between epochs. An epoch here is short, so what
dermsearch does once per epoch weighs more than in a study. Memory is the most that the process held, plus what its
workers hold for themselves at the end of a turn; on a GPU also the most that torch had allocated there.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dermsearch.data.case import Case
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import CasePool, Look
from dermsearch.models.encoders import Encoders
from dermsearch.pretext.base import Batch, find_task
from dermsearch.training import optim
from dermsearch.training.memory import keep_memory
from dermsearch.training.precision import autocast, resolve
from dermsearch.training.stage import Learner, Recipe, train_stage

CORES = len(os.sched_getaffinity(0))
STORED = {64: 96}  # side of the pictures by that of the views; else 8/7 of it, as 256 to 224
DRAWN = 48  # pictures; the others are these, shifted
TARGETS = {64: {"lightly": 1.6, "limit": 0.92}, 224: {"lightly": 2.3}}


@dataclass(frozen=True)
class Race:
    """What all run."""

    size: int
    encoder: str
    batch: int
    steps: int  # of an epoch
    workers: int  # of lightly's loader
    gpu: bool
    folder: str = ""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.gpu else "cpu")

    @property
    def precision(self) -> str:
        return resolve("auto", int(self.gpu))

    @property
    def recipe(self) -> Recipe:
        """SGD as in lightly's documents."""
        train = {"optimizer": "sgd", "lr": 0.06, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
        train |= {"warmup": 0.0, "clip": None, "epochs": 1_000_000, "batch": self.batch}
        config = find_task("simclr").Config(hidden=512, out=128).model_dump()
        return Recipe("simclr", config, train, 0, self.precision, Look(self.size))


def wait(race: Race) -> None:
    """Until the device has done what it was told."""
    if race.gpu:
        torch.cuda.synchronize()


def prepare(race: Race) -> None:
    """The same pictures as a case store and as a folder of JPEGs."""
    side = STORED.get(race.size, race.size * 8 // 7)
    drawn = [case.images["derm"] for case in synthetic(DRAWN, side, 0)]
    jpegs = Path(race.folder, "jpegs")
    jpegs.mkdir()

    def cases() -> Iterator[Case]:
        for i in range(race.batch * race.steps):
            image = np.roll(drawn[i % DRAWN], i // DRAWN, 1)
            Image.fromarray(image).save(jpegs / f"{i:06d}.jpg", quality=95)
            yield Case(f"C{i}", f"L{i}", f"P{i}", {"derm": image}, {"diagnosis": 0})

    split = {f"C{i}": "train" for i in range(race.batch * race.steps)}
    write_store(Path(race.folder, "store"), cases(), split, SEVEN_POINT, {"source": "drawn"})


class Turns:
    """When a process may run: it is told for how many seconds, and tells how fast it was."""

    def __init__(self, race: Race, pipe: Connection) -> None:
        self.race, self.pipe = race, pipe
        self.images, self.began, self.seconds = 0, 0.0, 0.0
        self.told: tuple[float, float, float] | None = None

    def start(self) -> None:
        """Tell how fast the last turn was, now that its workers are gone, and wait for the next."""
        if self.told:
            self.pipe.send(self.told)
        self.seconds = self.pipe.recv()
        self.clear()

    def clear(self) -> None:
        """What was done so far was warming up: the clock starts."""
        wait(self.race)
        self.images, self.began = 0, time.perf_counter()

    def over(self, images: int, card: float | None = None) -> bool:
        """So many images more are done; is the turn over? `card`: the MiB that were taken on the GPU."""
        self.images += images
        if time.perf_counter() - self.began < self.seconds:
            return False
        wait(self.race)
        speed = self.images / (time.perf_counter() - self.began)
        if card is None:
            card = torch.cuda.max_memory_allocated() / 2**20 if self.race.gpu else 0.0
        self.told = (speed, memory(), card)
        return True


def memory() -> float:
    """MiB: the most of this process, and what its children hold alone."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for child in multiprocessing.active_children():
        told = Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines()
        held += sum(int(line.split()[1]) for line in told if line.startswith("Private_")) / 1024
    return held


class Unkept:
    """A `Partial` that keeps nothing."""

    def load(self) -> None:
        return None

    def left(self, within: bool = False) -> float:
        return math.inf

    def save(self, state: dict[str, Any]) -> None:
        pass


def by_dermsearch(race: Race, turns: Turns) -> None:
    """The real trainer; its report after every epoch says how far it is."""
    cases = CaseStore(Path(race.folder, "store"))
    encoders = Encoders.random(race.encoder, ("derm",), "shared", 0)

    warm = False

    def report(row: dict[str, Any]) -> None:
        nonlocal warm
        card = row["peak_memory"] if race.gpu else 0.0  # the trainer resets what torch counts
        if not warm and row["epoch"] > 1:  # the first epoch of a turn, as the others' first batches
            turns.clear()
            warm = True
        elif row["epoch"] == 1 or turns.over(race.batch * race.steps, card):
            turns.start()
            warm = False

    train_stage(race.recipe, encoders, cases, cases.split("train"), Unkept(), report, race.device)


class SimCLR(nn.Module):
    """As in lightly's documents."""

    def __init__(self, encoder: str) -> None:
        import torchvision
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        network = getattr(torchvision.models, encoder)()
        width = network.fc.in_features
        self.backbone = nn.Sequential(*list(network.children())[:-1])
        self.projection_head = SimCLRProjectionHead(width, 512, 128)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection_head(self.backbone(x).flatten(start_dim=1))


def by_lightly(race: Race, turns: Turns, precision: str = "fp32") -> None:
    """Its documented loop."""
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.transforms.simclr_transform import SimCLRTransform

    model = SimCLR(race.encoder).to(race.device)
    dataset = LightlyDataset(f"{race.folder}/jpegs", transform=SimCLRTransform(input_size=race.size))
    endless = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**9)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=race.batch, sampler=endless, drop_last=True, num_workers=race.workers
    )
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    cast = autocast(race.device, precision)
    ahead = 2 * race.workers  # batches that the workers make beforehand
    while True:
        turns.start()
        for i, batch in enumerate(loader):
            x0, x1 = batch[0]
            x0, x1 = x0.to(race.device), x1.to(race.device)
            with cast():
                loss = criterion(model(x0), model(x1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if i < ahead:
                turns.clear()
            elif turns.over(race.batch):
                break


def by_lightly_in_bf16(race: Race, turns: Turns) -> None:
    """The same under autocast."""
    by_lightly(race, turns, "bf16")


@dataclass(frozen=True)
class Ready(Batch):
    """A batch whose views were made before."""

    made: tuple[Tensor, ...] = ()

    def views(self, *args: Any, **named: Any) -> list[Tensor]:
        return list(self.made)


def by_limit(race: Race, turns: Turns) -> None:
    """The task's own loss, forward and backward, on views in memory."""
    keep_memory()  # as the trainer does
    cases = CaseStore(Path(race.folder, "store"))
    pool = CasePool(cases, ("derm",), cases.split("train"), race.device, race.recipe.look)
    encoders = Encoders.random(race.encoder, ("derm",), "shared", 0)
    learner = Learner(find_task("simclr"), encoders, {"shared": pool}, race.recipe).to(race.device)
    learner = learner.to(memory_format=torch.channels_last).train()
    optimizer = optim.build(learner, race.recipe.train, learner.options())
    cast = autocast(race.device, race.precision)
    task = learner.each()[0]
    first = (np.arange(race.batch), pool, race.size, 0, 0, 0)
    views = Batch(*first).views([task.view] * 2, "view")  # type: ignore[list-item]
    batch = Ready(*first, tuple(x.contiguous(memory_format=torch.channels_last) for x in views))

    def step() -> None:
        with cast():
            total, _ = learner({"shared": batch})
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    step()
    while True:
        turns.start()
        step()
        turns.clear()
        step()
        while not turns.over(race.batch):
            step()


SIDES: dict[str, Callable[[Race, Turns], None]] = {
    "dermsearch": by_dermsearch,
    "lightly": by_lightly,
    "lightly, bf16": by_lightly_in_bf16,
    "limit": by_limit,
}


def serve(name: str, race: Race, pipe: Connection) -> None:
    """The life of a side's process."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(CORES)
    SIDES[name](race, Turns(race, pipe))


def run(race: Race, names: list[str], seconds: float, rounds: int) -> dict[str, np.ndarray]:
    """For each side (rounds, 3): images per second, MiB of memory, MiB on the GPU."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], far = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, race, far)))  # not daemonic: lightly's has children
        processes[-1].start()
        far.close()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    try:
        for _ in range(rounds):
            for name, pipe in pipes.items():
                pipe.send(seconds / rounds)
                found[name].append(pipe.recv())
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return {name: np.array(rows) for name, rows in found.items()}


def tell(race: Race, found: dict[str, np.ndarray]) -> None:
    """The table of a race, and how it stands with the targets."""
    where = torch.cuda.get_device_name() if race.gpu else f"{CORES} cores"
    print(f"\n{race.size} px, {race.encoder}, batches of {race.batch}, {where}, {race.precision} unless told otherwise")
    print(f"{'':<16}{'images/s':>10}{'from':>10}{'to':>10}{'memory MiB':>13}{'GPU MiB':>10}   dermsearch is")
    ours = median(found["dermsearch"][:, 0])
    targets = {} if race.gpu else TARGETS.get(race.size, {})
    for name, rows in found.items():
        speeds, (held, card) = rows[:, 0], rows[:, 1:].max(0)
        row = f"{name:<16}{median(speeds):>10.1f}{speeds.min():>10.1f}{speeds.max():>10.1f}{held:>13.0f}{card:>10.0f}"
        if name != "dermsearch":
            ratio = ours / median(speeds)
            row += f"   {ratio:.2f} x that"
            if name in targets:
                row += f", {'reached' if ratio >= targets[name] else 'short'} ({targets[name]} is the target)"
        print(row, flush=True)


def main() -> None:
    """Race at every size and print."""
    gpu = torch.cuda.is_available()
    usual = {224: ("resnet50", 256, 16), 128: ("resnet18", 512, 16)} if gpu else {}
    usual = usual or {64: ("resnet18", 128, 8), 224: ("resnet18", 32, 4)}  # encoder, batch, steps of an epoch
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each side at each size, over all rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(usual))
    parser.add_argument("--encoder", choices=["resnet18", "resnet50"], help="default: resnet18; on a GPU at 224, 50")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    given = parser.parse_args()
    for size in given.sizes:
        encoder, batch, steps = usual.get(size, ("resnet18", 64, 4))
        with tempfile.TemporaryDirectory() as folder:
            workers = min(16, CORES) if gpu else CORES
            race = Race(size, given.encoder or encoder, given.batch or batch, steps, workers, gpu, folder)
            prepare(race)
            names = ["dermsearch", *(name for name in SIDES if name in given.sides and name != "dermsearch")]
            tell(race, run(race, names, given.seconds, given.rounds))


if __name__ == "__main__":
    main()
