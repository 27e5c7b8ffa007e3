"""Files that are no studies, places that are no stores, and which study a name means."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from study.damage import TEXT, dermsearch, refused

from dermsearch.run.run import check
from dermsearch.study.finding import find, shipped_folder
from dermsearch.study.load import load_study


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    no_file = "no such file, and no shipped study of that name; "
    for name, said in {
        "folder": "folder: is a folder; name the study file in it",
        "pipe": "pipe: is not a regular file",
        "/dev/null": "/dev/null: is not a regular file",
        "": "STUDY: must be the path of a file or the name of a shipped study",
        "a\x00b": "STUDY: must be the path of a file or the name of a shipped study",
        "x" * 4000: f"{'x' * 297}...: cannot be read: File name too long",
        "curiculum.yaml": f"curiculum.yaml: {no_file}did you mean 'curriculum'?",
        "curiculum": f"curiculum: {no_file}did you mean 'curriculum'?",
        "nofile.yaml": f"nofile.yaml: {no_file}choose from: ",
        "my/curiculum.yaml": f"my/curiculum.yaml: {no_file}did you mean 'curriculum'?",
        "../../etc/x\n": f"../../etc/x?: {no_file}choose from: ",
        "loop.yaml": "loop.yaml: ",
    }.items():
        code, stderr = dermsearch("run", name)
        assert code == 2 and stderr.startswith(f"dermsearch: {said}") and stderr.count("\n") == 1, stderr


@pytest.mark.parametrize("where", ["/dev/null", "/dev/null/x", "study.yaml", "nosuch://bucket/x", "/proc/1/x"])
def test_a_store_that_cannot_be_written_to_is_refused(where: str) -> None:
    said = refused(TEXT, f"compute.store={where}")
    why = "opened" if "://" in where else "written to"
    assert said.startswith(f"command line: compute.store: '{where}' cannot be {why}: "), said


def test_a_case_store_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        code, said = dermsearch("run", "curriculum_three.yaml", "data.source=store", "data.path=/dev/null")
    assert code == 2 and said.startswith("dermsearch: command line: data.path: there is no case store at /dev/null; ")


def test_a_path_goes_before_a_shipped_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("curriculum.yaml") == find("curriculum") == shipped_folder() / "curriculum.yaml"
    Path("curriculum.yaml").write_text(TEXT.replace("name: curriculum", "name: mine"))
    assert load_study("curriculum.yaml").name == "mine"
    assert load_study("curriculum").name == "curriculum"


SHIPPED = [
    (p, q) for p in sorted(shipped_folder().glob("*.yaml")) for q in (False, True)[: 1 + ("quick:" in p.read_text())]
]


@pytest.mark.parametrize(("path", "quick"), SHIPPED, ids=lambda v: v.name if isinstance(v, Path) else "quick" * v)
def test_every_shipped_study_is_sound(path: Path, quick: bool) -> None:
    study = load_study(str(path), [], quick)
    if study.encoder.weights:  # a file that is the user's to supply
        study = load_study(str(path), ["encoder.weights=null"], quick)
    assert check(study).count() != 0
