"""SLICE-3D's size: 400,000 tiles of 1,042 patients with tables, made up; prepared, ordered by patient, searched.

    python benchmarks/patients.py prepare [--rows N] [--folder F]     writes a release of noise, then prepares it
    python benchmarks/patients.py order STORE                         an epoch's order of 32 patients with 16 tiles each
    python benchmarks/patients.py search [--keys N] [--queries N]     the ten nearest keys of 384 numbers

`prepare` runs `dermsearch data prepare slice3d --side 32 --workers 1` on an HDF5 file in a process of its own. Each
tells seconds and the peak memory of the process that did it, mapped files included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import simplejpeg
from pyarrow.csv import write_csv

from dermsearch.data.sources import slice3d

PATIENTS = 1042


def release(folder: Path, rows: int) -> Path:
    """As Kaggle has it: a table, and an HDF5 file of tiles."""
    import h5py

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    who, number = (PATIENTS * rng.random(rows) ** 1.5).astype(int), np.arange(rows)
    names = np.char.add("ISIC_", np.char.zfill(number.astype(str), 7))
    told = {
        "isic_id": pa.array(names),
        "target": pa.array((rng.random(rows) < 0.001).astype(int)),
        "patient_id": pa.array(np.char.add("IP_", np.char.zfill(who.astype(str), 7))),
        "age_approx": pa.array(5 * (who % 17)),
        "sex": pa.array(np.array(["male", "female"])[who % 2]),
        "anatom_site_general": pa.array(np.array(["posterior torso", "lower extremity", "head/neck"])[number % 3]),
        **{name: pa.array(rng.normal(20, 5, rows)) for name in slice3d.NUMBERS},
        **{name: pa.array(["Left Leg"] * rows) for name in slice3d.WORDS},
        **{name: pa.array(["word"] * rows) for name in slice3d.DENIED},
    }
    told["lesion_id"] = pa.array([""] * rows)
    write_csv(pa.table(told), folder / slice3d.KAGGLE)
    with h5py.File(folder / slice3d.HDF5, "w", libver="latest") as tiles:
        for name in names.tolist():
            noise = rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            tiles[name] = np.void(simplejpeg.encode_jpeg(noise, quality=90))
    return folder


def peak(who: int = resource.RUSAGE_SELF) -> str:
    """The most memory that this process, or one that it waited for, has held."""
    return f"{resource.getrusage(who).ru_maxrss / 1024:,.0f} MB at most"


def prepare(rows: int, folder: Path) -> None:
    """Write a release, prepare it."""
    began = time.perf_counter()
    made = folder / f"release-{rows}"
    if not made.exists():
        release(made, rows)
        print(f"{rows:,} rows written in {time.perf_counter() - began:.0f} s", flush=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "dermsearch", "data", "prepare", "slice3d", str(made)]
    command += ["-o", str(folder / f"store-{rows}"), "--side", "32", "--workers", "1"]
    subprocess.run(command, check=True)
    print(f"prepared in {time.perf_counter() - began:.0f} s, {peak(resource.RUSAGE_CHILDREN)}")


def order(where: Path) -> None:
    """An epoch of patients."""
    from dermsearch.data.store.case_store import CaseStore
    from dermsearch.pretext.patients import patient_order

    began = time.perf_counter()
    store = CaseStore(where)
    rows = store.split("train")
    print(f"opened in {time.perf_counter() - began:.2f} s: {len(store):,} rows, {len(rows):,} of them for training")
    began = time.perf_counter()
    who, lesions = store.patients()[rows], store.lesions()[rows]
    units = patient_order(0, 1, who, lesions, len(rows) // 512 * 512, 32 * 16, 16)
    print(f"an epoch of {len(units):,} in the order of patients: {time.perf_counter() - began:.2f} s, {peak()}")
    began = time.perf_counter()
    table = store.table(list(store.columns), rows)
    print(f"tables {table.values.shape} as inputs: {time.perf_counter() - began:.2f} s, {peak()}")


def search(keys: int, queries: int) -> None:
    """The nearest of many."""
    from dermsearch.evaluate.nearest import nearest

    rng = np.random.default_rng(0)
    gallery, asked = (rng.normal(size=(n, 384)).astype(np.float32) for n in (keys, queries))
    owners, whose = rng.integers(0, PATIENTS, keys), rng.integers(0, PATIENTS, queries)
    before, began = peak(), time.perf_counter()
    nearest(asked, gallery, 10, whose, owners)
    print(f"{queries:,} queries among {keys:,} keys: {time.perf_counter() - began:.1f} s; {peak()}, before it {before}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare")
    one.add_argument("--rows", type=int, default=400_000)
    one.add_argument("--folder", type=Path)
    commands.add_parser("order").add_argument("store", type=Path)
    other = commands.add_parser("search")
    other.add_argument("--keys", type=int, default=100_000)
    other.add_argument("--queries", type=int, default=5_000)
    given = parser.parse_args()
    if given.command == "prepare":
        with tempfile.TemporaryDirectory() as folder:
            prepare(given.rows, given.folder or Path(folder))
    elif given.command == "order":
        order(given.store)
    else:
        search(given.keys, given.queries)


if __name__ == "__main__":
    main()
