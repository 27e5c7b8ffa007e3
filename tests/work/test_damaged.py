"""What lies in the store is damaged, foreign or out of reach while a study runs on it: it is made again, and said."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
import torch
from conftest_search import make_study
from rich.console import Console
from typer.testing import CliRunner

from dermsearch import __version__
from dermsearch.cli.main import app
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, PREDICTOR, Part
from dermsearch.run.credentials import NAMES
from dermsearch.run.plan import lines, make_plan
from dermsearch.run.run import Outcome, run_study
from dermsearch.storage import leases
from dermsearch.storage.files import MANIFEST, StoreLost, checksum, sealed
from dermsearch.storage.stages import PREDICTIONS, PartialStage, StageStore, columns, packed
from dermsearch.study.config import Study
from dermsearch.training import under_way
from dermsearch.upkeep.upkeep import verify

pytestmark = pytest.mark.slow  # whole runs


def study_in(folder: Path, **changes: Any) -> Study:
    raw: dict[str, Any] = {
        "curriculum": {"tasks": {"relative_location": {}}, "length": [1, 1]}, "encoder": {"name": "test_resnet"},
        "downstream": {"knn": {"k": 3}}, "objective": {"protocol": "knn"}, "data": {"cases": 40, "size": 32},
        "compute": {"engine": "inline", "save_every": 0, "store": str(folder / "store")},
    }  # fmt: skip
    return make_study(**{**raw, **changes})


def run(study: Study, out: Path) -> tuple[Outcome, str]:
    """What a run came to, and what it said."""
    said = io.StringIO()
    return run_study(study, out, None, Console(file=said, width=1000)), said.getvalue()


def stages(store: StageStore) -> dict[str, str]:
    """Task -> key; the root has none."""
    return {manifest["task"]: key for key in sorted(store.keys()) if (manifest := store.manifest(key)) is not None}


def replace(store: StageStore, key: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Other encoders in a stage, with all of its checksums right."""
    about, history, parts = store.manifest(key), store.history(key), store.artifact(key)
    assert about is not None
    parts[ENCODERS] = Part(parts[ENCODERS].config, change(parts[ENCODERS].state))
    store.remove(f"stages/{key}")
    store.commit(key, parts, history, {n: v for n, v in about.items() if n not in ("files", "name", "checksum")})
    assert store.manifest(key) is not None


def first(state: dict[str, Any], tensor: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    name = min(n for n, w in state.items() if w.ndim > 1)  # tensors come in no order
    return {**state, name: tensor(state[name])}


WRONG: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "shape": lambda s: first(s, lambda w: w[:1]),
    "type": lambda s: first(s, lambda w: w.double()),
    "not finite": lambda s: first(s, lambda w: w * torch.nan),
    "missing": lambda s: dict(list(s.items())[1:]),
    "more": lambda s: {**s, "more": torch.ones(1)},
}


@pytest.mark.parametrize("wrong", [*WRONG, "no tensors"])
def test_encoders_that_cannot_be_loaded_are_trained_again_and_said(tmp_path: Path, wrong: str) -> None:
    study, store = study_in(tmp_path), StageStore(str(tmp_path / "store"))
    outcome, _ = run(study, tmp_path / "out")
    assert not outcome.failed
    key = stages(store)["relative_location"]
    before = store.artifact(key)[ENCODERS].state
    if wrong == "no tensors":
        about = json.loads(store.read(f"stages/{key}/{MANIFEST}"))
        files = {name: store.read(f"stages/{key}/{name}") for name in about["files"]} | {"encoders.safetensors": b"?"}
        store.remove(f"stages/{key}")
        store.commit_files(f"stages/{key}", files, {n: v for n, v in about.items() if n != "checksum"})
    else:
        replace(store, key, WRONG[wrong])
    for score in store.names("scores"):
        store.remove(score)
    outcome, said = run(study, tmp_path / "out")
    assert not outcome.failed and outcome.summary["stages"]["trained"] == 1
    assert said.count(f"stages/{key} cannot be loaded: ") == 1 and "it was moved to damaged/" in said
    assert all(torch.equal(w, before[n]) for n, w in store.artifact(key)[ENCODERS].state.items())


def test_a_parent_that_cannot_be_loaded_stops_a_run_once(tmp_path: Path) -> None:
    study, store = study_in(tmp_path), StageStore(str(tmp_path / "store"))
    run(study, tmp_path / "out")
    replace(store, stages(store)["relative_location"], WRONG["not finite"])
    longer = study_in(
        tmp_path,
        curriculum={"tasks": {"relative_location": {}, "simclr": {}}, "length": [2, 2], "order": "listed"},
    )
    said = io.StringIO()
    with pytest.raises(StoreLost, match="; the same command makes it again and continues"):
        run_study(longer, tmp_path / "longer", None, Console(file=said, width=1000))
    assert said.getvalue().count("cannot be loaded: not all numbers are finite in ") == 1
    outcome, _ = run(longer, tmp_path / "longer")
    assert not outcome.failed and outcome.summary["stages"]["trained"] == 2


FITTED: dict[str, Any] = {
    "downstream": {"finetune": {"epochs": 1, "batch": 16}}, "objective": {"protocol": "finetune"},
}  # fmt: skip


@pytest.mark.parametrize("wrong", [*WRONG, "no tensors", "config"])
def test_a_predictor_that_fits_no_network_is_trained_again_and_said(tmp_path: Path, wrong: str) -> None:
    study, store = study_in(tmp_path, **FITTED), StageStore(str(tmp_path / "store"))
    outcome, _ = run(study, tmp_path / "out")
    assert not outcome.failed and not verify(store)
    key = stages(store)["finetune"]
    before, about = store.artifact(key)[PREDICTOR], store.told(f"stages/{key}")
    assert about is not None
    files = {name: store.read(f"stages/{key}/{name}") for name in about["files"]}
    if wrong == "config":
        about["parts"][PREDICTOR]["setting"] = {}
    else:
        state = {} if wrong == "no tensors" else WRONG[wrong](before.state)
        files["predictor.safetensors"] = packed(state) if state else b"?"
    store.remove(f"stages/{key}")
    store.commit_files(f"stages/{key}", files, {n: v for n, v in about.items() if n not in ("checksum", "files")})
    assert bool(verify(store)) == (wrong != "config"), "of another version, perhaps"
    for score in store.names("scores"):
        if (store.read_sealed(score) or {}).get("stage") == key:
            store.remove(score)
    outcome, said = run(study, tmp_path / "out")
    assert not outcome.failed and outcome.summary["fits"]["trained"] == 1
    assert said.count(f"stages/{key} cannot be loaded: ") == 1 and "it was moved to damaged/" in said
    assert all(torch.equal(w, before.state[n]) for n, w in store.artifact(key)[PREDICTOR].state.items())


def foreign_bytes(_: pa.Table) -> bytes:
    return b"no table"


FOREIGN: dict[str, Callable[[pa.Table], bytes]] = {
    "no table": foreign_bytes,
    "cut": lambda t: columns(t)[:-20],
    "other columns": lambda t: columns(t.rename_columns([f"{c}x" for c in t.column_names])),
    "other types": lambda t: columns(t.set_column(5, "probability", t["probability"].cast(pa.float64()))),
    "a word that is none": lambda t: columns(
        t.set_column(0, t.schema.field(0), pa.DictionaryArray.from_arrays(
            pa.array([7] * len(t), pa.int32()), pa.array(["a"]), safe=False)
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", FOREIGN)
def test_foreign_predictions_with_a_right_checksum_are_refused_and_made_again(tmp_path: Path, how: str) -> None:
    study, store = study_in(tmp_path, downstream={"knn": {"k": 3}}), StageStore(str(tmp_path / "store"))
    run(study, tmp_path / "out")
    names = [name for name in store.names("scores") if name.endswith(".json")]
    sound = {name: store.predictions(Path(name).stem) for name in names}
    for name in names:
        about, said = store.read_sealed(name), sound[name]
        assert about is not None and said is not None
        data = FOREIGN[how](said)
        store.write(name.replace(".json", ".arrow"), data)
        store.write(name, sealed({**{n: v for n, v in about.items() if n != "checksum"}, PREDICTIONS: checksum(data)}))
        assert store.judgement(Path(name).stem) is None and store.predictions(Path(name).stem) is None
    assert len(verify(store)) == len(names)
    outcome, _ = run(study, tmp_path / "out")
    assert not outcome.failed and outcome.summary["stages"]["trained"] == 0 and not verify(store)
    assert all(store.predictions(Path(name).stem).equals(said) for name, said in sound.items())


@pytest.mark.parametrize("rows", [[], [{}], None, [{"metric": "x", "value": float("nan")}]])
def test_a_judgement_that_is_none_is_made_again(tmp_path: Path, rows: Any) -> None:
    study, store = study_in(tmp_path), StageStore(str(tmp_path / "store"))
    run(study, tmp_path / "out")
    for name in [name for name in store.names("scores") if name.endswith(".json")]:
        about = store.read_sealed(name)
        assert about is not None
        store.write(name, sealed({**{n: v for n, v in about.items() if n != "checksum"}, "rows": rows}))
    outcome, _ = run(study, tmp_path / "again")
    assert not outcome.failed and outcome.summary["stages"]["trained"] == 0


class Killed(BaseException):
    """After the first epoch."""


def left_by_a_kill(study: Study, out: Path, monkeypatch: pytest.MonkeyPatch, epoch: int = 1) -> None:
    """Run until the state of that epoch is written."""
    with monkeypatch.context() as patch:
        save = PartialStage.save

        def die(self: PartialStage, state: dict[str, Any]) -> None:
            save(self, state)
            if len(json.loads(state["history"])) == epoch:
                raise Killed

        patch.setattr(PartialStage, "save", die)
        with pytest.raises(Killed):
            run(study, out)


def wide(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "learner": {n: torch.ones(7, 7) for n in state["learner"]}}


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "list": lambda s: [1],
    "no learner": lambda s: {n: v for n, v in s.items() if n != "learner"},
    "no optimizer": lambda s: {n: v for n, v in s.items() if n != "optimizer"},
    "no history": lambda s: {**s, "history": "?"},
    "other shapes": wide,
    "learner is a list": lambda s: {**s, "learner": [1]},
    "other groups": lambda s: {**s, "optimizer": {"state": {}, "param_groups": []}},
    "optimizer is text": lambda s: {**s, "optimizer": "x"},
}


@pytest.mark.parametrize("wrong, fit", [(wrong, False) for wrong in STATES] + [("list", True), ("other shapes", True)])
def test_a_state_that_cannot_be_gone_on_from_is_set_aside_and_said(
    tmp_path: Path, wrong: str, fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {}
    if fit:
        changes = {"downstream": {"finetune": {"epochs": 2, "batch": 16}}, "objective": {"protocol": "finetune"}}
    study, store = study_in(tmp_path, **changes), StageStore(str(tmp_path / "store"))
    left_by_a_kill(study, tmp_path / "out", monkeypatch)
    (name,) = [name for name in store.names("partial") if name.endswith("state.pt")]
    state = PartialStage(store, name.split("/")[1]).load()
    assert state is not None
    buffer = io.BytesIO()
    torch.save(STATES[wrong]({**state, "version": __version__, "name": name}), buffer)
    store.write(name, checksum(buffer.getvalue()).encode() + buffer.getvalue())
    outcome, said = run(study, tmp_path / "out")
    assert not outcome.failed, outcome.failed
    (line,) = [line for line in said.splitlines() if "begins anew" in line]
    assert line.startswith(name) and "it was moved to damaged/" in line
    undisturbed, _ = run(study_in(tmp_path / "other", **changes), tmp_path / "other" / "out")
    assert not undisturbed.failed
    other = StageStore(str(tmp_path / "other" / "store"))
    for key in sorted(store.keys()):
        for kind, part in store.artifact(key).items():
            assert all(torch.equal(w, part.state[n]) for n, w in other.artifact(key)[kind].state.items())


def fixed(monkeypatch: pytest.MonkeyPatch, below: Path) -> None:
    """What lies below a folder cannot be written to."""

    class Fixed(pafs.LocalFileSystem):
        def refuse(self, path: str, *args: Any, **more: Any) -> Any:
            if str(path).startswith(str(below)) and not os.path.isdir(path):
                raise OSError(errno.EROFS, "Read-only file system", path)

        def open_output_stream(self, path: str, *args: Any, **more: Any) -> Any:
            self.refuse(path)
            return super().open_output_stream(path, *args, **more)

        def create_dir(self, path: str, *args: Any, **more: Any) -> Any:
            self.refuse(path)
            return super().create_dir(path, *args, **more)

    monkeypatch.setattr(pafs, "LocalFileSystem", Fixed)


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


def test_a_read_only_store_with_all_in_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_in(tmp_path)
    run(study, tmp_path / "out")
    before = everything(tmp_path / "store")
    fixed(monkeypatch, tmp_path / "store")
    outcome, _ = run(study, tmp_path / "again")
    assert outcome.summary["stages"]["reused"] == 1 and not outcome.failed
    assert make_plan(study).cached == 1
    assert CliRunner().invoke(app, ["leaderboard", str(tmp_path / "again")]).exit_code == 0
    with pytest.raises(StoreLost, match=r"^compute\.store: .* cannot be written to: .*Read-only"):
        run(study_in(tmp_path, search={"seeds": [1]}), tmp_path / "more")
    assert everything(tmp_path / "store") == before


def test_a_plan_knows_what_is_trained_and_what_is_only_to_be_judged(tmp_path: Path) -> None:
    def said(**changes: Any) -> str:
        (line,) = [text for text in lines(make_plan(study_in(tmp_path, **changes))) if text.startswith("  in store")]
        return line.removeprefix("  in store   ")

    run(study_in(tmp_path), tmp_path / "out")
    assert said() == "1 of 1 stage trained, to be reused"
    assert said(downstream={"knn": {"k": 5}}).startswith("1 of 1 stage trained, to be reused; 1 to be judged; ")
    few = {"knn": {"k": 3}, "finetune": {"labelled": [2], "epochs": 1}}
    assert said(downstream=few).startswith("1 of 1 stage trained, to be reused; 1 to be judged; ")
    assert said(search={"seeds": [0, 1]}).startswith("1 of 2 stages trained, to be reused; ")


def test_a_plan_writes_nothing_to_a_store(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run(study, tmp_path / "out")
    for folder in (tmp_path / "store", tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        before = everything(folder), folder.stat().st_mtime_ns
        plan = make_plan(study_in(tmp_path, compute={"engine": "inline", "store": str(folder)}))
        assert plan.cached == (1 if folder.name == "store" else None)
        assert (everything(folder), folder.stat().st_mtime_ns) == before


SECRETS = ["AKIAKEY:c0nfidential@", "AKIAKEY:c0nfi/dential@"]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_of_a_store_is_written_or_said(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A store on a bucket, whose URI has its key in it."""
    (tmp_path / "bucket").mkdir()
    deep = tmp_path.name  # a process opens an address once
    bucket = pafs.SubTreeFileSystem(str(tmp_path / "bucket"), pafs.LocalFileSystem())
    opened = pafs.FileSystem.from_uri

    def from_uri(uri: str) -> Any:
        keys = ":".join(os.environ.get(name, "") for name in NAMES) + "@"  # where a run has moved them
        own = uri.startswith(f"s3://{secret}bucket/") or (uri.startswith("s3://bucket/") and keys == secret)
        return (bucket, deep) if own else opened(uri)

    monkeypatch.setattr("dermsearch.storage.files.pafs.FileSystem", type("Fake", (), {"from_uri": from_uri}))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    study = study_in(tmp_path, compute={"engine": "inline", "store": f"s3://{secret}bucket/{deep}"})
    import yaml

    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")))
    said = CliRunner().invoke(app, ["run", "mine.yaml", "--json", "--out", "out"])
    assert said.exit_code == 0, said.output
    assert f"s3://bucket/{deep}" in (tmp_path / "out" / "study.yaml").read_text()
    told = [said.output, *capfd.readouterr()]
    told += list(lines(make_plan(study)))
    files = [*(tmp_path / "out").rglob("*"), *(tmp_path / "home").rglob("*"), *(tmp_path / "bucket").rglob("*")]
    told += [*map(str, files), *(p.read_bytes().decode("latin-1") for p in files if p.is_file())]
    assert len(told) > 20 and not any("dential" in text or "AKIAKEY" in text for text in told)
    with pytest.raises(UserError) as error:
        StageStore(f"nonsense://{secret}bucket/x")
    assert "dential" not in str(error.value)


def test_a_run_says_whom_it_waits_for_and_what_was_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run has the first stage, and dies while this one waits."""
    monkeypatch.setattr(leases, "POLL", 0.05)
    monkeypatch.setattr(leases, "STALE", 0.5)
    monkeypatch.setattr("dermsearch.engines.inline.POLL", 0.05)
    study, store = study_in(tmp_path), StageStore(str(tmp_path / "store"))
    run(study, tmp_path / "out")
    other = leases.Claims(store)
    key = stages(store)["relative_location"]
    store.remove(f"stages/{key}")
    assert other.take(key)
    other._stop.set()  # it beats no more
    beat = json.loads(store.read(f"claims/runs/{other.run}.json")) | {"home": "elsewhere", "host": "node7"}
    assert other._thread is not None
    other._thread.join()
    store.write(f"claims/runs/{other.run}.json", json.dumps(beat).encode())
    outcome, said = run(study, tmp_path / "again")
    assert outcome.summary["stages"]["trained"] == 1
    assert said.count(f"Waiting for another run, process {os.getpid()} on node7, which is at stages of this one") == 1


def test_what_fits_nothing_is_told_apart_from_what_the_machine_does() -> None:
    for error, expected in (
        (RuntimeError("size mismatch"), under_way.Unfit),
        (KeyError("w"), under_way.Unfit),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (RuntimeError("[enforce fail] can't allocate memory"), RuntimeError),
        (RuntimeError("CUDA error: device-side assert"), RuntimeError),
    ):
        with pytest.raises(expected), under_way.fitting():
            raise error
