import csv

import pytest

from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.papers import published as module
from dermsearch.papers.published import IMAGENET, NAMES, TABLES, published, published_folder
from dermsearch.results.board.leaderboard import ordering

COLUMNS = ["source", "table", "row", "column_metric", "value", "note"]
COUNTS = ["label", "class", "positive", "total", "named"]


def rows(name):
    with (published_folder() / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def single(scores):
    return {name: value for name, value in scores.items() if " > " not in name}


def test_skin_table_in_our_names():
    scores = published("aiseeme_table1")
    assert len(scores) == 15 + 2  # the challenge's winner is no curriculum
    assert scores["odc > moco_v2"] == 0.7544
    assert scores["relative_location > odc > moco_v2"] == 0.75
    assert scores["no pre-training"] == 0.4927
    assert scores[IMAGENET] == 0.7376


def test_x_ray_table_in_our_names():
    scores = published("aiseeme_table2")
    assert len(scores) == 24
    assert scores["moco_v2 > swav > rotation"] == 0.8567
    assert scores["swav"] == 0.8397  # printed 'Swav' alone and 'SwAV' in chains


def test_letters_of_the_skin_table_follow_from_its_single_scores():
    alone = single(published("aiseeme_table1"))
    printed = {}
    for row in rows("aiseeme_table1"):
        if row["note"].startswith("ordering=") and row["column_metric"] == "Balanced accuracy percent":
            tasks = tuple(NAMES[task] for task in row["row"].split(" > "))
            printed[tasks] = row["note"].removeprefix("ordering=")
    assert len(printed) == 12
    assert {tasks: ordering(Curriculum(tuple(tasks)), alone) for tasks in printed} == printed


def test_ticks_of_the_x_ray_table_follow_from_its_single_scores():
    alone = single(published("aiseeme_table2"))
    ticked, others = [], []
    for row in rows("aiseeme_table2"):
        if row["column_metric"] != "Validation Acc percent" or "n/a" in row["note"]:
            continue
        mark = ordering(Curriculum(tuple(NAMES[task] for task in row["row"].split(" + "))), alone)
        (ticked if row["note"].startswith("curriculum=yes") else others).append(mark)
    assert ticked == ["C"] * 7
    assert sorted(others) == ["AC"] * 6 + ["MC"] * 5


def test_deltas_of_the_skin_table_follow_from_its_scores():
    scores = published("aiseeme_table1")
    checked = 0
    for row in rows("aiseeme_table1"):
        if row["column_metric"] == "delta percent" and row["value"] != "-":
            tasks = [NAMES[task] for task in row["row"].split(" > ")]
            delta = scores[" > ".join(tasks)] - scores[tasks[0]]
            assert 100 * delta == pytest.approx(float(row["value"]), abs=0.011)
            checked += 1
    assert checked == 12


def test_unknown_table_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'aiseeme_table1'"):
        published("aiseme_table1")
    with pytest.raises(UserError, match="choose from: aiseeme_table1, aiseeme_table2"):
        published("xyz")


def test_every_file_has_the_columns_and_stands_in_the_readme():
    files = sorted(published_folder().glob("*.csv"))
    assert len(files) == 18
    readme = (published_folder() / "README.md").read_text(encoding="utf-8")
    for file in files:
        with file.open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text)
            counts = file.stem.endswith("_counts")  # of a data set, not of a table
            assert reader.fieldnames == (COUNTS if counts else COLUMNS), file.name
            assert all(None not in row and None not in row.values() for row in reader), file.name
        assert f"`{file.name}`" in readme, file.name
    assert {f"{name}.csv" for name in TABLES} <= {file.name for file in files}


def test_a_wheel_keeps_the_tables_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "dermsearch" / "results").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "dermsearch" / "papers" / "published.py"))
    with pytest.raises(UserError, match="published tables are missing"):
        published_folder()
    (tmp_path / "results" / "published").mkdir(parents=True)
    assert published_folder() == tmp_path / "results" / "published"
    (tmp_path / "dermsearch" / "published").mkdir()
    assert published_folder() == tmp_path / "dermsearch" / "published"
