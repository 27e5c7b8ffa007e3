"""The report beside a run: before, in the middle, at the end; and a report that cannot be written stops nothing."""

import json
import re
import time

import pytest
import yaml

from dermsearch.results.report import page
from dermsearch.results.tables.schema import build, write
from dermsearch.run import live
from dermsearch.run.live import LiveReport, under_way


@pytest.fixture(autouse=True)
def no_library(monkeypatch):
    monkeypatch.setattr(page, "library", lambda: "")


def state(folder):
    text = (folder / "report.html").read_text("utf-8")
    return json.loads(re.search(r'id="run">(.*?)</script>', text)[1]), text


def until(true, folder):
    ends = time.monotonic() + 200
    while time.monotonic() < ends:
        if (folder / "report.html").exists() and true(*state(folder)):
            return state(folder)
        time.sleep(0.01)
    pytest.fail("the report did not become what it should")


def stage(n):
    own = {"key": f"k{n}", "kind": "pretext", "parent": "r", "depth": 1, "curriculum": f"task{n}", "task": f"task{n}"}
    return own | {"settings": "{}", "seed": 0, "status": "done", "reused": False, "seconds": 3.0, "root": ""}


def tables(folder, stages):
    for name in ("trials", "scores", "epochs"):
        write(build(name, []), folder / "tables" / f"{name}.arrow")
    write(build("stages", map(stage, range(stages))), folder / "tables" / "stages.arrow")


@pytest.mark.parametrize("error, said", [(None, "The run is finished."), (KeyboardInterrupt, "was interrupted")])
def test_before_in_the_middle_and_at_the_end(tmp_path, monkeypatch, error, said):
    monkeypatch.setattr(live, "SHARE", 1e9)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "skin"}))
    doing, told = ["0 of 2 stages"], []
    try:
        with LiveReport(tmp_path, lambda: doing, told.append, every=0.02):
            now, text = until(lambda now, text: now["alive"], tmp_path)
            assert now["said"] == "0 of 2 stages." and "Nothing has been scored yet" in text
            tables(tmp_path, 1)
            doing[:] = ["1 of 2 stages", "task1, epoch 2/4"]
            now, text = until(lambda now, text: "task0" in text and "epoch" in now["said"], tmp_path)
            assert now["alive"] and now["said"] == "1 of 2 stages; task1, epoch 2/4." and "task1" not in text[:-40_000]
            tables(tmp_path, 2)
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    now, text = state(tmp_path)
    assert not now["alive"] and said in now["said"] and "task1" in text and told == []


def test_a_run_with_nothing_new_is_still_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "RENEW", 0.05)
    (tmp_path / "study.yaml").write_text("name: skin\n")
    with LiveReport(tmp_path, lambda: [], print, every=0.02):
        first, _ = until(lambda now, text: True, tmp_path)
        until(lambda now, text: now["written"] > first["written"], tmp_path)


def test_what_is_wrong_with_it_is_told_once_beside_the_run_and_once_at_its_end(tmp_path):
    (tmp_path / "study.yaml").write_text("[]")
    told, looks = [], []
    with LiveReport(tmp_path, lambda: looks.append(len(told)) or [], told.append, every=0.001):
        while len(looks) < 5:
            time.sleep(0.001)
    assert looks[:2] == [0, 1] and set(looks[1:]) == {1}
    assert len(told) == 2 and all("report.html is not written" in one and "not a mapping" in one for one in told)


@pytest.mark.parametrize("stages, said", [
    ([], "nothing is being trained right now."), (["a"], "a."),
    (["a", "b", "c", "d", "e", "f"], "a; b; c; d and 2 more."),
])  # fmt: skip
def test_what_a_run_is_at(stages, said):
    assert under_way(stages) == said
