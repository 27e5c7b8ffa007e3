import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import dermsearch
from dermsearch.curriculum import Curriculum
from dermsearch.errors import UserError
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.drawing import chain, quantity, readable, save
from dermsearch.results.pictures.figures import curriculum_figure, figures, tree_figure
from dermsearch.results.tables.measure import Measure
from dermsearch.results.tables.schema import Results, build, write

FIVE = ("relative_location", "moco_v2", "odc", "swav", "rotation")
PUBLISHED = {"published": "aiseeme_table1"}


def words(path):
    """The texts of an SVG in the order in which they were drawn."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def size(png):
    """Width and height from the header of a PNG."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_all_figures_of_a_folder(make_study):
    folder = make_study(study=PUBLISHED).folder
    paths = figures(folder)
    names = {"curriculum.png", "curriculum.svg", "tree.png", "tree.svg"}
    assert {path.name for path in paths} == names == {path.name for path in (folder / "figures").iterdir()}
    assert all(path.stat().st_size > 5000 for path in paths)


def test_curriculum_figure_says_what_it_shows(make_study, tmp_path):
    _, svg = curriculum_figure(make_study(study=PUBLISHED | {"name": "skin"}), tmp_path / "c")
    text = words(svg)
    assert "ODC → MoCo v2" in text and "Relative location → ODC → MoCo v2" in text
    assert [t for t in text if t in ("no pre-training", "one task", "two tasks", "three tasks")][:4] == [
        "no pre-training",
        "one task",
        "two tasks",
        "three tasks",
    ]
    assert "balanced accuracy of diagnosis, validation (%)" in text
    assert "balanced accuracy, ISIC-2019 validation (%)" in text
    assert "measured: skin (k-NN)" in text and "published: AISEEME D4, Table 1" in text
    assert {"C (rising)", "AC (falling)", "MC (mixed)", "single task", "ImageNet supervised"} <= set(text)
    assert "95 % interval: bootstrap over patients" in text


def test_lines_are_sorted_inside_their_group(make_study, tmp_path):
    _, svg = curriculum_figure(make_study(), tmp_path / "c")
    text = words(svg)
    pairs = [t for t in text if t.count("→") == 1]
    assert pairs[0] == "ODC → MoCo v2" and pairs[-1] == "MoCo v2 → Relative location"
    assert text.index("one task") < text.index("ODC") < text.index("two tasks") < text.index(pairs[0])


def test_published_panel_only_where_named(make_study, tmp_path):
    bare = curriculum_figure(make_study(), tmp_path / "bare")
    objective = {"protocol": "knn", "metric": "balanced_accuracy", "label": "diagnosis"} | PUBLISHED
    inside = curriculum_figure(make_study(study={"objective": objective}), tmp_path / "inside")
    assert not any("published" in t for t in words(bare[1]))
    assert any(t.startswith("published:") for t in words(inside[1]))


def seen_on_test(results: Results, *curricula: str) -> Results:
    """The same study, of which these were judged on test, once: three points less than on validation."""
    rows = [r for r in results.scores.to_pylist() if r["split"] == "val" and r["curriculum"] in curricula]
    own = {"split": "test", "opening": 1, "when": "2026-01-01T00:00:00+00:00", "rule": "best on validation"}
    rows = [{**row, **own, **{k: row[k] and row[k] - 0.03 for k in ("value", "ci_low", "ci_high")}} for row in rows]
    return Results(results.folder, results.study, {**results.tables, "tests": build("tests", rows)})


def test_what_test_says_stands_apart_from_validation(make_study, monkeypatch, tmp_path):
    results, whole = make_study(seeds=(0, 1)), Axes.plot
    drawn: dict[str, float] = {}

    def plot(ax, x, *more, **how):
        if str(how.get("gid", "")).startswith("test "):
            drawn[how["gid"].removeprefix("test ")] = x[0]
        return whole(ax, x, *more, **how)

    monkeypatch.setattr(Axes, "plot", plot)
    before = words(curriculum_figure(results, tmp_path / "before")[1])
    assert not drawn and "on test" not in before
    text = words(curriculum_figure(seen_on_test(results, "odc", "no pre-training"), tmp_path / "after")[1])
    scores = {row.name: 100 * (row.score or 0) for row in leaderboard(results)}
    assert drawn == pytest.approx({name: scores[name] - 3 for name in ("odc", "no pre-training")})
    assert "on test" in text and "on test: The test split of these data was opened once" in " ".join(text)


def test_several_seeds_are_said(make_study, tmp_path):
    results = make_study(seeds=(0, 1, 2))
    assert any("Student's t" in t and "seeds" in t for t in words(curriculum_figure(results, tmp_path / "c")[1]))
    assert any("3 seeds each" in t for t in words(tree_figure(results, tmp_path / "t")[1]))


def test_height_follows_the_rows(make_study, tmp_path):
    few, some, many = (
        size(curriculum_figure(make_study(**options), tmp_path / str(i))[0])[1]
        for i, options in enumerate([{"longest": 1}, {}, {"tasks": FIVE}])
    )
    assert few < some < many
    assert many - some == pytest.approx((85 - 15) * 0.2 * 150, abs=2)


def test_failures_are_named(make_study, tmp_path):
    results = make_study(failed={"moco_v2": "failed", "odc > moco_v2": "pruned"}, reused=["odc"])
    text = words(curriculum_figure(results, tmp_path / "c")[1])
    assert (text.count("failed"), text.count("pruned"), text.count("dropped")) == (1, 1, 5)
    assert "order unknown" in text
    assert "MC (mixed)" not in text
    paper = make_study(failed={"moco_v2": "failed"}, study=PUBLISHED)  # whose panel has mixed orders
    assert "MC (mixed)" in words(curriculum_figure(paper, tmp_path / "p")[1])
    text = words(tree_figure(results, tmp_path / "t")[1])
    assert "15 stages instead of 33" in text
    assert "one seed, 8 done, 1 of them reused, 1 failed, 1 pruned, 5 dropped" in text
    assert {"failed (×)", "pruned", "dropped below them", "reused"} <= set(text)


def test_tree_has_one_box_for_each_stage(make_study, tmp_path):
    text = words(tree_figure(make_study(seeds=(0, 1)), tmp_path / "t")[1])
    boxes = [t for t in text if re.fullmatch(r"(Relative location|MoCo v2|ODC|no pre-training)  \d\d\.\d", t)]
    assert len(boxes) == 16
    assert "15 stages instead of 33" in text
    assert "balanced accuracy of diagnosis, validation (%), k-NN" in text
    assert not {"reused", "pruned", "failed (×)"} & set(text)


def test_tree_counts(make_study, tmp_path):
    assert "85 stages instead of 225" in words(tree_figure(make_study(tasks=FIVE), tmp_path / "five")[1])
    assert "3 stages" in words(tree_figure(make_study(longest=1), tmp_path / "short")[1])


def test_settings_are_told_where_they_differ(make_study, tmp_path):
    results = make_study(longest=2, settings={"moco_v2": [{"lr": 0.03}, {"lr": 0.1}]})
    text = words(curriculum_figure(results, tmp_path / "c")[1])
    assert "MoCo v2 [lr=0.1] → ODC" in text and "ODC → MoCo v2 [lr=0.03]" in text and "Relative location → ODC" in text
    text = words(tree_figure(results, tmp_path / "t")[1])
    assert "14 stages instead of 24" in text
    assert sum("MoCo v2 [lr=0.1]" in t for t in text) == 3


def test_seeds_that_only_some_have_are_said(make_study, tmp_path):
    results = make_study(seeds=(0, 1), longest=1)
    stages = [s for s in results.stages.to_pylist() if (s["task"], s["seed"]) != ("odc", 1)]
    fewer = Results(results.folder, results.study, results.tables | {"stages": build("stages", stages)})
    assert "1 to 2 seeds, 3 done" in words(tree_figure(fewer, tmp_path / "t")[1])


def test_a_figure_is_a_pdf_too_where_that_is_asked_for(tmp_path):
    from matplotlib.figure import Figure

    assert [p.name for p in save(Figure(figsize=(2, 1)), tmp_path / "a.png")] == ["a.png", "a.svg"]
    files = save(Figure(figsize=(2, 1)), tmp_path / "small.pdf")
    assert [p.suffix for p in files] == [".png", ".svg", ".pdf"] and size(files[0]) == (300, 150)
    assert files[2].read_bytes()[:4] == b"%PDF"
    named = save(Figure(figsize=(2, 1)), tmp_path / "weight_0.5")
    assert [p.name for p in named] == ["weight_0.5.png", "weight_0.5.svg"], "its dot begins no ending"


def test_same_tables_same_svg(make_study, tmp_path):
    results = make_study()
    for draw in (curriculum_figure, tree_figure):
        assert draw(results, tmp_path / "a")[1].read_bytes() == draw(results, tmp_path / "b")[1].read_bytes()


def test_names():
    assert readable("relative_location") == "Relative location" and readable("my_new_task") == "my new task"
    assert chain(Curriculum.parse("odc > my_task"), {"odc": "k=5"}) == "ODC [k=5] → my task"
    assert quantity(Measure("knn", "auc", "mean", "test")) == "AUC, mean over labels, test (%)"


def test_drawing_needs_neither_torch_nor_ray(make_study):
    folder = make_study(study=PUBLISHED).folder
    script = (
        "import sys; from dermsearch.results.pictures.figures import figures; figures(sys.argv[1]);"
        "from dermsearch.results import load;"
        "from dermsearch.results.board.leaderboard import leaderboard, render;"
        "rows = leaderboard(load(sys.argv[1])); render(rows, 'x');"
        "print([m for m in ('torch', 'ray', 'matplotlib.pyplot') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(folder)]
    top = Path(dermsearch.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=top)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_study_that_has_only_its_root_can_be_drawn(make_study, tmp_path):
    results = make_study(tasks=())
    assert "no pre-training" in words(curriculum_figure(results, tmp_path / "c")[1])
    assert "0 stages" in words(tree_figure(results, tmp_path / "t")[1])


def test_without_any_score_by_its_objective_it_says_so(make_study):
    """Of roots alone, where the cases show one class, AUC has no value."""
    results = make_study(tasks=())
    scores = [row | {"value": None} for row in results.scores.to_pylist()]
    write(build("scores", scores), results.folder / "tables" / "scores.arrow")
    with pytest.raises(UserError, match="no encoder has a score by its objective"):
        figures(results.folder)


@pytest.mark.parametrize("failed", [{}, {"odc": "failed", "moco_v2": "pruned"}])
def test_nothing_of_a_tree_stands_over_where_it_came_from(failed, make_study, tmp_path, monkeypatch):
    """The narrowest tree there is, with and without a legend."""
    seen, saved = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *to, **how: (seen.append(figure), saved(figure, *to, **how)))
    study = {"objective": {"protocol": "knn", "metric": "balanced_accuracy", "label": "diagnosis"}, "name": "skin"}
    tasks = ("odc", "moco_v2", "simclr")
    results = make_study(
        tasks=tasks, longest=1 + bool(failed), failed=failed, reused={"simclr"} if failed else (), study=study
    )
    monkeypatch.setattr(Results, "origin", "dermsearch 0.1.0 (0123456789); scores 01234567, and what is as long again")
    tree_figure(results, tmp_path / "tree")
    drawn = seen[0]
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    stamp = next(t for t in drawn.texts if t.get_text().startswith("dermsearch"))
    own = stamp.get_window_extent().padded(4)
    others = [t for t in drawn.findobj(Text) if t is not stamp and t.get_text()]
    assert len(others) > 5 and not [t for t in others if own.overlaps(t.get_window_extent())]
