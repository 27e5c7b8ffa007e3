"""What the search cost and dropped, which settings mattered, and how all of it reaches a terminal, a file, a figure."""

import csv
import io
import itertools
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dermsearch.cli.results import explain as command
from dermsearch.errors import UserError
from dermsearch.results.drawing import readable
from dermsearch.results.explain.effects import Effect
from dermsearch.results.explain.evidence import gather
from dermsearch.results.explain.explain import explain
from dermsearch.results.explain.importance import Sample, importance
from dermsearch.results.explain.picture import explain_figure
from dermsearch.results.explain.regret import cost_to, progress, walks
from dermsearch.results.explain.text import render, write_csv
from dermsearch.results.tables.measure import choose
from dermsearch.results.tables.schema import Results, build, write


def text(found, width=110):
    console = Console(width=width, file=io.StringIO())
    for part in render(found):
        console.print(part, markup=False)
    return console.file.getvalue()


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table1():
    return explain(gather("aiseeme_table1"))


def test_shared_beginnings_are_trained_once(make_study):
    results = make_study(seeds=(0, 1))
    found = walks(results, choose(results))
    shared, whole = progress(found), progress(found, shared=False)
    assert (shared[-1].stages, whole[-1].stages) == (30, 66)  # 15 and 33 of each seed
    assert (shared[-1].seconds, whole[-1].seconds) == (30 * 60, 66 * 60)
    best = max(step.best for step in shared)
    assert all(a.best <= b.best and a.stages < b.stages for a, b in itertools.pairwise(shared))
    assert cost_to(shared, best).stages < cost_to(whole, best).stages
    assert cost_to(shared, best + 0.01) is None


def test_cost_counts_what_failed_and_nothing_behind_it(make_study):
    results = make_study(failed={"odc": "failed"}, longest=2)
    found = walks(results, choose(results))
    # Nine curricula less the two that grow from odc; the stage of odc itself cost something.
    assert progress(found)[-1].stages == 7
    assert progress(found, shared=False)[-1].stages == 3 + 2 * 4 + 2  # odc is tried again by each that begins with it
    odc = next(walk for walk in found if walk[-1].value is None)
    assert [at.value for at in odc] == [None]


def test_cost_follows_the_order_of_proposals(make_study):
    results = make_study(longest=1, values={"odc": 0.9, "moco_v2": 0.5, "relative_location": 0.6})
    trials = results.trials.to_pylist()
    turned = build("trials", [t | {"trial": -t["trial"]} for t in trials])
    first = Results(results.folder, results.study, results.tables | {"trials": turned})
    best = [progress(walks(r, choose(r)))[0].best for r in (results, first)]
    assert best == pytest.approx([0.6, 0.9])


def test_settings_that_matter_stand_out_from_chance():
    rng = random.Random(0)

    def sample():
        lr, size = 10 ** rng.uniform(-4, 0), rng.choice([8, 16, 32])
        choices = {"length": 1, "moco_v2.lr": lr, "moco_v2.queue": size, "moco_v2.epochs": 5}
        return Sample(choices, 0.7 - abs(lr - 0.01) + rng.gauss(0, 0.01), frozenset({"moco_v2.lr"}))

    found = {e.name: e for e in importance([sample() for _ in range(60)])}
    assert set(found) == {"moco_v2.lr", "moco_v2.queue"}  # what never varied is no choice
    assert found["moco_v2.lr"].p < 0.02 < found["moco_v2.queue"].p
    assert found["moco_v2.lr"].value > 0.8
    assert not importance([sample() for _ in range(9)])


def test_one_of_many_choices_can_be_told():
    """A hundred shuffles could not pass Holm's correction for six choices."""
    rng = random.Random(1)
    names = [f"odc.{letter}" for letter in "abcdef"]
    made = [{name: rng.choice([1, 2, 3]) for name in names} for _ in range(40)]
    found = importance([Sample(choices, choices["odc.a"]) for choices in made])
    assert [e.name for e in found if e.told] == ["odc.a"]
    chance = Effect("setting", "odc.a", "shuffled scores", 0.9, 0.0, 0.3, 60, 0, 0.001, 0.008)
    assert chance.told, "its interval is what chance gives, and chance may give nothing"


def test_too_few_proposals_say_so(make_study):
    settings = {"odc": [{"lr": v} for v in (0.01, 0.1, 1.0)]}
    said = " ".join(text(explain(gather(make_study(tasks=("odc",), longest=1, settings=settings).folder))).split())
    assert "(odc.lr) cannot be told: it takes 10 proposals with a score, and there are 3." in said
    said = text(explain(gather(make_study(tasks=("odc",), longest=1).folder)))
    assert "Which choices" not in said, "nothing was chosen"


def test_a_space_smaller_than_its_trials_leaves_nothing_unfinished(make_study):
    said = text(explain(gather(make_study(study={"search": {"trials": 100}}).folder)))
    assert "Proposals: 15 done." in said


def test_searched_settings_of_a_study(make_study):
    settings = {"odc": [{"lr": v} for v in (0.01, 0.1, 1.0)]}
    study = {"curriculum": {"tasks": {"odc": {"lr": {"log": [0.01, 1.0]}}, "moco_v2": {}}}}
    found = gather(make_study(longest=2, settings=settings, study=study).folder)
    assert {"length", "task 1", "odc.lr"} <= {name for s in found.samples for name in s.choices}
    assert {name for s in found.samples for name in s.log} == {"odc.lr"}
    assert "odc.lr" in text(explain(found))


def test_text_is_aligned_and_says_what_it_cannot_tell(table1):
    said = text(table1)
    assert max(map(len, said.splitlines())) <= 110
    assert all(f"\n\n{title}" in said for title in ("What a task adds", "What its place is worth")), "with room above"
    line = next(line for line in said.splitlines() if line.startswith(" relative_location comes last"))
    assert " ".join(line.split()) == (
        "relative_location comes last another of the same tasks -6.0 [-8.6, -3.3] cannot be told"
    )
    assert said.count("cannot be told") > 20
    assert "allows for all comparisons of its table (Holm)" in " ".join(said.split())
    assert "all proposals 15 33 2.2 x" in " ".join(said.split())
    assert "hours" not in said  # a paper gives no times
    assert "nothing is told; 3 seeds are recommended" in " ".join(said.split())


def test_what_was_dropped_is_listed(make_study):
    results = make_study(failed={"odc": "failed", "moco_v2 > odc": "pruned"}, study={"name": "skin"})
    found = explain(gather(results.folder))
    said = " ".join(text(found).split())
    assert "odc failed the loss is not finite in epoch 3" in said
    assert "moco_v2 > odc pruned" in said and "an earlier stage has no encoder" in said
    assert "odc > moco_v2 dropped odc failed" in said
    assert "minutes without sharing" in said and "hours" not in said, "stages of a minute each"
    assert "Proposals: 8 done, 5 dropped, 1 failed, 1 pruned." in said
    assert "dropped" not in text(explain(gather(make_study().folder)))


def test_several_seeds_are_said(make_study):
    found = explain(gather(make_study(seeds=(0, 1, 2)).folder))
    said = " ".join(text(found).split())
    assert "over curricula, or by luck as seeds tell it, whichever is wider" in said
    assert "that of patients, unpaired" in said and "3 seeds; n = 400 cases;" in said
    assert "nothing is told" not in said
    assert "order, whichever way" in said


def test_lesions_are_not_called_patients(make_study):
    results = make_study(seeds=(0, 1, 2))
    scores = [row | {"groups": "lesions"} for row in results.scores.to_pylist()]
    write(build("scores", scores), results.folder / "tables" / "scores.arrow")
    said = " ".join(text(explain(gather(results.folder))).split())
    assert "that of lesions, unpaired" in said and "patients" not in said


def test_a_long_table_shows_the_clearest(table1):
    effect = table1.places[0]
    many = [replace(effect, name=f"t{i}", p=1 / (i + 1)) for i in range(60)]
    said = text(replace(table1, places=many))
    assert " t59 " in said and " t36 " in said and " t35 " not in said
    assert "the 24 clearest of 60" in " ".join(said.split())


def test_csv_has_every_number(table1, tmp_path):
    path = tmp_path / "deep" / "all.csv"
    write_csv(table1, path)
    found = rows(path)
    assert sum(row["table"] == "curriculum" for row in found) == 15
    assert sum(row["table"] in ("share", "task", "last", "first", "order", "pair") for row in found) == 28
    last = next(row for row in found if row["table"] == "last" and row["name"] == "relative_location")
    effect = next(e for e in table1.places if e.part == "last" and e.name == "relative_location")
    assert float(last["value"]) == pytest.approx(100 * effect.value)
    assert float(last["p"]) == effect.p and (last["p_adjusted"], last["told"]) == ("", "no")  # a paper's one run
    assert last["unit"] == "points"
    regret = [row for row in found if row["table"] == "regret without sharing"]
    assert regret[-1]["stages"] == "33" and float(regret[-1]["value"]) == 0
    assert not [p for p in path.parent.iterdir() if p != path]


def test_figure_says_what_it_shows(table1, tmp_path):
    png, svg = explain_figure(table1, tmp_path / "why.png")
    said = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))
    assert {"AISEEME D4, Table 1", "the last task", "as the last task", readable("moco_v2")} <= set(said)
    assert {"effect on the score (percent points)", "share of the variance between curricula (%)"} <= set(said)
    assert {"stages trained", "behind the best score (percent points)", "15 stages", "33 stages"} <= set(said)
    assert said.count("+6.5") == 1 and said.count("-6.5") == 1  # the matrix, both ways round
    assert png.stat().st_size > 20_000
    assert explain_figure(table1, tmp_path / "again")[1].read_bytes() == svg.read_bytes()


def test_a_figure_of_very_little(make_study, tmp_path):
    for options in ({"longest": 1}, {"tasks": ("odc",), "longest": 1}, {"longest": 2}):
        found = explain(gather(make_study(**options).folder))
        assert explain_figure(found, tmp_path / "little")[0].stat().st_size > 5000
    bare = explain(replace(found.evidence, curricula=found.evidence.curricula[:1], walks=[], samples=[]))
    explain_figure(bare, tmp_path / "bare")
    assert text(bare)


@pytest.mark.slow
def test_the_command_needs_neither_torch_nor_ray(make_study, tmp_path):
    table, figure = tmp_path / "why.csv", tmp_path / "why.svg"
    code = (
        "import sys; from dermsearch.cli.main import app;"
        "app(['explain', *sys.argv[1:]], standalone_mode=False);"
        "assert not {'torch', 'ray'} & set(sys.modules), 'too much was imported'"
    )
    told = [str(make_study().folder), "--csv", str(table), "-o", str(figure)]
    ran = subprocess.run([sys.executable, "-c", code, *told], check=True, capture_output=True, text=True)
    assert "What a task adds" in ran.stdout and str(table) in ran.stdout and not ran.stderr
    assert table.is_file() and figure.is_file() and figure.with_suffix(".png").is_file()


def test_wrong_files(table1, tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(UserError, match=r"--csv: '.*' cannot be written"):
        write_csv(table1, tmp_path / "a file" / "why.csv")
    with pytest.raises(UserError, match=r"--csv: '\.' must be the name of a file"):
        write_csv(table1, ".")
    with pytest.raises(UserError, match=r"'\.': must be the name of a file, such as why\.png"):
        command("aiseeme_table1", figure=Path("."))
    with pytest.raises(UserError, match=r"'.*why\.png' cannot be written"):
        command("aiseeme_table1", figure=tmp_path / "a file" / "why.png")
