"""Making and reading a case store: against a plain Pillow loop, at random order, and with a million rows.

    python benchmarks/case_store.py prepare PATH/ham10000 [--side 64 128] [--workers N]
    python benchmarks/case_store.py read STORE
    python benchmarks/case_store.py million [--rows N]

`prepare` runs `dermsearch data prepare ham10000` with so many processes, timed as it says itself, and in the same run
what one would write by hand: Image.open, convert, resize, np.asarray, nothing checked, nothing kept. One loop resizes
as Pillow does by itself (bicubic), one with this package's bilinear filter. Once for images alone, once with masks.
`read` draws batches of random cases from a store and tells images per second and this process's own memory.
`million` writes a store of so many 8 x 8 images in streaming, and opens it in a new process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from dermsearch.data.case import Case
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.splits import Split

MEMORY = 1_500_000_000  # bytes: a store of 128 px, and what the processes take
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def by_hand(paths: list[tuple[str, str]], side: int, how: Image.Resampling, masks: bool) -> float:
    """A plain loop; returns cases per second."""
    began = time.perf_counter()
    for image, mask in paths:
        opened = Image.open(image)
        size = (round(opened.width * side / min(opened.size)), round(opened.height * side / min(opened.size)))
        np.asarray(opened.convert("RGB").resize(size, how))
        if masks:
            np.asarray(Image.open(mask).resize(size, Image.Resampling.NEAREST))
    return len(paths) / (time.perf_counter() - began)


def by_command(release: Path, side: int, workers: int) -> float:
    """Cases per second of a new store, from the seconds that the command tells."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dermsearch", "data", "prepare", "ham10000", str(release)]
        command += ["-o", f"{folder}/store", "--side", str(side), "--workers", str(workers)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    told = re.search(r"([\d,]+) cases in ([\d.]+) s", said)
    assert told, said
    return float(told[1].replace(",", "")) / float(told[2])


def warm(paths: list[tuple[str, str]]) -> None:
    """The files and the command's own code into the page cache, and memory for a store into the machine.

    Virtual machines give back to their host what is not used, within seconds: each page of 4 KB then costs some 8
    microseconds when it is next touched, and of the two only the command keeps anything.
    """
    np.ones(MEMORY, np.uint8)
    for path in chain.from_iterable(paths):
        Path(path).read_bytes()
    subprocess.run(
        [sys.executable, "-c", "import dermsearch.cli.main, dermsearch.data.prepare.prepare, pandas"], check=True
    )


def prepare(release: Path, sides: list[int], workers: int, rounds: int) -> None:
    """Rates of the command and of the loop, in turns."""
    ids = [row["image_id"] for row in csv.DictReader((release / "HAM10000_metadata.csv").open())]
    paths = [(str(release / f"images/{i}.jpg"), str(release / f"masks/{i}_segmentation.png")) for i in ids]
    print(f"{len(paths)} cases; {workers} workers; {rounds} rounds: medians of cases per second, and of their shares")
    of = f"of {workers} x loop"
    print(f"{'side':>5}{'masks':>7}{'dermsearch':>12}{'loop':>8}{'filter':>10}{of:>14}{'from':>8}{'to':>7}")
    with tempfile.TemporaryDirectory() as bare:
        for name in ("images", "HAM10000_metadata.csv"):
            os.symlink(release.absolute() / name, f"{bare}/{name}")
        for side in sides:
            for masks, folder in ((False, Path(bare)), (True, release)):
                ours: list[float] = []
                loops: dict[str, list[float]] = {name: [] for name in FILTERS}
                for _ in range(rounds):
                    warm(paths)
                    ours.append(by_command(folder, side, workers))
                    for name, how in FILTERS.items():
                        warm(paths[:4000])
                        loops[name].append(by_hand(paths[:4000], side, how, masks))
                for name, values in loops.items():
                    shares = np.array(ours) / (workers * np.array(values))  # of one round: machines have moods
                    row = f"{side:>5}{'yes' if masks else 'no':>7}{np.median(ours):>12,.0f}{np.median(values):>8,.0f}"
                    print(row + f"{name:>10}{np.median(shares):>14.2f}{shares.min():>8.2f}{shares.max():>7.2f}")


def read(folder: Path, seconds: float = 5.0, batch: int = 256) -> None:
    """Random batches of every modality's images."""
    store = CaseStore(folder)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(store))
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or done < len(store):
        rows = order[np.arange(done, done + batch) % len(store)]
        store.pictures(store.modalities[0], rows)
        done += batch
    rate = done / (time.perf_counter() - began)
    print(f"{folder}: {rate:,.0f} images/s at random, every image at least once; {own_memory()}")


def own_memory() -> str:
    """This process's memory, with and without the pages that it shares with the page cache."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(told[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile"))
    return f"{own:.0f} MB of its own, {mapped:.0f} MB mapped files"


def tiny(rows: int) -> Iterator[Case]:
    """Cases of 8 x 8 noise."""
    rng = np.random.default_rng(0)
    for i in range(rows):
        image = rng.integers(0, 256, (8, 8, 3), np.uint8)
        labels = {"diagnosis": i % 3}
        yield Case(f"C{i:07d}", f"L{i // 2:07d}", f"P{i // 3:07d}", {"derm": image}, labels, {"age": float(i % 90)})


def million(rows: int) -> None:
    """Write, then open in a process of its own."""
    folder = Path(tempfile.mkdtemp())
    try:
        began = time.perf_counter()
        store = write_store(folder / "store", tiny(rows), Split("patient"), {"diagnosis": ("a", "b", "c")}, {})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{len(store):,} rows written in {time.perf_counter() - began:.0f} s, peak memory {peak:,.0f} MB")
        code = (
            "import sys, time, json, numpy as np\n"
            "from dermsearch.data.store.case_store import CaseStore\n"
            "from benchmarks.case_store import own_memory\n"
            "t = time.perf_counter(); store = CaseStore(sys.argv[1]); opened = time.perf_counter() - t\n"
            "train = store.split('train'); split = time.perf_counter() - t\n"
            "store.pictures('derm', np.random.default_rng(0).choice(train, 256)); first = time.perf_counter() - t\n"
            "print(json.dumps([opened, split, first, own_memory()]))"
        )
        out = subprocess.run(
            [sys.executable, "-c", code, str(folder / "store")], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        opened, split, first, memory = json.loads(out.stdout)
        print(f"opened in {opened:.3f} s, training rows after {split:.3f} s, first 256 images after {first:.3f} s")
        print(f"the process that opened it: {memory}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare")
    one.add_argument("release", type=Path)
    one.add_argument("--side", type=int, nargs="+", default=[64, 128])
    one.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    one.add_argument("--rounds", type=int, default=5)
    commands.add_parser("read").add_argument("store", type=Path, nargs="+")
    commands.add_parser("million").add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    if given.command == "prepare":
        prepare(given.release, given.side, given.workers, given.rounds)
    elif given.command == "read":
        context = get_context("spawn")  # a process for each, so that memory is that store's alone
        for store in given.store:
            process = context.Process(target=read, args=(store,))
            process.start()
            process.join()
    else:
        million(given.rows)


if __name__ == "__main__":
    main()
