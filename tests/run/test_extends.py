"""Which changes of a study are more of the same, and what becomes of a results folder that holds something else."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest_search import make_study

from dermsearch.errors import UserError
from dermsearch.results.tables.schema import build, write
from dermsearch.run.extends import differences
from dermsearch.run.folder import check_folder, prepare_folder
from dermsearch.study.config import Study

LARGE = {
    "curriculum__length": [1, 2],
    "curriculum__tasks": {"odc": {"lr": {"choice": [0.1, 0.2]}}, "rotation": {"lr": {"range": [0.1, 0.2]}}, "byol": {}},
    "downstream": {"linear": {"labelled": [20], "repeats": 2}, "knn": {"k": 5}},
    "search": {"seeds": [0, 1], "sampler": "random", "trials": 20, "budget": {"stages": 40, "hours": 2.0}},
}


def changed(**changes: Any) -> Study:
    """The study above with other values at these paths, such as search__seeds; None takes one out."""
    raw = copy.deepcopy(make_study(**LARGE).model_dump(mode="json"))
    for path, value in changes.items():
        *above, last = path.split("__")
        at = raw
        for name in above:
            at = at[name]
        at[last] = value
    return Study.model_validate(raw)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search__seeds": [0, 1, 2]},
        {"curriculum__length": [1, 3]},
        {"curriculum__tasks__dino": {}},
        {"curriculum__tasks__odc": {"lr": {"choice": [0.1, 0.3, 0.2]}}},
        {"curriculum__tasks__rotation": {"lr": {"range": [0.05, 0.2]}}},
        {"curriculum__repeats": True},
        {"downstream__stratified": {}},
        {"downstream__linear": {"labelled": [5, 20], "repeats": 3}, "objective__labelled": 20},
        {"search__trials": None},
        {"search__budget": {"stages": 80, "hours": 1.0}},
        {"search__budget": None},
        {"encoder__name": {"choice": ["resnet18", "resnet10t"]}},
        {"compute__engine": "ray", "compute__store": "elsewhere", "description": "more words", "logging": []},
        {"train__knn_every": 2},
    ],
    ids=str,
)
def test_more_of_the_same_is_free(changes: dict[str, Any]) -> None:
    assert differences(changed().model_dump(mode="json"), changed(**changes).model_dump(mode="json")) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"curriculum__length": [1, 1]}, "curriculum.length: was [1, 2], now [1, 1]"),
        ({"search__seeds": [0, 2]}, "search.seeds: was [0, 1], now [0, 2]"),
        ({"search__sampler": "tpe"}, "search.sampler: was random, now tpe"),
        ({"search__trials": 10}, "search.trials: was 20, now 10"),
        ({"search__budget": {"stages": 30, "hours": 2.0}}, "search.budget.stages: was 40, now 30"),
        ({"train__epochs": 3}, "train.epochs: was 2, now 3"),
        ({"curriculum__tasks__byol": {"lr": 0.1}}, "curriculum.tasks.byol.lr: was nothing, now 0.1"),
        ({"curriculum__tasks__odc": {"lr": {"choice": [0.1]}}}, 'curriculum.tasks.odc.lr: was {"choice": [0.1, 0.2]}'),
        ({"curriculum__tasks__rotation": {"lr": {"range": [0.15, 0.2]}}}, "curriculum.tasks.rotation.lr: was"),
        ({"downstream__knn": {"k": 7}}, "downstream.knn.k: was 5, now 7"),
        ({"downstream__linear": {"labelled": [20], "repeats": 1}}, "downstream.linear.repeats: was 2, now 1"),
        ({"data__size": 64}, "data.size: was 32, now 64"),
        ({"encoder__name": "resnet18"}, "encoder.name: was resnet10t, now resnet18"),
        ({"name": "other"}, "name: was test, now other"),
        ({"objective__metric": "auc"}, "objective.metric: was balanced_accuracy, now auc"),
    ],
    ids=str,
)
def test_anything_else_is_told(changes: dict[str, Any], said: str) -> None:
    found = differences(changed().model_dump(mode="json"), changed(**changes).model_dump(mode="json"))
    assert len(found) == 1 and found[0].startswith(said), found


def test_a_task_fewer_and_another_order_are_told() -> None:
    raw = changed(curriculum__order="listed").model_dump(mode="json")
    turned, fewer = copy.deepcopy(raw), copy.deepcopy(raw)
    turned["curriculum"]["tasks"] = dict(reversed(raw["curriculum"]["tasks"].items()))
    del fewer["curriculum"]["tasks"]["byol"]
    assert any(text.startswith("curriculum.tasks: was") for text in differences(raw, turned))
    assert "curriculum.tasks.byol: was {}, now nothing" in differences(raw, fewer)


def rows(folder: Path, number: int = 1) -> None:
    write(build("stages", [{"key": "k", "curriculum": "odc"}] * number), folder / "tables" / "stages.arrow")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_finished_study_is_not_replaced_by_another(tmp_path: Path) -> None:
    prepare_folder(tmp_path, changed())
    check_folder(tmp_path, changed(train__epochs=3))  # nothing is finished, so nothing is lost
    rows(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(
        UserError, match=r"^--out: '.*' holds the results of another study .*train.epochs: was 2, now 3"
    ):
        check_folder(tmp_path, changed(train__epochs=3))
    check_folder(tmp_path, changed(search__seeds=[0, 1, 2]))
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("section", "value"), [("curriculum", {"length": 3}), ("objective", "knn"), ("curriculum", {})]
)
def test_results_whose_study_was_spoilt_by_hand_are_not_replaced(section: str, value: Any, tmp_path: Path) -> None:
    prepare_folder(tmp_path, changed())
    rows(tmp_path)
    told = yaml.safe_load((tmp_path / "study.yaml").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(told | {section: value}))
    with pytest.raises(UserError, match=r"^--out: '.*/study.yaml' is no study any more, so nobody can tell whose"):
        check_folder(tmp_path, changed())


def test_a_study_of_an_earlier_version_is_completed_before_it_is_compared(tmp_path: Path) -> None:
    prepare_folder(tmp_path, changed())
    rows(tmp_path)
    raw = yaml.safe_load((tmp_path / "study.yaml").read_text())
    del raw["search"]["candidates"], raw["train"]["accumulate"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    check_folder(tmp_path, changed())


KEYS = "AKIA0123456789ABCDEF", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # as long as those of AWS


def test_keys_in_the_address_of_cases_make_no_other_study_and_are_not_told(tmp_path: Path) -> None:
    place = f"s3://{KEYS[0]}:{KEYS[1].replace('/', '%2F')}@bucket/cases"
    sets = {"source": "store", "path": place, "size": 32, "cases": 80, "modalities": ["derm"]}
    study = changed(data=sets)
    prepare_folder(tmp_path, study)
    rows(tmp_path)
    check_folder(tmp_path, study)
    for name, other in {"path": place + "2", "source": "synthetic"}.items():
        with pytest.raises(UserError, match=rf"data\.{name}: was ") as told:
            check_folder(tmp_path, changed(data={**sets, name: other, **({"path": None} if name == "source" else {})}))
        assert not any(part[:8] in str(told.value) for part in (KEYS[0], KEYS[1].replace("/", "%2F")))


def other_things(out: Path) -> None:
    (out / "thesis.tex").write_text("years of work")


def a_link(out: Path) -> None:
    (out / "elsewhere.yaml").write_text("name: mine")
    (out / "study.yaml").symlink_to(out / "elsewhere.yaml")


def linked_figures(out: Path) -> None:
    prepare_folder(out, changed())
    (out / "elsewhere").mkdir()
    (out / "figures").symlink_to(out / "elsewhere")


def a_study_by_hand(out: Path) -> None:
    """What `dermsearch run study.yaml --out .` would write over."""
    written = yaml.safe_dump(changed().model_dump(mode="json"), sort_keys=False)
    (out / "study.yaml").write_text(f"# which rates?\n{written}")


def a_short_study(out: Path) -> None:
    (out / "study.yaml").write_text("name: test\ndata:\n  cases: 80\n")


def scores_alone(out: Path) -> None:
    """As those of encoders that were judged."""
    prepare_folder(out, changed(name="judged"))
    write(build("scores", [{"stage": "k", "curriculum": "odc"}]), out / "tables" / "scores.arrow")


def a_folder_for_the_journal(out: Path) -> None:
    prepare_folder(out, changed())
    (out / "optuna.journal").mkdir()


def a_folder_for_a_table(out: Path) -> None:
    prepare_folder(out, changed())
    (out / "tables" / "stages.arrow").mkdir(parents=True)


def no_text(out: Path) -> None:
    prepare_folder(out, changed())
    (out / "paid.txt").write_bytes(b"\xff\xfe\x00")


def a_file_for_tables(out: Path) -> None:
    prepare_folder(out, changed())
    (out / "tables").write_text("mine")


def deep(out: Path) -> None:
    rows(out)
    (out / "study.yaml").write_text("a: " + "[" * 10_000)


def damaged_study(out: Path) -> None:
    rows(out)
    (out / "study.yaml").write_bytes(b"\x00\xff")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_things, "holds other things (thesis.tex) and no study"),
        (a_link, "study.yaml' is a link"),
        (linked_figures, "figures' is a link, and what it leads to would change"),
        (a_study_by_hand, "study.yaml' would be written over, and no run wrote it; name another folder"),
        (a_short_study, "study.yaml' would be written over"),
        (scores_alone, "holds the results of another study"),
        (a_folder_for_the_journal, "optuna.journal' must be a file"),
        (a_folder_for_a_table, "stages.arrow' must be a file"),
        (no_text, "paid.txt' is not text in UTF-8"),
        (a_file_for_tables, "tables' must be a folder"),
        (deep, "nested more than 20 levels deep"),
        (damaged_study, "study.yaml:1: "),
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(spoil: Any, said: str, tmp_path: Path) -> None:
    spoil(tmp_path)
    before = everything(tmp_path)
    with pytest.raises(UserError) as told:
        check_folder(tmp_path, changed())
    assert said in str(told.value) and "\n" not in str(told.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("where", ["mine.txt", "mine.txt/x", "/proc/x", "/dev/null/x/y"])
def test_a_place_where_no_folder_can_be_made_is_refused_before_anything_begins(where: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"^--out: '.*' cannot be used: (No such file|Not a directory)"):
        check_folder(tmp_path / where, changed())
    check_folder(tmp_path / "new" / "deep", changed())
    assert everything(tmp_path).keys() == {"mine.txt"}


def test_what_a_killed_run_had_begun_to_write_is_no_other_things(tmp_path: Path) -> None:
    begun = tmp_path / ".study.yaml.0123abcd.part"
    begun.write_text("name: cur")
    check_folder(tmp_path, changed())
    table, by_another = (tmp_path / "tables" / f".trials.arrow.{pid}.part" for pid in (1, 2))
    table.parent.mkdir()
    for path in (table, by_another):
        path.write_text("ARR")
    for path in (begun, table):
        os.utime(path, (0, path.stat().st_mtime - 3700))
    prepare_folder(tmp_path, changed())
    assert {path.name for path in tmp_path.rglob("*")} == {"study.yaml", "tables", by_another.name}


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no UTF-8"):
        check_folder(tmp_path / os.fsdecode(b"\xff"), changed())
