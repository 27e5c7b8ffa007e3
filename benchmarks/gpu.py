"""What has to be known before anybody trusts a GPU with a study, in one go and in less than ten minutes.

    python benchmarks/gpu.py [--small]

parity      every task, two epochs of 48 images of 32 px from the same weights: the CPU's loss beside the GPU's in
            single precision, whose difference must stay below 1 %, and in bf16, below 10 %.
numbers     behind dropout's masks and views, and the views' crops: the device's must be the host's to the bit.
stages      every task at ResNet-50, 224 px, batches of 128: images a second, and the most memory that was taken.
throughput  SimCLR beside lightly with 16 loader processes and beside the bare network: see throughput.py.
study       `dermsearch run curriculum.yaml` with two stages on the GPU at once: seconds, stages, failures.

Without a GPU the CPU stands in for it, which shows that the script runs and nothing else; `--small` takes a minute. The
exit code is 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.parity import BACKBONE, SMALL, USUAL
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import Look
from dermsearch.data.views.arrays import uniforms
from dermsearch.data.views.augment import View, draw
from dermsearch.models.encoders import Encoders
from dermsearch.models.heads import chance
from dermsearch.pretext.base import TASKS, find_task
from dermsearch.settings import Pixels
from dermsearch.testing.small import Kept, SmallStage, make_store, nothing
from dermsearch.training.health import StageFailed
from dermsearch.training.stage import Recipe, train_stage

BOUNDS = {"fp32": 0.01, "bf16": 0.1}  # by how much a loss may differ from the CPU's
GPU = torch.cuda.is_available()
DEVICE, CPU = torch.device("cuda" if GPU else "cpu"), torch.device("cpu")


def history(
    name: str, store: CaseStore, device: torch.device, precision: str, pixels: Pixels = "auto"
) -> list[dict[str, Any]]:
    """Two epochs of a task in small settings."""
    small = SmallStage(name, SMALL.get(name, {}), BACKBONE.get(name, USUAL))
    plain = small.recipe(lr=0.001)
    recipe = Recipe(name, plain.config, plain.train, plain.seed, precision, None, plain.metadata)
    rows = np.arange(len(store.split("train")))
    return train_stage(recipe, small.encoders(), store, rows, Kept(), nothing, device, pixels=pixels).history


def parity(names: list[str], folder: Path) -> bool:
    """Does a task come to the same on the GPU?"""
    store, sound = make_store(folder / "small"), True
    print(f"\n{'parity':<20}{'CPU':>10}{'fp32':>10}{'off by':>10}{'bf16':>10}{'off by':>10}")
    for name in names:
        loss = history(name, store, CPU, "fp32")[-1]["loss"]
        row = f"{name:<20}{loss:>10.5f}"
        for precision, bound in BOUNDS.items():
            other = history(name, store, DEVICE, precision)[-1]["loss"]
            off = abs(other - loss) / max(abs(loss), 1e-9)
            row += f"{other:>10.5f}{off:>9.4%}{' ' if off <= bound else '!'}"
            sound &= off <= bound
        print(row, flush=True)
    return sound


def images(folder: Path) -> bool:
    """Does a stage learn the same from images that lie on the GPU and from those that are sent a batch ahead?"""
    store = make_store(folder / "images")
    ways: list[Pixels] = ["device" if GPU else "auto", "pinned"]  # a CPU has them where they are
    losses = [[row["loss"] for row in history("simclr", store, DEVICE, "fp32", way)] for way in ways]
    print("\nimages: " + ", ".join(f"{way} {each[-1]:.5f}" for way, each in zip(ways, losses, strict=True)), flush=True)
    return losses[0] == losses[1]


def numbers() -> bool:
    """Are a device's numbers behind dropout and views the host's, of any rows of a batch?"""
    rows = [(0, range(8), 2048), (2**40 + 7, range(1000, 1003), 1), (-5, range(3, 600), 513)]
    off = sum(int((chance(*each, DEVICE).cpu() != chance(*each, CPU)).sum()) for each in rows)
    total = sum(len(of) * count for _, of, count in rows)
    view, units = View(224, (0.08, 1), (3 / 4, 4 / 3)), np.arange(4096)
    for seed in (0, 2**40 + 7):
        host = uniforms(seed, 3, units, "view", View.numbers)
        there = uniforms(seed, 3, torch.from_numpy(units).to(DEVICE), "view", View.numbers)
        frames = np.tile([0, 0, 256, 240], (len(units), 1))
        box = draw(view, torch.from_numpy(frames).double().to(DEVICE), there).box
        off += int((there.cpu().numpy() != host).sum() + (box.cpu().numpy() != draw(view, frames, host).box).sum())
        total += there.numel() + box.numel()
    print(f"\nnumbers: {off} of {total} differ from the host's", flush=True)
    return not off


def stages(names: list[str], folder: Path, network: str, size: int, batch: int, steps: int) -> None:
    """How fast are tasks, and what do they hold?"""
    from dermsearch.data.domain import SEVEN_POINT
    from dermsearch.data.drawn.skin import synthetic
    from dermsearch.data.prepare.build import write_store

    drawn = list(synthetic(batch * steps, size, 0))
    split = {case.case: "train" for case in drawn}
    store = write_store(folder / "large", iter(drawn), split, SEVEN_POINT, {"source": "drawn"})
    print(f"\n{f'{network}, {size} px':<20}{'images/s':>10}{'MiB':>10}   batches of {batch}")
    for name in names:
        seen, branches = (("derm", "clinic"), "separate") if find_task(name).joint else (("derm",), "shared")
        config = find_task(name).Config(**({"frozen": False} if name == "pseudo_labels" else {})).model_dump()
        train = {"optimizer": "sgd", "lr": 0.01, "schedule": "constant", "warmup": 0.0, "clip": None}
        train |= {"epochs": 2, "batch": batch}
        recipe = Recipe(name, config, train, 0, "bf16" if GPU else "fp32", Look(size), ("age", "site"))
        try:
            made = Encoders.random("vit_small_patch16_224" if name == "ibot" else network, seen, branches, 0)
            row = train_stage(recipe, made, store, store.split("train"), Kept(), nothing, DEVICE).history[-1]
            print(f"{name:<20}{row['images_per_second']:>10.0f}{row['peak_memory']:>10.0f}", flush=True)
        except (StageFailed, torch.OutOfMemoryError) as error:
            print(f"{name:<20}  {error}", flush=True)


def study(folder: Path, given: list[str]) -> bool:
    """Does a whole study come through?"""
    command = [sys.executable, "-m", "dermsearch", "run", "curriculum_three.yaml", *given, "--json"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, f"compute.store={folder / 'store'}", "--out", str(folder / "out")], capture_output=True, text=True
    )
    if done.returncode:
        print(f"\nstudy: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        return False
    told = json.loads(done.stdout)
    took = time.perf_counter() - began
    print(f"\nstudy: {told['stages']['trained']} stages in {took:.0f} s, {len(told['failures'])} failures")
    return not told["failures"]


def parts(small: bool, folder: Path) -> Iterator[bool]:
    """What is tried, one after the other; whether its bounds held."""
    names = ["relative_location", "moco_v2", "ibot"] if small else list(TASKS.shipped)
    yield parity(names, folder)
    yield images(folder)
    yield numbers()
    if GPU or small:
        stages(names[:2] if small else names, folder, *(("resnet50", 224, 128, 8) if GPU else ("resnet10t", 32, 16, 2)))
    if GPU:
        race = [sys.executable, str(Path(__file__).with_name("throughput.py")), "--seconds", "20"]
        yield subprocess.run(race, check=False).returncode == 0
    few = ["data.cases=80", "data.size=32", "train.epochs=1", "curriculum.length=[1,1]", "compute.engine=inline"]
    few += ["curriculum.tasks={relative_location: {}, moco_v2: {queue: 32}}"]
    yield study(folder, [*(few if small else []), f"compute.gpus={0.5 if GPU else 0}", "published=null"])


def main() -> int:
    """Try all of it and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three tasks, a study of two stages")
    given = parser.parse_args()
    where = torch.cuda.get_device_name() if GPU else "no GPU: the CPU stands in for it"
    print(f"{where}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if all(list(parts(given.small, Path(folder)))) else 1


if __name__ == "__main__":
    sys.exit(main())
