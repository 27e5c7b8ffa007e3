"""The page holds what the tables hold, in the numbers of the leaderboard and the figures, as text, offline."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import vl_convert
from results.report.conftest import HOSTILE, STUDY, TASK, embedded_in

from dermsearch.errors import UserError
from dermsearch.results.board.leaderboard import cells, footnotes, leaderboard, points
from dermsearch.results.explain.evidence import gather
from dermsearch.results.explain.explain import explain
from dermsearch.results.pictures.curves import panels_of
from dermsearch.results.report import charts, question
from dermsearch.results.report.boards import boards
from dermsearch.results.report.charts import library
from dermsearch.results.report.compare import compare, side_by_side
from dermsearch.results.report.content import Content
from dermsearch.results.report.cost import front, spent
from dermsearch.results.report.learning import MOST, curves_of, learning
from dermsearch.results.report.markup import Markup, el, embedded
from dermsearch.results.report.report import SECTIONS, report, study_page
from dermsearch.results.report.tree import encoders
from dermsearch.results.report.why import forest
from dermsearch.results.report.workers import placed, shares
from dermsearch.results.tables.schema import build, load, write

pytestmark = pytest.mark.usefixtures("no_library")
FAILED = {"moco_v2 > odc": "failed"}


def test_folders_of_encoders_are_those_that_export_writes():
    """See `run/export.py`: one, or one for each branch."""
    pair = {"modalities": ["derm", "clinic"]}
    assert encoders({"data": pair, "encoder": {"branches": "shared"}}) == ["encoder"]
    assert encoders({"data": {"a": pair, "b": {}}, "encoder": {"branches": "separate"}}) == [
        "encoder/derm",
        "encoder/clinic",
    ]
    assert encoders({"data": {"modalities": ["derm"]}, "encoder": {"branches": "separate"}}) == ["encoder"]


def test_numbers_are_those_of_the_leaderboard_and_of_the_figures(make_filled):
    results = make_filled(study=STUDY, failed=FAILED, seeds=(0, 1))
    data = embedded_in(report(results.folder))
    boards = data["boards"]["all"]
    assert len(boards) == 4 and boards[0]["own"]  # knn and linear, two metrics
    for board in boards:
        metric = board["metric"].replace(" ", "_").replace("macro_F1", "macro_f1")
        rows = leaderboard(results, board["judge"], metric, board["label"])
        assert [row[5:] for row in board["rows"]] == cells(rows)
        assert board["notes"][-1] == footnotes(rows)[-1]
    by_name = {row.name: row for row in leaderboard(results)}
    for node in data["tree"]["nodes"]:
        row = by_name[node["curriculum"]]
        assert node["text"].split(" [")[0] == points(row.score) and node["status"] in (row.status, "root")
    drawn = [row[data["columns"].index("loss")] for rows in data["curves"].values() for row in rows]
    lines = [line for (_, what), of in panels_of(results.epochs.to_pylist()).items() if what == "loss" for line in of]
    assert sorted(drawn) == pytest.approx(sorted(v for line in lines for v in line.values), rel=1e-4)


def test_everything_that_a_study_says_is_text(make_filled):
    study = {"name": HOSTILE, "description": HOSTILE, "curriculum": {"tasks": {HOSTILE: {}}}}
    results = make_filled(tasks=(TASK, "odc"), longest=2, failed={f"odc > {TASK}": "failed"}, study=study)
    path = report(results.folder)
    text = path.read_text("utf-8")
    assert "<img src=x" not in text and "<script>document.title" not in text and "&lt;script&gt;" in text
    assert any(TASK in node["name"] for node in embedded_in(path)["tree"]["nodes"])
    text = compare([results.folder, results.folder], results.folder / "c.html").read_text("utf-8")
    assert "<img src=x" not in text and "<script>document.title" not in text


def test_everything_that_a_data_set_says_is_text(make_filled):
    results = make_filled(study=STUDY)
    said = {"diagnosis": f"{HOSTILE}label", "MEL": f"{HOSTILE}class", "NEV": "</script><b>"}
    for name, fields in {"scores": ("label", "class"), "confusions": ("label", "truth", "predicted")}.items():
        rows = results.tables[name].to_pylist()
        rows = [row | {field: said.get(row[field], row[field]) for field in fields} for row in rows]
        write(build(name, rows), results.folder / "tables" / f"{name}.arrow")
    path = report(results.folder)
    text = path.read_text("utf-8")
    assert "<img src=x" not in text and "<script>document.title" not in text and "</script><b>" not in text
    charts = json.dumps(embedded_in(path)["charts"])
    assert all(json.dumps(word)[1:-1] in charts for word in said.values()), "as it is, for the script that draws"


def test_curves_from_few_labels_are_the_leaderboards(make_filled):
    results = make_filled(study={**STUDY, "objective": {"metric": "balanced_accuracy", "label": "diagnosis"}})
    rows = results.scores.to_pylist()
    fewer = [
        row | {"labelled": n, "value": row["value"] - down} for n, down in (("5", 0.2), ("20", 0.1)) for row in rows
    ]
    write(build("scores", [*fewer, *rows]), results.folder / "tables" / "scores.arrow")
    data, results = embedded_in(report(results.folder)), load(results.folder)
    drawn = data["charts"]["chart-few-0"]
    values = drawn["data"]["values"]
    assert list(dict.fromkeys(row["labels"] for row in values)) == ["5", "20", "all"]
    for number in ("5", "20", "all"):
        board = leaderboard(results, f"knn:{number}", "balanced_accuracy", "diagnosis")
        board = {Content(results).name(row.key): row.score for row in board}
        told = {row["name"]: row["score"] for row in values if row["labels"] == number}
        assert told == {name: pytest.approx(100 * board[name], abs=0.006) for name in told} and len(told) > 3
    assert vl_convert.vegalite_to_vega(drawn)["marks"]


def test_what_has_no_interval_yet_has_no_axis_of_them(make_filled):
    """A study that has only begun: an axis of nothing is a warning of the script that draws."""
    found = explain(gather(make_filled(study=STUDY).folder))
    without = replace(found, tasks=[replace(effect, low=None, high=None) for effect in found.tasks], places=[])
    fields = [[layer["encoding"]["x"].get("field") for layer in forest(each)["layer"]] for each in (found, without)]
    assert fields == [[None, "low", "value"], [None, "value"]] and forest(without)["data"]["values"]


@pytest.mark.parametrize("length, asked", [
    ([1, 1], "Which task alone, of moco_v2, odc, relative_location, gives"),
    ([2, 2], "Which curriculum of 2 of moco_v2, odc, relative_location gives"),
    ([1, 3], "Which curriculum of 1 to 3 of moco_v2, odc, relative_location gives"),
])  # fmt: skip
def test_the_question_is_asked_in_a_sentence(make_filled, length, asked):
    study = {**STUDY, "curriculum": {**STUDY["curriculum"], "length": length}}
    assert asked in question.asked(Content(make_filled(study=study)))
    assert question.asked(Content(make_filled(study={"name": "x"}))).startswith("Which curriculum of its tasks gives")


@pytest.mark.parametrize("labels, objective, asked", [
    ([5, "all"], 5, "judged by knn from 5 labelled cases of every class on validation cases"),
    ([20], None, "judged by knn from 20 labelled cases of every class on validation cases"),
    ("10%", None, "judged by knn from 10% of the labels on validation cases"),
    (["all"], "all", "judged by knn on validation cases"),
])  # fmt: skip
def test_the_question_tells_of_how_many_labels(make_filled, labels, objective, asked):
    study = {**STUDY, "downstream": {"knn": {"labelled": labels}}}
    study["objective"] = {"protocol": "knn", "labelled": objective}
    assert asked in question.asked(Content(make_filled(study=study)))


def test_a_line_of_the_tree_tells_time_interval_and_status(make_filled):
    results = make_filled(study=STUDY, seeds=(0, 1), failed=FAILED)
    nodes = {node["name"]: node for node in embedded_in(report(results.folder))["tree"]["nodes"]}
    board = {row.name: row for row in leaderboard(results)}
    stages = [row for row in results.stages.to_pylist() if row["curriculum"] == "odc > moco_v2"]
    found, row = nodes["odc > moco_v2"], board["odc > moco_v2"]
    assert found["seconds"] == pytest.approx(sum(each["seconds"] for each in stages) / 2) and found["status"] == "done"
    assert found["text"] == f"{points(row.score)} [{points(row.low)}, {points(row.high)}]"
    assert [stage["key"] for stage in found["stages"]] == [each["key"] for each in stages] and found["settings"]
    lost = nodes["moco_v2 > odc"]
    assert lost["status"] == "failed" and lost["error"] == board["moco_v2 > odc"].error


def test_one_name_everywhere(make_filled):
    """Tree, leaderboard, curves, workers and reasons call a task what the study calls it."""
    content = Content(make_filled(study=STUDY))
    page = study_page(content.results)
    assert not re.search(r"Rel\. loc|MoCo v2|→", page) and page.count("relative_location") > 20
    effects = [row["what"] for row in forest(explain(gather(content.results.folder)))["data"]["values"]]
    assert "relative_location, in the curriculum" in effects
    assert {content.name(row.key) for row in content.rows} == {row.name for row in content.rows}


def test_provenance_names_the_code_and_the_data(make_filled):
    results = make_filled(study=STUDY)
    rows = [
        row | {"version": "9.9", "commit": "c0ffee", "stores": "own f00d", "libraries": "torch 8.8"}
        for row in results.stages.to_pylist()
    ]
    write(build("stages", rows), results.folder / "tables" / "stages.arrow")
    text = report(results.folder).read_text("utf-8")
    wanted = ("own f00d", "dermsearch 9.9 (c0ffee)", "torch 8.8", "<td>seeds</td><td>0</td>")
    assert [word for word in wanted if word not in text] == []


@pytest.mark.parametrize("made, text", [
    (el("p", "a < b & c", class_="x", title='"'), '<p class="x" title="&quot;">a &lt; b &amp; c</p>'),
    (el("p", Markup("<b>c</b>"), hidden=True, id=None), "<p hidden><b>c</b></p>"),
    (embedded({"a": "</script><!--\u2028"}), '{"a":"\\u003c/script\\u003e\\u003c!--\\u2028"}'),
])  # fmt: skip
def test_markup(made, text):
    assert made == text


def test_nothing_is_fetched(make_filled):
    text = report(make_filled(study=STUDY).folder).read_text("utf-8")
    assert "default-src 'none'" in text and "connect-src" not in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(|<link""", text)


@pytest.mark.slow
def test_a_large_study_is_a_small_file(make_filled):
    """325 stages: five tasks in any order."""
    results = make_filled(epochs=60, tasks=("odc", "moco_v2", "simclr", "byol", "relative_location"), longest=5)
    assert len(results.stages) == 325
    began = time.process_time()  # whatever else the machine does
    path = report(results.folder)
    assert time.process_time() - began < 40 and path.stat().st_size + 900_000 < 3e6  # with the script that draws
    data = embedded_in(path)
    assert len(data["tree"]["nodes"]) == 326 and len(data["boards"]["all"][0]["rows"]) == 326
    assert {len(rows) for rows in data["curves"].values()} == {MOST}


def test_pictures_are_whole_vega_lite(make_filled):
    data = embedded_in(report(make_filled(study=STUDY, seeds=(0, 1)).folder))
    assert {"chart-cost", "chart-class", "chart-why", "chart-loss", "chart-workers"} <= data["charts"].keys()
    for chart in data["charts"].values():
        if chart.get("data") == {"name": "curves"}:
            chart["data"] = {"values": [{"stage": "a", "task": "b", "place": "first", "epoch": 1, "loss": 1}]}
        assert vl_convert.vegalite_to_vega(chart)["marks"]


@pytest.mark.slow
def test_a_page_needs_neither_torch_nor_ray(make_filled):
    folder = make_filled(study=STUDY).folder
    code = (
        "import sys; from dermsearch.results.report.report import report; report(sys.argv[1]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'vl_convert')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == 0


def test_the_script_that_draws_comes_out_of_the_package(monkeypatch):
    assert "vegaEmbed" in library.__wrapped__() and "</script" not in library.__wrapped__()
    monkeypatch.setattr(charts, "PRINT", "raise ImportError('no such thing')")
    with pytest.raises(UserError, match=r"vl-convert-python: .*no such thing"):
        library.__wrapped__()


def test_the_front_is_what_nothing_cheaper_beats(make_filled):
    results = make_filled(study=STUDY)
    rows = spent(Content(results))
    assert {row["seconds"] for row in rows} == {0.0, 60.0, 120.0, 180.0}
    kept = front(rows)
    assert all(a["seconds"] < b["seconds"] and a["score"] < b["score"] for a, b in pairwise(kept))
    for row in rows:
        assert any(k["seconds"] <= row["seconds"] and k["score"] >= row["score"] for k in kept)


def test_long_stages_keep_their_ends():
    rows = [
        {"stage": "a", "curriculum": "odc", "task": "odc", "seed": 0, "epoch": e, "loss": float("nan") if e == 9 else e}
        | dict.fromkeys(("embedding_std", "effective_rank", "val_loss", "knn"))
        for e in range(1, 301)
    ]
    values = curves_of(rows)["a"]["values"]
    assert len(values) == MOST and values[0][0] == 1 and values[-1][0] == 300
    assert all(row[1] is None or row[1] == row[0] for row in values)


def test_stages_of_one_epoch_make_no_empty_panel():
    own = {"seed": 0, "parts": "{}", "curriculum": "odc", "loss": 1.0}
    own |= dict.fromkeys(("embedding_std", "effective_rank", "val_loss", "val_parts"))
    stages = (("a", "odc", 1), ("b", "odc", 3), ("c", "moco_v2", 1))
    rows = [own | {"stage": key, "task": task, "epoch": e} for key, task, last in stages for e in range(1, last + 1)]
    page = learning(SimpleNamespace(results=SimpleNamespace(epochs=SimpleNamespace(to_pylist=lambda: rows))))
    assert page.charts["chart-loss"]["transform"] == [{"filter": {"field": "task", "oneOf": ["odc"]}}]


def test_idle_time_and_breaks():
    def job(process, began, ended):
        own = {"curriculum": "odc", "kind": "pretext", "task": "odc", "seed": 0, "status": "done", "key": "k"}
        return own | {"process": process, "began": began, "ended": ended}

    jobs = [job("a", 100.0, 110.0), job("a", 115.0, 120.0), job("b", 100.0, 108.0), job("a", 20_000.0, 20_010.0)]
    assert shares(jobs) == [("a", 3, 25.0, pytest.approx(100 * 5 / 30)), ("b", 1, 8.0, 0.0)]
    assert [round(bar["from"]) for bar in placed(jobs)] == [0, 0, 15, 20]


@pytest.mark.parametrize("make", SECTIONS, ids=lambda make: make.__name__)
def test_a_study_that_has_only_begun_has_every_section_that_it_can(make, tmp_path):
    for name in ("stages", "trials", "scores", "epochs"):
        write(build(name, []), tmp_path / "tables" / f"{name}.arrow")
    section = make(Content(load(tmp_path)))
    assert section is None or section.title


def test_failures_and_collapse_are_told(make_filled):
    text = report(make_filled(study=STUDY, failed=FAILED).folder).read_text("utf-8")
    assert "the loss is not finite in epoch 3" in text and "dropped: moco_v2 &gt; odc failed" in text
    assert "Looks collapsed" in text


def test_studies_side_by_side(make_filled):
    one, other = make_filled(study={**STUDY, "seed": 1}), make_filled(study={**STUDY, "seed": 2}, tasks=("odc", "byol"))
    path = compare([one.folder, other.folder], one.folder.parent / "both.html")
    rows = embedded_in(path)["charts"]["chart-side"]["data"]["values"]
    assert len({row["study"] for row in rows}) == 2  # of one name: told by their folders
    scores = {row["what"]: row["score"] for row in rows if row["study"] == str(one.folder)}
    assert scores == {row.name: round(100 * row.score, 2) for row in leaderboard(one)}
    text = path.read_text("utf-8")
    assert "<td>seed</td><td>1</td><td>2</td>" in text and json.dumps(one.origin)[1:-1] in text


def test_scores_below_zero_stand_in_their_order_side_by_side(make_filled):
    """As lift has them, where less of attention is inside the mask than of an even map."""
    low, high = (
        Content(make_filled(tasks=(task,), longest=1, values={task: score, "no pre-training": -0.4}))
        for task, score in (("odc", -0.2), ("moco_v2", -0.1))
    )
    section = side_by_side([low, high], ["a", "b"])
    order = section.charts["chart-side"]["layer"][-1]["encoding"]["y"]["sort"]
    assert order == ["moco_v2", "odc", "no pre-training"]


@pytest.mark.parametrize("low, high, axis", [
    (0.5, 85.0, [0.0, 87.535]),  # nothing scores less than nothing
    (60.0, 99.0, [58.83, 100.0]),
    (70.0, 70.0, [69.0, 71.0]),
    (None, 50.0, [49.0, 51.0]),
    (40.0, 400.0, [29.2, 400.0]),  # a rank is no percent
])  # fmt: skip
def test_an_axis_of_scores_ends_where_scores_do(low, high, axis):
    assert charts.percents([{"low": low, "high": high, "score": high}])["domain"] == pytest.approx(axis)


def test_several_measures_stand_on_lines_of_their_own(make_filled):
    """Or the name of their axis is wider than a narrow page."""
    one = make_filled(study=STUDY)
    other = make_filled(study={**STUDY, "objective": {"protocol": "knn", "metric": "macro_f1", "label": "diagnosis"}})
    for folders, many in (([one, one], False), ([one, other], True)):
        path = compare([each.folder for each in folders], one.folder.parent / "both.html")
        chart = embedded_in(path)["charts"]["chart-side"]
        titles = {json.dumps(layer["encoding"]["x"]["title"]) for layer in chart["layer"]}
        assert len(titles) == 1 and isinstance(json.loads(titles.pop()), list) is many
        assert vl_convert.vegalite_to_vega(chart)["marks"]


def test_a_measure_without_any_number_has_no_board(make_filled):
    """Of roots alone, where the cases show one class, AUC has no value."""
    results = make_filled(tasks=())
    scores = [row | {"class": "", "value": None} for row in results.scores.to_pylist() if row["metric"] == "auc"]
    tables = results.tables | {"scores": build("scores", [*results.scores.to_pylist(), *scores])}
    found = boards(Content(replace(results, tables=tables))).data["boards"]["all"]
    assert "AUC" not in {board["metric"] for board in found} and len(found) > 1
