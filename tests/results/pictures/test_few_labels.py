"""The figure of scores against numbers of labels."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dermsearch.results.pictures import few_labels
from dermsearch.results.pictures.few_labels import LINES, amount, curves, few_labels_figure, judges, steps
from dermsearch.results.tables.schema import Results, build

SHIFT = {"1": -0.1, "10": -0.05, "10%": -0.02, "all": 0.0}


def with_few(results: Results, protocol: str = "knn") -> Results:
    """The same study whose kNN learnt from several numbers of labels, three draws of each."""
    rows: list[dict[str, Any]] = []
    for row in results.scores.to_pylist():
        few = SHIFT if row["protocol"] == protocol else {"all": 0.0}
        for labelled, shift in few.items():
            for draw in range(1 if labelled == "all" else 3):
                moved = {k: row[k] + shift + 0.01 * draw for k in ("value", "ci_low", "ci_high") if row[k] is not None}
                rows.append({**row, **moved, "labelled": labelled, "draw": draw})
    return Results(results.folder, results.study, {**results.tables, "scores": build("scores", rows)})


def test_a_panel_for_each_judge_with_several_numbers(make_study: Any, tmp_path: Path) -> None:
    results = with_few(make_study(seeds=(0, 1)))
    assert judges(results) == {"knn": ["1", "10", "10%", "all"]}
    paths = few_labels_figure(results, tmp_path / "few")
    text = re.findall(r"<text[^>]*>([^<]*)</text>", paths[1].read_text("utf-8"))
    assert {"1", "10", "10%", "all", "knn", "no pre-training", "MoCo v2"} <= set(text)
    assert "labelled cases of every class, log scale" in text
    assert any(t.startswith("band: 95 % interval, bootstrap over patients and, of seeds") for t in text)


def test_curves_are_the_leaderboards_scores(make_study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = with_few(make_study(values={"odc": 0.7, "moco_v2": 0.6}))
    found = {str(key.curriculum): curve for key, curve in curves(results, "knn", ["1", "all"]).items()}
    assert found["odc"]["all"].score == pytest.approx(0.7) and found["odc"]["1"].score == pytest.approx(0.61)
    drawn: list[list[float]] = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda ax, *a, **k: (drawn.append(list(a[1])), plot(ax, *a, **k))[1])
    few_labels_figure(results, tmp_path / "few")
    assert any(line == pytest.approx([61, 66, 69, 70]) for line in drawn), "of ODC, from one label to all"


def test_below_is_what_each_is_above_no_pre_training(
    make_study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = with_few(make_study(values={"odc": 0.7, "moco_v2": 0.6}, seeds=(0, 1)))
    found = {str(key.curriculum): curve for key, curve in curves(results, "knn", ["1", "all"]).items()}
    gains = [100 * found["odc"][number].to_none.value for number in ("1", "all")]
    drawn: list[list[float]] = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda ax, *a, **k: (drawn.append(list(a[1])), plot(ax, *a, **k))[1])
    text = few_labels_figure(results, tmp_path / "few")[1].read_text("utf-8")
    assert "above no pre-training" in re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert any((line[0], line[-1]) == pytest.approx(gains) for line in drawn)
    assert len(drawn) == 2 * LINES - 1, "no pre-training is not above itself"


def test_no_name_of_an_axis_is_cut(make_study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(few_labels, "save", lambda figure, path, origin: drawn.append(figure) or [])
    few_labels_figure(with_few(make_study(values={"odc": 0.7, "moco_v2": 0.6}, seeds=(0, 1))), tmp_path / "few")
    (figure,) = drawn
    figure.axes[-1].set_ylim(-30, 30)
    FigureCanvasAgg(figure).draw()
    names = [ax.yaxis.label.get_window_extent() for ax in figure.axes if ax.get_ylabel()]
    assert len(names) == 2 and all(name.x0 > 0 and name.x1 < figure.axes[0].bbox.x0 for name in names)
    assert names[0].x1 == pytest.approx(names[1].x1, abs=1), "they stand below one another"


def test_nothing_is_drawn_where_all_learnt_from_the_same(make_study: Any, tmp_path: Path) -> None:
    assert few_labels_figure(make_study(), tmp_path / "few") == []


def test_numbers_that_span_decades_stand_by_their_logarithm() -> None:
    assert steps(["1", "10", "100", "1000"]) == pytest.approx([0, 1, 2, 3])
    assert steps(["1", "3", "10", "30", "100", "300", "all"]) == pytest.approx(
        [0, 0.4771, 1, 1.4771, 2, 2.4771, 2.4771 * 6 / 5], abs=1e-3
    )
    assert steps(["5", "50", "10%", "all"]) == pytest.approx([0.69897, 1.69897, 2.69897, 3.69897])
    for few in (["5", "20", "all"], ["20", "all"], ["1%", "10%", "all"], ["all"]):
        assert steps(few) == [*range(len(few))], "even steps"


def test_the_axis_stands_by_them(make_study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SHIFT, "3", -0.07)
    results, drawn = with_few(make_study(values={"odc": 0.7, "moco_v2": 0.6})), []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda ax, *a, **k: (drawn.append(list(a[0])), plot(ax, *a, **k))[1])
    few_labels_figure(results, tmp_path / "few")
    wanted = [0, 0.4771, 1, 1.5, 2]  # 1, 3, 10, then 10 % and all
    assert drawn and all(line == pytest.approx(wanted, abs=1e-3) for line in drawn)


def test_numbers_shares_and_all_are_in_order() -> None:
    assert sorted(["all", "10%", "100", "5", "1%"], key=amount) == ["5", "100", "1%", "10%", "all"]
