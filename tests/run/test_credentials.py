"""Keys in the address of a store: a run reads and writes with them, and nothing that it or Ray writes has them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from conftest_search import make_study
from rich.console import Console
from s3 import CREDENTIALS, serving

from dermsearch.engines.ray_local import Place
from dermsearch.errors import UserError
from dermsearch.run.credentials import NAMES, TOKEN, keys_aside
from dermsearch.run.run import run_study
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study

SECRET = "c0nfi/dential"
TINY = {
    "data": {"cases": 40, "size": 32},
    "encoder": {"name": "test_resnet"},
    "curriculum": {"tasks": {"rotation": {}}, "length": [1, 1]},
    "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
    "downstream": {"knn": {"k": 3}},
    "objective": {"protocol": "knn"},
}


def with_keys(engine: str, *uris: str) -> Study:
    store, *more = uris
    weights = {"encoder": {"name": "test_resnet", "weights": more[0]}} if more else {}
    return make_study(**{**TINY, **weights, "compute": {"engine": engine, "workers": 1, "store": store}})


def test_keys_are_in_the_environment_as_long_as_the_run_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[0], "another")
    monkeypatch.delenv(NAMES[1], raising=False)
    monkeypatch.setenv(TOKEN, "of another")
    study = with_keys("ray", f"s3://AKIA:{SECRET.replace('/', '%2F')}@bucket/store?scheme=http")
    with keys_aside(study, None) as seen:
        assert seen.compute.store == "s3://bucket/store?scheme=http"
        assert [os.environ[name] for name in NAMES] == ["AKIA", SECRET] and TOKEN not in os.environ
        assert seen.model_copy(update={"compute": study.compute}) == study
    assert os.environ[NAMES[0]] == "another" and NAMES[1] not in os.environ and os.environ[TOKEN] == "of another"


@pytest.mark.parametrize("store", ["s3://bucket/store", "some/folder", "s3://bucket/a@b"])
def test_an_address_without_keys_is_left_alone(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[1], "own")
    study = with_keys("ray", store)
    with keys_aside(study, "auto") as seen:
        assert seen is study and os.environ[NAMES[1]] == "own"


def test_keys_that_cannot_travel_are_refused() -> None:
    with pytest.raises(UserError, match=r"^--address: .*; export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there"):
        keys_aside(with_keys("ray", "s3://AKIA:one@bucket/store"), "auto").__enter__()
    with pytest.raises(UserError, match="hold different keys"):
        keys_aside(with_keys("ray", "s3://AKIA:one@bucket/store", "s3://AKIA:two@other/w"), None).__enter__()


@pytest.mark.slow
def test_ray_writes_them_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked for in Tune's notes, which go when a run ends, in Ray's session and in all that the run leaves."""
    notes = {}
    forget, leave = StageStore.forget, Place.leave

    def read_and_forget(store: StageStore, name: str) -> None:
        notes.update({path: store.read(path) for path in store.names(name)})
        forget(store, name)

    def read_and_leave(place: Place) -> None:
        notes.update({str(path): path.read_bytes() for path in place.sessions.rglob("*") if path.is_file()})
        leave(place)

    monkeypatch.setattr(StageStore, "forget", read_and_forget)
    monkeypatch.setattr(Place, "leave", read_and_leave)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("dermsearch.run.run.cache_folder", lambda store: tmp_path / "cases")
    with serving(tmp_path / "s3.txt") as server:
        for name in NAMES:
            monkeypatch.delenv(name)
        uri = server.uri("bucket/store").replace("s3://", f"s3://{CREDENTIALS[NAMES[0]]}:{SECRET}@")
        outcome = run_study(with_keys("ray", uri), tmp_path / "out", None, Console(file=io.StringIO()))
    assert outcome.summary["stages"]["trained"] == 1 and not outcome.failed
    for told in ("/trials/", "/logs/"):
        assert [name for name in notes if told in name], told
    assert not [name for name, held in notes.items() if b"dential" in held]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not [path for path in written if b"dential" in path.read_bytes()]
