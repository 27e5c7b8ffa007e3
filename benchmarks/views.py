"""The views of SimCLR by dermsearch, by torchvision v2 and by kornia, on this machine, in one run.

    python benchmarks/views.py [--seconds 3] [--sizes 64 224]

Each makes normalised float views from the same decoded uint8 pictures in memory, on all cores: dermsearch in batches;
torchvision picture by picture, as it is documented, once in this process (torch may use all cores) and once in a
process per core with one thread each, which send nothing back, as a loader would have to; kornia in batches, with one
thread and with all, of which the faster counts. They take turns, in rounds, and the medians are compared. kornia is
left out if it is not installed (pip install dermsearch[bench]).
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.views.augment import View, render
from dermsearch.data.views.pictures import Pictures
from dermsearch.numbers import uniforms

CORES = len(os.sched_getaffinity(0))
STORED = {64: 96}  # side of the pictures by that of the views; else 8/7 of it, as 256 to 224
BYTES = 24 << 20  # of a batch of views
ROUNDS = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures_for(size: int) -> Tensor:
    """uint8 (n, 3, s, s), a batch of them."""
    n = min(256, BYTES // (12 * size * size))
    drawn = [case.images["derm"] for case in synthetic(min(n, 16), STORED.get(size, size * 8 // 7), 0)]
    stored = torch.from_numpy(np.stack([drawn[i % len(drawn)] for i in range(n)]))
    return stored.permute(0, 3, 1, 2)


def kernel(size: int) -> int:
    """A tenth of the side, odd."""
    return 2 * max(1, round(size * 0.05)) + 1


def by_dermsearch(size: int, images: Tensor) -> Callable[[], int]:
    """A batch at a time."""
    view = View(size, (0.08, 1.0), (3 / 4, 4 / 3), 0.5, 0.0, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5, kernel=kernel(size))
    pictures, units = Pictures(images), np.arange(len(images))
    epochs = iter(range(1 << 62))

    def make() -> int:
        return len(render(view, pictures, uniforms(0, next(epochs), units, "views", View.numbers)))

    return make


def by_torchvision(size: int, images: Tensor) -> Callable[[], int]:
    """Picture by picture."""
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, (0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(kernel(size), (0.1, 2.0))], 0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    images = images.contiguous()
    return lambda: len([transform(image) for image in images])


def by_kornia(size: int, images: Tensor) -> Callable[[], int]:
    """A batch at a time."""
    import kornia.augmentation as K

    transform = K.AugmentationSequential(
        K.RandomResizedCrop((size, size), (0.08, 1.0), (3 / 4, 4 / 3)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((kernel(size), kernel(size)), (0.1, 2.0), p=0.5),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input"],
        same_on_batch=False,
    )
    images = images.contiguous()
    return lambda: len(transform(images.float() / 255))


def settle() -> None:
    """Free a large tensor once, as any training does: glibc then keeps what is freed rather than fetch it anew."""
    torch.empty(31 << 20, dtype=torch.uint8)


def speed(make: Callable[[], int], seconds: float) -> float:
    """Views per second."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or not done:
        done += make()
    return done / spent


def serve(size: int, images: Tensor, pipe: Any) -> None:
    """A process of torchvision's: told for how many seconds, it answers how fast it was."""
    torch.set_num_threads(1)
    settle()
    make = by_torchvision(size, images)
    make()
    for seconds in iter(pipe.recv, None):
        pipe.send(speed(make, seconds))


def race(size: int, seconds: float, kornia: bool) -> dict[str, float]:
    """Median views per second of each."""
    settle()
    images = pictures_for(size)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(CORES)]
    for _, far in pipes:
        context.Process(target=serve, args=(size, images, far), daemon=True).start()

    def many(seconds: float) -> float:
        for near, _ in pipes:
            near.send(seconds)
        return sum(near.recv() for near, _ in pipes)

    def threaded(make: Callable[[], int], threads: int) -> Callable[[float], float]:
        def run(seconds: float) -> float:
            torch.set_num_threads(threads)
            return speed(make, seconds)

        return run

    runners = {"dermsearch": threaded(by_dermsearch(size, images), CORES)}
    runners |= {"torchvision": threaded(by_torchvision(size, images), CORES), "in processes": many}
    if kornia:
        for threads in sorted({1, CORES}):
            runners[f"kornia/{threads}"] = threaded(by_kornia(size, images), threads)
    for run in runners.values():
        run(0)  # warm
    found: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, run in runners.items():
            found[name].append(run(seconds / ROUNDS))
    for near, _ in pipes:
        near.send(None)
    medians = {name: median(speeds) for name, speeds in found.items()}
    best = max((v for name, v in medians.items() if name.startswith("kornia")), default=0.0)
    return {**{name: medians[name] for name in ("dermsearch", "torchvision", "in processes")}, "kornia": best}


def main() -> None:
    """Race at every size and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of them at each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    kornia = importlib.util.find_spec("kornia") is not None
    if not kornia:
        print("kornia is not installed and left out")
    print(f"views per second on {CORES} cores")
    heads = f"{'size':>6}{'dermsearch':>12}{'torchvision':>13}{f'in {CORES} processes':>16}{'kornia':>8}"
    print(heads + "    dermsearch is faster by")
    for size in given.sizes:
        ours, *theirs = race(size, given.seconds, kornia).values()
        row = f"{size:>6}{ours:>12.0f}{theirs[0]:>13.0f}{theirs[1]:>16.0f}{theirs[2]:>8.0f}"
        print(row + "    " + ", ".join(f"{ours / other:.1f}" for other in theirs if other))


if __name__ == "__main__":
    main()
