"""What grey pictures take in one channel and in three equal ones, on this machine, in one run.

    python benchmarks/grey.py [--sides 64 128 256] [--rounds 20]

A store of drawn radiographs, what a pool of it takes where it lies on a device, and the time of a batch of views on one
thread: SimCLR's, and whole pictures. One channel and three take turns, and the medians of processor time are compared.
Both give the same bits, or it stops.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.domain import CHEST
from dermsearch.data.drawn.chest import hospital_a
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.pool import HOST, Look, pictures
from dermsearch.data.store.splits import Split
from dermsearch.data.views.augment import View, plain, render
from dermsearch.data.views.pictures import Pictures
from dermsearch.numbers import uniforms

CASES, BATCH = 40, 1 << 19  # pictures of a store, pixels of a batch


def store_of(folder: Path, side: int, grey: tuple[str, ...]) -> CaseStore:
    """Drawn radiographs."""
    settings = {"source": "synthetic", "domain": "chest"}
    drawn = hospital_a(CASES, side, 0)
    return write_store(folder, drawn, Split(), CHEST.labels, settings, CHEST.columns, grey=grey)


def makers(size: int) -> dict[str, Callable[[Pictures, int], Tensor]]:
    """What is made of pictures in an epoch."""
    view = View(size, (0.08, 1.0), (3 / 4, 4 / 3), 0.5, 0.0, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, 0.5)

    def simclr(given: Pictures, epoch: int) -> Tensor:
        return render(view, given, uniforms(0, epoch, np.arange(len(given)), "views", View.numbers))

    return {"simclr": simclr, "whole": lambda given, epoch: plain(given, size)}


def race(both: list[Pictures], make: Callable[[Pictures, int], Tensor], rounds: int) -> list[float]:
    """Median milliseconds of each."""
    spent: list[list[float]] = [[] for _ in both]
    for epoch in range(rounds):
        seen = []
        for given, times in zip(both, spent, strict=True):
            began = time.process_time()
            seen.append(make(given, epoch))
            times.append(1e3 * (time.process_time() - began))
        if not torch.equal(*seen):
            raise SystemExit("views of one channel and of three differ")
    return [median(times) for times in spent]


def main() -> None:
    """Print a line per side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.empty(31 << 20, dtype=torch.uint8)  # as training does: glibc then keeps what is freed
    for side in given.sides:
        with tempfile.TemporaryDirectory() as where:
            stores = [store_of(Path(where, name), side, grey) for name, grey in (("one", CHEST.grey), ("three", ()))]
            assert stores[0].fingerprint == stores[1].fingerprint
            rows = np.arange(max(1, BATCH // side**2)) % CASES
            both = [pictures(store, "xray", rows, Look(side), HOST) for store in stores]
            shards = [sum(path.stat().st_size for path in store.folder.glob("images-*")) for store in stores]
            pool = [each.pixels.nbytes for each in both]
        print(f"{side} px: shards with masks {shards[0]:,} of {shards[1]:,} bytes, pool {pool[0]:,} of {pool[1]:,}")
        for name, make in makers(side * 7 // 8 if side > 128 else side).items():
            one, three = race(both, make, given.rounds)
            print(f"    {name:<8}{len(rows):>4} views in {one:.1f} ms of {three:.1f}: {three / one:.2f} times as fast")


if __name__ == "__main__":
    main()
