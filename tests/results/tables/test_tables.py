"""Tables grow by pieces, are whole at any moment, and those of earlier versions are read."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dermsearch.results import load
from dermsearch.results.tables import schema as tables
from dermsearch.results.tables.writer import WHOLE, Writer

ABOUT = {"study": "s", "version": "1", "commit": "c", "caveats": ""}


def score(stage: str, value: float) -> dict[str, Any]:
    return {"stage": stage, "protocol": "knn", "metric": "auc", "class": "", "value": value}


def test_pieces_stand_in_the_order_given_whoever_was_first(tmp_path: Path) -> None:
    early, late = Writer(tmp_path / "early"), Writer(tmp_path / "late")
    for writer, keys in ((early, "abc"), (late, "cba")):
        for value, key in enumerate(keys):
            writer.put("scores", key, [score(key, ord(key)), score(key, -ord(key))])
            said = pa.table({"case": pa.array([key, "x"]).dictionary_encode(), "probability": [0.5, 0.1]})
            writer.put_tables("predictions", key, [({"stage": key, "protocol": "knn"}, said)])
            writer.save(keys[: value + 1], ABOUT)
        writer.put("trials", WHOLE, [{"trial": 0, "status": "done"}])
        writer.save("abc", ABOUT)
    for name in early.pieces:
        one, other = (tmp_path / run / f"{name}.arrow" for run in ("early", "late"))
        assert one.read_bytes() == other.read_bytes()
    table = tables.read(tmp_path / "late" / "scores.arrow")
    assert table["stage"].to_pylist() == list("aabbcc") and table["value"].num_chunks == 1
    assert table.schema == tables.SCHEMAS["scores"] and set(table["commit"].to_pylist()) == {"c"}


def test_only_what_is_new_is_converted_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, written = [], []
    build, write = tables.build, tables.write
    monkeypatch.setattr(tables, "build", lambda n, rows: built.append(rows := list(rows)) or build(n, rows))
    monkeypatch.setattr(tables, "write", lambda t, path: written.append(path.stem) or write(t, path))
    writer = Writer(tmp_path)
    writer.put("scores", "a", [score("a", 1.0)] * 1000)
    writer.save("a", ABOUT)
    assert sorted(written) == sorted(writer.pieces)
    assert writer.has("scores", "a") and not writer.has("scores", "b") and not writer.has("epochs", "a")
    built.clear(), written.clear()
    writer.put("scores", "b", [score("b", 2.0)])
    writer.save("ab", ABOUT)
    assert written == ["scores"] and sum(map(len, built)) == 1
    written.clear()
    writer.save("ab", ABOUT)
    assert not written
    writer.save("b", ABOUT)  # a stage that is no longer of the study
    assert written == ["scores"] and tables.read(tmp_path / "scores.arrow")["stage"].to_pylist() == ["b"]
    written.clear()
    writer.save("b", ABOUT | {"caveats": "by image"})  # of all rows, those of before too
    assert sorted(written) == sorted(writer.pieces)
    assert tables.read(tmp_path / "scores.arrow")["caveats"].to_pylist() == ["by image"]


def test_rows_come_in_any_order_of_keys_at_any_time(tmp_path: Path) -> None:
    """Against a list of rows: keys that come, are put anew, leave the order and come back."""
    draw = random.Random(3)
    writer, rows, values = Writer(tmp_path), dict[str, list[float]](), itertools.count()
    for _ in range(150):
        key = draw.choice("abcdefgh")
        rows[key] = [float(next(values)) for _ in range(draw.randrange(4))]
        writer.put("scores", key, [score(key, value) for value in rows[key]])
        writer.put_tables(
            "predictions", key, [({"stage": key}, pa.table({"probability": rows[key]}))] * bool(rows[key])
        )
        if draw.random() < 0.6:
            order = draw.sample("abcdefgh", draw.randrange(3, 9))
            writer.save(order, ABOUT)
            found = tables.read(tmp_path / "scores.arrow")
            assert found["value"].to_pylist() == [value for key in order for value in rows.get(key, [])]
            said = tables.read(tmp_path / "predictions.arrow").select(["stage", "probability"]).to_pydict()
            expected = [(key, value) for key in order for value in rows.get(key, [])]
            assert list(zip(*said.values(), strict=True)) == expected


def test_thousands_of_pieces_take_little_more_room_than_their_rows(tmp_path: Path) -> None:
    """Each as a table of its own had fifty buffers, of 64 bytes at least, and what describes them."""
    before = pa.total_allocated_bytes()
    writer = Writer(tmp_path)
    for n in range(1000):
        writer.put("scores", str(n), [score(str(n), 1.0)])
        if n % 50 == 49:
            writer.save(map(str, range(n + 1)), ABOUT)
    (pieces,) = [writer.pieces["scores"]]
    assert not pieces.new and pieces.columns["value"].num_chunks == 1 and len(pieces.columns["value"]) == 1000
    assert pa.total_allocated_bytes() - before < 300_000


GROWING = """
import sys
from pathlib import Path
from dermsearch.results.tables.writer import Writer
writer = Writer(Path(sys.argv[1]))
for i in range(10_000):
    writer.put("scores", str(i), [{"stage": str(i), "value": float(i)}] * 200)
    writer.save(map(str, range(i + 1)), {"study": "s"})
"""


def test_a_reader_and_a_kill_at_any_moment_find_whole_tables(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", GROWING, str(tmp_path)])
    path, rows, deadline = tmp_path / "scores.arrow", 0, time.monotonic() + 300
    while rows < 4000 and time.monotonic() < deadline:
        if path.is_file():
            now = len(tables.read(path))
            assert now >= rows and now % 200 == 0
            rows = now
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    table = tables.read(path)
    assert len(table) >= rows >= 4000 and table["value"].to_pylist()[-1] == len(table) / 200 - 1


def test_tables_of_an_earlier_version_are_read(make_study: Any) -> None:
    results = make_study(longest=1)
    later = {"root", "data", "labelled", "draw", "kind"}
    for name in ("trials", "stages", "epochs", "scores"):
        table = results.tables[name]
        tables.write(table.drop_columns([c for c in table.column_names if c in later]), path_of(results, name))
    for name in tables.LATER:
        path_of(results, name).unlink(missing_ok=True)
    again = load(results.folder)
    for name, schema in tables.SCHEMAS.items():
        assert again.tables[name].schema == schema and again.tables[name].equals(results.tables[name]), name
    assert set(again.scores["labelled"].to_pylist()) == {"all"} and set(again.stages["kind"].to_pylist()) == {"pretext"}


def test_an_empty_column_of_a_later_version_makes_no_other_tables(make_study: Any) -> None:
    results = make_study(longest=1)
    scores = results.scores
    wider = scores.append_column("later", pa.nulls(len(scores), pa.string()))
    assert replace(results, tables={**results.tables, "scores": wider}).origin == results.origin
    half = wider.set_column(wider.num_columns - 1, "later", pa.array(["x"] + [None] * (len(scores) - 1)))
    for other in (half, scores.slice(1)):
        assert replace(results, tables={**results.tables, "scores": other}).origin != results.origin


def path_of(results: Any, name: str) -> Path:
    return results.folder / "tables" / f"{name}.arrow"


def test_what_a_row_does_not_say_has_its_default() -> None:
    table = tables.build("judgements", [{"stage": "a"}, {"stage": "b", "root": "file", "draw": 2, "labelled": "10%"}])
    assert table["root"].to_pylist() == ["", "file"] and table["draw"].to_pylist() == [0, 2]
    assert table["data"].to_pylist() == ["data"] * 2 and table["labelled"].to_pylist() == ["all", "10%"]
    assert table["status"].type == pa.string() and table["status"].to_pylist() == [None, None]


def test_arrow_gives_back_what_tables_took() -> None:
    """Its own pool kept 50 MB of a run of 300 stages, for 10 MB of tables."""
    asked = "import dermsearch, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    env = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    told = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "system"
