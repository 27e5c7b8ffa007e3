"""`dermsearch embed` and timm's own loader with its network, on the same pictures and cores, in one run.

    python benchmarks/embed.py FOLDER [--images 2000] [--encoder resnet18] [--size 64] [--rounds 3]

FOLDER is searched for JPEGs; so many of them, evenly spread, are linked into a folder that both sides read. Each side:

embed     `dermsearch embed` as it is called: files decoded by threads, as small as the network needs them, the network
          in bf16 where the hardware has it, and the features written to a .parquet file.
timm      timm.data.create_loader over timm's ImageDataset with a worker for each core, the transform that the exported
          config asks for, and the same network in single precision as it comes; features are kept in memory.
timm 16   the same under bf16 autocast and channels_last, as embed has it.
loader    timm's loader alone: no network sees what it gives.
decode    embed's decoding alone.

Sides take turns, so that whatever else the machine does meets all of them; medians over rounds are told. Each has seen
some pictures before its first turn. Beside pictures a second stands what each cost in milliseconds of all cores and
processes: on a machine that others use, more processes get more of it, and only the cost can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from rich.console import Console
from timm.data import ImageDataset, create_loader

from dermsearch.models.encoders import backbone
from dermsearch.run.embed import batches, embed, found
from dermsearch.run.export import CONFIG
from dermsearch.run.formats import to_timm
from dermsearch.training.precision import autocast, resolve

CORES = len(os.sched_getaffinity(0))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 128


def exported(folder: Path, name: str, size: int) -> dict[str, Any]:
    """A folder as `dermsearch export` writes it, of a network with random weights."""
    folder.mkdir()
    torch.manual_seed(0)
    network = backbone(name).eval()
    config = {"input_size": [3, size, size], "mean": MEAN, "std": STD}
    own = {"modalities": ["derm"], "border": 0, "side": None, "fit": "keep", "cut": 0, "format": "timm"}
    about = {"architecture": name, "num_features": network.num_features, "pretrained_cfg": config, "dermsearch": own}
    to_timm(network, folder, about)
    (folder / CONFIG).write_text(json.dumps(about))
    return about


def linked(source: Path, count: int, folder: Path) -> int:
    """Links to pictures of a folder; returns how many."""
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    folder.mkdir(parents=True)
    for i in np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)):
        (folder / paths[i].name).symlink_to(paths[i].absolute())
    return len(list(folder.iterdir()))


def by_timm(folder: Path, size: int, network: torch.nn.Module | None, bf16: bool = False) -> None:
    """Features by timm's loader, or the loader alone."""
    loader = create_loader(
        ImageDataset(str(folder.parent)),
        input_size=(3, size, size),
        batch_size=BATCH,
        is_training=False,
        use_prefetcher=False,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        crop_pct=1.0,
        crop_mode="squash",
        num_workers=CORES,
        device=torch.device("cpu"),
    )
    cast = autocast(torch.device("cpu"), resolve("auto", False) if bf16 else "fp32")
    kept = []
    with torch.inference_mode():
        for images, _ in loader:
            if network is not None:
                images = images.to(memory_format=torch.channels_last) if bf16 else images
                with cast():
                    kept.append(network(images).float())


def spent() -> float:
    """Seconds of cores until now, of this process and of workers that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def main() -> None:
    """Take turns, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(CORES)
    quiet = Console(quiet=True)
    with tempfile.TemporaryDirectory() as made:
        here = Path(made)
        about = exported(here / "model", asked.encoder, asked.size)
        count, few = linked(asked.folder, asked.images, here / "all" / "x"), here / "few" / "x"
        linked(asked.folder, 2 * BATCH, few)
        network = timm.create_model(asked.encoder, num_classes=0, checkpoint_path=here / "model" / "model.safetensors")
        plain = network.eval()
        other = backbone(asked.encoder).eval().to(memory_format=torch.channels_last)

        def decode(folder: Path) -> None:
            names, read = found([str(folder)], about)
            for _ in batches(read, names, BATCH, CORES):
                pass

        sides: dict[str, Callable[[Path], Any]] = {
            "embed": lambda f: embed(here / "model", [str(f)], here / "out.parquet", BATCH, CORES, quiet),
            "timm": lambda f: by_timm(f, asked.size, plain),
            "timm 16": lambda f: by_timm(f, asked.size, other, bf16=True),
            "loader": lambda f: by_timm(f, asked.size, None),
            "decode": decode,
        }
        for side in sides.values():
            side(few)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        costs: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(asked.rounds):
            for name, side in sides.items():
                began, before = time.perf_counter(), spent()
                side(here / "all" / "x")
                rates[name].append(count / (time.perf_counter() - began))
                costs[name].append(1000 * (spent() - before) / count)
        print(f"{count} pictures of {asked.folder.name}, {asked.encoder} at {asked.size} px, {CORES} cores")
        for name, each in rates.items():
            told = ", ".join(f"{rate:,.0f}" for rate in each)
            times, cost = median(rates["embed"]) / median(each), median(costs[name])
            print(
                f"{name:8} {median(each):6,.0f} pictures a second ({told}), embed is {times:.2f} times that;", end=" "
            )
            print(f"{cost:.2f} ms of a core each, {cost / median(costs['embed']):.2f} times embed's")


if __name__ == "__main__":
    main()
