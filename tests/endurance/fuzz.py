"""What is read from outside, nearly right: it is refused in a sentence or comes to a result, and in good time.

A `Target` makes one mutant from a number and reads it as the commands do; what it raises is a finding.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import yaml
from data.damage import Copy, healthy
from endurance.mutants import altered, json_of, mutated, odd, spoilt
from results.conftest import fabricate

from dermsearch.data.inspect.check import check
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import INDEX, MANIFEST, to_bytes
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.explain.evidence import gather
from dermsearch.results.explain.explain import explain
from dermsearch.results.pictures.figures import figures
from dermsearch.storage.files import checksum, of_itself
from dermsearch.storage.leases import Claims, claim_of
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.study.load import load_study
from dermsearch.upkeep.upkeep import unneeded, verify

LONGEST = 10.0  # seconds of a processor for the largest of them, to be made and to be read
STUDY = Path(__file__).parents[1] / "study" / "study.yaml"
KEY, RUN = "a" * 32, "b" * 32
ROW = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5, "ci_low": 0.4, "n": 3}
Target = Callable[[random.Random], object]


def studies(folder: Path) -> Target:
    """Study files."""
    base, text = yaml.safe_load(STUDY.read_text()), STUDY.read_bytes()
    path = folder / "study.yaml"

    def read(draw: random.Random) -> object:
        if draw.random() < 0.3:
            path.write_bytes(spoilt(text, draw))
        else:
            dumped = yaml.dump(plain(mutated(base, draw)), sort_keys=False, allow_unicode=draw.random() < 0.5)
            path.write_text(dumped, errors="surrogatepass")
        return load_study(str(path), quick=draw.random() < 0.1)

    return read


def plain(content: Any) -> Any:
    """Of types that YAML has, and no more digits than Python prints."""
    if isinstance(content, dict):
        return {str(k): plain(v) for k, v in content.items()}
    if isinstance(content, list):
        return [plain(v) for v in content] if len(content) != 1 else content
    return float(content % 10**300) if isinstance(content, int) and abs(content) > 10**4000 else content


def overrides(folder: Path) -> Target:
    """What stands behind the study on the command line."""
    base = yaml.safe_load(STUDY.read_text())
    names = [".".join(map(str, path)) for path in paths(base)]

    def read(draw: random.Random) -> object:
        given = []
        for _ in range(draw.randrange(1, 4)):
            name = draw.choice(names)
            if draw.random() < 0.3:
                name = spoilt(name.encode(), draw).decode(errors="surrogateescape")
            value = odd(draw)
            text = value if isinstance(value, str) else json.dumps(value)[:100_000] if small(value) else "9" * 20_000
            given.append(name + draw.choice(["=", "=", "=", "==", "", " = "]) + text)
        return load_study(str(STUDY), given)

    return read


def small(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) < 10**4000


def paths(at: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every field of a study."""
    inner = [p for k, v in at.items() for p in paths(v, (*before, k))] if isinstance(at, dict) else []
    return [*([before] if before else []), *inner]


def leases(folder: Path) -> Target:
    """Claims of other runs, and their signs of life."""
    store = StageStore(str(folder / "store"))
    first, heir = f"claims/{KEY}.json", f"claims/{KEY}.1-{RUN}.json"
    beat = {"beat": 3, "home": "there", "pid": 7, "born": "1", "host": "node"}
    files = {first: json.loads(claim_of(RUN, first)), heir: json.loads(claim_of("c" * 32, heir))}
    files |= {f"claims/runs/{RUN}.json": beat, f"claims/runs/{'c' * 32}.json": beat}

    def read(draw: random.Random) -> object:
        shutil.rmtree(folder / "store" / "claims", ignore_errors=True)
        for name, content in files.items():
            store.write(name, mutant(content, draw) if draw.random() < 0.6 else json_of(content))
        now = [0.0]
        with Claims(store, clock=lambda: now[0]) as claims:
            for _ in range(40):  # of those who may live, none is waited for any longer
                now[0] += 5
                if claims.take(KEY):
                    break
                claims.freed(), claims.waiting()
            else:
                raise AssertionError("waits for ever")
        verify(store), unneeded(store, None, 1, 4e9)
        assert not list(folder.glob("[!s]*")), "something is outside the store"
        return True

    return read


def mutant(content: Any, draw: random.Random) -> bytes:
    """A file of JSON that is odd, whose checksum is right more often than not."""
    if draw.random() < 0.2:
        return spoilt(json_of(content), draw)
    odder = mutated({k: v for k, v in content.items() if k != "checksum"}, draw)
    if isinstance(odder, dict) and draw.random() < 0.8:
        told = json.loads(json_of(odder))
        return json.dumps({**told, "checksum": of_itself(told)}).encode()
    return json_of(odder)


def manifests(folder: Path) -> Target:
    """What says what a stage, a judgement, a segment and a state are."""
    whole = StageStore(str(folder / "whole"))
    parts = {ENCODERS: Part({}, {"w": torch.arange(3.0)})}
    whole.commit(KEY, parts, [{"epoch": 1, "loss": 0.5}], {"task": "odc", "parent": "", "seed": 0, "study": "s"})
    whole.commit_segment(KEY, {"stage": KEY, "until": 1}, parts)
    whole.write_weights(KEY, "resnet18", parts)
    whole.write_judgement(KEY, {"protocol": "knn", "rows": [ROW], "confusions": [], "seconds": 1.0}, KEY)
    whole.write_progress(KEY, [{"epoch": 1}])
    files = {name: whole.read(name) for name in whole.names() if not name.endswith("store.json")}
    state = {"learner": {}, "optimizer": {}, "history": '[{"epoch": 1}]', "name": f"partial/{KEY}/state.pt"}

    def read(draw: random.Random) -> object:
        shutil.rmtree(folder / "store", ignore_errors=True)
        store = StageStore(str(folder / "store"))
        victim = draw.choice(sorted(files))
        for name, data in files.items():
            json_like = name.endswith(".json") and isinstance(json.loads(data), dict)
            if name == victim:
                data = mutant(json.loads(data), draw) if json_like else resealed(name, data, store, draw)
            store.write(name, data)
        if draw.random() < 0.3:
            buffer = io.BytesIO()
            torch.save(mutated(state, draw), buffer)
            data = buffer.getvalue() if draw.random() < 0.7 else spoilt(buffer.getvalue(), draw)
            store.write(f"partial/{KEY}/state.pt", checksum(data).encode() + data)
        verify(store), unneeded(store, None, 1, 4e9)
        store.progress(KEY), PartialStage(store, KEY).load(), store.judgement(KEY, KEY), store.predictions(KEY)
        store.segment(KEY), store.weights(KEY, "resnet18")
        for look in (store.artifact, store.history):
            if store.manifest(KEY) is not None:
                look(KEY)
        return True

    return read


def resealed(name: str, data: bytes, store: StageStore, draw: random.Random) -> bytes:
    """A part or a history that is odd."""
    return json_of(mutated(json.loads(data), draw)) if name.endswith(".json") else spoilt(data, draw)


def case_stores(folder: Path) -> Target:
    """Case stores, with checksums that are right."""
    made = healthy(folder / "release")
    prepare(made.order(), on_cores(1), Watcher())
    whole = folder / "store"
    files = {p.name: p.read_bytes() for p in sorted(whole.iterdir()) if p.is_file()}
    about = json.loads(files[MANIFEST])

    def read(draw: random.Random) -> object:
        shutil.rmtree(folder / "mutant", ignore_errors=True)
        (folder / "mutant").mkdir()
        new, told = dict(files), about
        kind = draw.randrange(4)
        if kind == 0:
            told = mutated({k: v for k, v in about.items() if k != "checksum"}, draw)
        elif kind == 1:
            name = draw.choice([n for n in files if n.endswith(".arrow")])
            new[name] = to_bytes(altered(pa.ipc.open_file(files[name]).read_all(), draw)).to_pybytes()
        elif kind == 2:
            name = draw.choice([INDEX, MANIFEST, *[n for n in files if n.startswith("images-")]])
            new[name] = spoilt(files[name], draw)
        else:
            del new[draw.choice(sorted(files))]
        if kind < 3 and isinstance(told, dict) and draw.random() < 0.8:
            told = json.loads(json_of(told))
            if isinstance(told.get("files"), dict) and kind == 1:
                told["files"] = {n: f"{zlib.crc32(new[n]):08x}" if n in new else s for n, s in told["files"].items()}
            rest = {k: v for k, v in told.items() if k != "checksum"}
            told = {**rest, "checksum": f"{zlib.crc32(json.dumps(rest, sort_keys=True).encode()):08x}"}
        if kind in (0, 1):
            new[MANIFEST] = json_of(told)
        for name, data in new.items():
            (folder / "mutant" / name).write_bytes(data)
        (folder / "mutant" / MANIFEST).touch()
        check(folder / "mutant")
        store = CaseStore(folder / "mutant")
        rows = store.split("train")
        for modality in store.modalities:
            store.pictures(modality, rows)
        for label in store.classes:
            store.label(label)
        return store.groups(), store.grouped, len(store)

    return read


def data_folders(folder: Path) -> Target:
    """Releases with a table: odd cells, odd files."""
    made = healthy(folder / "release")
    sound = {p.name: p.read_bytes() for p in made.root.iterdir()}

    def read(draw: random.Random) -> object:
        for name in ("release", "store"):
            shutil.rmtree(folder / name, ignore_errors=True)
        root = folder / "release"
        root.mkdir()
        new = dict(sound)
        for _ in range(draw.choice([1, 1, 2, 3])):
            name = draw.choice(sorted(sound))
            new[name] = cells(sound[name], draw) if name.endswith(".csv") and draw.random() < 0.7 else None
            if new[name] is None:
                new[name] = draw.choice([spoilt(sound[name], draw), b"", sound[draw.choice(sorted(sound))]])
        for name, data in new.items():
            (root / name).write_bytes(data)
        victim = root / draw.choice(sorted(sound))
        how = draw.randrange(12)
        if how < 4:
            victim.unlink()
            if how == 0:
                victim.mkdir()
            elif how == 1:
                victim.symlink_to(victim)
            elif how == 2:
                os.mkfifo(victim)
        elif how == 4:
            (root / os.fsdecode(b"\xff.jpg")).write_bytes(b"?")
        order = Copy(root, made.rows).order()
        manifest = prepare(order, on_cores(1), Watcher())
        report = check(folder / "store")
        assert manifest["fingerprint"] and not any("damaged" in text for *_, text in report.found)
        return manifest

    return read


def cells(data: bytes, draw: random.Random) -> bytes:
    """A table with an odd cell, row or column."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = draw.randrange(len(rows))
    value = odd(draw)
    text = value if isinstance(value, str) else "9" * 400 if isinstance(value, int) else json.dumps(value)[:5000]
    rows[row][draw.randrange(len(rows[row]))] = text
    if draw.random() < 0.3:
        draw.choice([lambda: rows.pop(row), lambda: rows.append(rows[row]), lambda: rows[row].append(text)])()
    return "\n".join(map(",".join, rows)).encode(errors="surrogatepass")


def tables(folder: Path) -> Target:
    """A study's folder of results, as `leaderboard`, `explain` and now and then `figures` read it."""
    fabricate(folder / "results")
    files = {p.relative_to(folder / "results"): p.read_bytes() for p in (folder / "results").rglob("*") if p.is_file()}
    about = yaml.safe_load(files[Path("study.yaml")])

    def read(draw: random.Random) -> object:
        shutil.rmtree(folder / "mutant", ignore_errors=True)
        name = draw.choice(sorted(files))
        for file, data in files.items():
            if file == name and name.suffix == ".yaml" and draw.random() < 0.7:
                data = yaml.dump(plain(mutated(about, draw)), sort_keys=False).encode(errors="surrogatepass")
            elif file == name:
                data = spoilt(data, draw)
            (folder / "mutant" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "mutant" / file).write_bytes(data)
        explain(gather(str(folder / "mutant")))
        if draw.random() < 0.02:
            figures(folder / "mutant")
        return leaderboard(load(folder / "mutant"))

    return read


TARGETS: dict[str, Callable[[Path], Target]] = {
    "studies": studies, "overrides": overrides, "leases": leases, "manifests": manifests,
    "case stores": case_stores, "data folders": data_folders, "tables": tables,
}  # fmt: skip


def tried(name: str, folder: Path, numbers: Sequence[int]) -> tuple[int, int, list[str]]:
    """Read as many mutants; how many were refused, how many read, and what should not have been."""
    folder.mkdir(parents=True, exist_ok=True)
    read, refused, wrong = TARGETS[name](folder), 0, list[str]()
    for number in numbers:
        began, told = time.process_time(), ""
        try:
            read(random.Random(f"{name} {number}"))
        except UserError as error:
            refused += 1
            text = str(error)
            if "\n" in text or not text.isprintable() or len(text) > 2000:
                told = f"no sentence: {text[:300]!r}"
        except Exception as error:
            told = f"{type(error).__name__}: {str(error)[:300]} at {where(error)}"
        seconds = time.process_time() - began
        if seconds > LONGEST:
            told = f"{seconds:.1f} s {told}"
        if told:
            wrong.append(f"{name} {number}: {told}")
    return refused, len(numbers) - refused, wrong


def where(error: BaseException) -> str:
    """The last place in the package that it came through."""
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/dermsearch/" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the test"
