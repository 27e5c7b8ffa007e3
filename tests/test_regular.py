"""A named pipe where a file goes: whoever reads or writes there does not wait for somebody at its other end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from conftest_search import make_study
from results.conftest import fabricate
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.open import drop_damaged, open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import INDEX, MANIFEST, shard_file
from dermsearch.errors import UserError
from dermsearch.regular import bytes_of
from dermsearch.results.drawing import save
from dermsearch.results.report.page import put
from dermsearch.results.tables.file import read, write
from dermsearch.upkeep.used import used_by


@pytest.fixture(autouse=True)
def clock() -> Iterator[None]:
    """Who waits is woken, and fails."""

    def ring(*of: object) -> None:
        raise AssertionError("waits at a pipe")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="neither a file nor a folder"):
        bytes_of(pipe(tmp_path / "x"))


@pytest.mark.parametrize("file", ["study.yaml", "tables/trials.arrow", "tables/scores.arrow"])
@pytest.mark.parametrize("command", ["leaderboard", "explain", "report"])
def test_results_are_read_or_refused(command: str, file: str, tmp_path: Path) -> None:
    fabricate(tmp_path / "results")
    pipe(tmp_path / "results" / file)
    done = CliRunner().invoke(app, [command, str(tmp_path / "results")])
    assert done.exit_code == 0 or isinstance(done.exception, UserError), done.exception


@pytest.mark.parametrize("file", ["study.yaml", "tables/stages.arrow", "tables/scores.arrow", "tables/segments.arrow"])
def test_a_study_that_cannot_say_what_it_needs_stops_gc(file: str, tmp_path: Path) -> None:
    fabricate(tmp_path / "results")
    pipe(tmp_path / "results" / file)
    with pytest.raises(UserError, match="nobody can tell what it needs"):
        used_by([tmp_path])


def test_a_figure_takes_its_place(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    for name in ("a.png", "a.svg"):
        pipe(tmp_path / name)
    save(Figure(), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file() and (tmp_path / "a.svg").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.svg"}


@pytest.mark.parametrize("file", [MANIFEST, INDEX, shard_file(0)])
def test_a_case_store_is_refused_and_built_in_cases_are_drawn_again(file: str, tmp_path: Path) -> None:
    data = make_study(data={"cases": 40, "size": 32}).data
    folder = open_cases(data, tmp_path).folder
    pipe(folder / file)
    with pytest.raises(UserError, match=r"is not a case store|missing or damaged"):
        pictures(CaseStore(folder))
    drop_damaged(data, tmp_path)
    assert len(pictures(open_cases(data, tmp_path)))


def pictures(store: CaseStore) -> list[object]:
    return list(store.pictures("derm", store.split("train")))


def test_a_report_may_tell_of_a_path_that_is_no_text(tmp_path: Path) -> None:
    put(os.fsdecode(b"results/\xff"), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "results/?"


def test_a_table_may_lie_where_the_name_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff") / "x.arrow"
    write(pa.table({"x": [1]}), file)
    assert read(file).to_pylist() == [{"x": 1}]
