"""Every engine with every kind of stage store: a folder, and S3 by a URI with options behind its path."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from conftest_search import make_study
from rich.console import Console
from s3 import Server, serving

from dermsearch.engines.ray_cluster import Cluster
from dermsearch.run.run import run_study
from dermsearch.storage.files import within
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Compute


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An S3 server, and a Ray whose processes have its credentials."""
    with (
        pytest.MonkeyPatch.context() as environment,
        serving(tmp_path_factory.mktemp("s3") / "log.txt") as server,
        Cluster(Compute(), None) as cluster,
    ):
        cases = tmp_path_factory.mktemp("cases")
        environment.setattr("dermsearch.run.run.cache_folder", lambda store: cases)  # a remote store's are at home
        cluster.open()
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
@pytest.mark.parametrize(
    ("engine", "workers"), [("inline", 1), ("ray", 1), pytest.param("ray", 2, marks=pytest.mark.long)]
)
def test_every_engine_works_with_every_store(
    engine: str, workers: int, kind: str, server: Server, tmp_path: Path
) -> None:
    where = str(tmp_path / "store") if kind == "folder" else server.uri(f"bucket/{engine}{workers}/store")
    study = make_study(
        data={"cases": 40, "size": 32},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        downstream={"knn": {"k": 3}},
        objective={"protocol": "knn"},
        compute={"engine": engine, "workers": workers, "store": where},
    )
    outcome = run_study(study, tmp_path / "out", None, Console(file=io.StringIO()))
    assert outcome.summary["stages"]["trained"] == 1 and not outcome.failed
    store = StageStore(where, create=False)
    assert len(store.keys()) == 2 and all(map(store.manifest, store.keys()))
    left = store.fs.get_file_info(pafs.FileSelector(f"{store.root}/tune", allow_not_found=True))
    assert not left, "Ray's notes are gone"


@pytest.mark.parametrize(
    ("where", "inside"),
    [
        ("/a/store", "/a/store/tune/x"),
        ("/a/what?/store", "/a/what?/store/tune/x"),
        ("s3://bucket/store", "s3://bucket/store/tune/x"),
        ("s3://bucket/store/?region=eu&scheme=http", "s3://bucket/store/tune/x?region=eu&scheme=http"),
    ],
)
def test_a_folder_within_a_uri_stands_before_its_options(where: str, inside: str) -> None:
    assert within(where, "tune/x") == inside
