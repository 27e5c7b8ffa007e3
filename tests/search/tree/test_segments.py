"""A stage in parts: what is cut and gone on with is the stage itself, to the bit, and what is not needed goes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_search import make_study
from rich.console import Console

from dermsearch.engines import inline
from dermsearch.errors import UserError
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.tables import schema as tables
from dermsearch.run.plan import lines, make_plan
from dermsearch.run.run import Outcome, run_study
from dermsearch.search.space.checks import space_of
from dermsearch.storage.keys import segment_key
from dermsearch.storage.stages import PartialStage, StageStore
from dermsearch.study.config import Study
from dermsearch.upkeep.upkeep import put_away, unneeded, verify
from dermsearch.upkeep.used import used_by
from dermsearch.work import stages as work
from dermsearch.work import worker
from dermsearch.work.job import Job
from dermsearch.work.record import Record

pytestmark = pytest.mark.slow

RATES = [0.02, 0.2]


def small(folder: Path, tasks: dict[str, Any], **changes: Any) -> Study:
    raw: dict[str, Any] = {
        "curriculum": {"tasks": tasks, "length": [1, 1]}, "encoder": {"name": "test_resnet"},
        "downstream": {"knn": {"k": 3}}, "objective": {"protocol": "knn"}, "data": {"cases": 40, "size": 32},
        "train": {"epochs": 4, "batch": 16, "precision": "fp32"},
        "compute": {"engine": "inline", "save_every": 0, "store": str(folder / "store")}, "logging": [],
    }  # fmt: skip
    return make_study(**{**raw, **changes})


def run(study: Study, out: Path) -> Outcome:
    return run_study(study, out, None, Console(file=io.StringIO()))


def selected(folder: Path, **more: Any) -> Study:
    return small(folder, {"simclr": {"lr": {"select": RATES, "epochs": 1, **more}}, "rotation": {}})


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that chose among two rates, its store and its tables."""
    folder = tmp_path_factory.mktemp("chosen")
    outcome = run(selected(folder, by="loss"), folder / "out")
    counts = outcome.summary["stages"]
    assert counts == {"proposed": 2, "trained": 2, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
    assert outcome.summary["budget"]["spent"]["epochs"] == 4 + 4 + 1
    found = load(folder / "out")
    lost = sum(s["seconds"] for s in found.segments.to_pylist() if s["verdict"] == "not chosen")
    seconds = sum(found.stages["seconds"].to_pylist()) + lost
    assert outcome.summary["training_seconds"] == pytest.approx(seconds, abs=0.02)
    return folder


def rate_of(folder: Path) -> float:
    (stage,) = (s for s in load(folder / "out").stages.to_pylist() if s["task"] == "simclr")
    return json.loads(stage["settings"])["train"]["lr"]


def test_the_rate_of_the_lower_loss_goes_on_as_if_nobody_had_asked(chosen: Path, tmp_path: Path) -> None:
    segments = load(chosen / "out").segments.to_pylist()
    assert [(s["until"], s["epochs"], s["status"]) for s in segments] == [(1, 1, "done")] * 2
    best = min(segments, key=lambda s: s["loss"])
    assert {s["key"]: s["verdict"] for s in segments} == {
        s["key"]: "goes on" if s is best else "not chosen" for s in segments
    }
    rate = rate_of(chosen)
    assert rate == json.loads(best["settings"])["train"]["lr"] and rate in RATES
    whole = small(tmp_path, {"simclr": {"lr": rate}, "rotation": {}})
    run(whole, tmp_path / "out")
    one, two = StageStore(str(chosen / "store")), StageStore(str(tmp_path / "store"))
    keys = one.keys()
    assert keys == two.keys() and best["stage"] in keys
    for key in keys:
        ours, theirs = one.artifact(key)["encoders"].state, two.artifact(key)["encoders"].state
        assert ours.keys() == theirs.keys() and all(torch.equal(v, theirs[n]) for n, v in ours.items())
    for mine, other in zip(one.history(best["stage"]), two.history(best["stage"]), strict=True):
        measured = ("seconds", "images_per_second", "peak_memory")
        assert {k: v for k, v in mine.items() if k not in measured} == {
            k: v for k, v in other.items() if k not in measured
        }
    again = run(selected(tmp_path, by="loss"), tmp_path / "again").summary  # the stages are there, the segments not
    assert again["stages"]["reused"] == 2 and again["budget"]["spent"]["epochs"] == len(RATES)
    assert not list(tmp_path.glob("store/partial/*/*")), "from neither anything goes on"


def test_segments_are_in_no_leaderboard_and_the_states_are_gone(chosen: Path) -> None:
    results = load(chosen / "out")
    assert sorted(r.curriculum for r in leaderboard(results) if r.length) == ["rotation", "simclr"]
    assert set(results.scores["stage"].to_pylist()) >= set(results.stages["key"].to_pylist())
    assert not set(results.segments["key"].to_pylist()) & set(results.scores["stage"].to_pylist())
    assert not list((chosen / "store").glob("partial/*/*")) and not verify(StageStore(str(chosen / "store")))


def test_a_second_run_trains_nothing_and_tables_of_before_are_read(chosen: Path) -> None:
    again = run(selected(chosen, by="loss"), chosen / "again").summary
    assert again["stages"]["reused"] == 2 and again["budget"]["spent"]["epochs"] == 0
    assert [s["verdict"] for s in load(chosen / "again").segments.to_pylist()] == [
        s["verdict"] for s in load(chosen / "out").segments.to_pylist()
    ]
    (chosen / "again" / "tables" / "segments.arrow").unlink()  # as a study of an earlier version
    assert load(chosen / "again").segments.num_rows == 0 and leaderboard(load(chosen / "again"))


def test_gc_keeps_segments_of_studies_and_states_that_something_may_go_on_from(chosen: Path) -> None:
    store = StageStore(str(chosen / "store"))
    segments = load(chosen / "out").segments.to_pylist()
    for s in segments:  # as if the run had been killed before it could drop them
        PartialStage(store, s["key"]).save({"history": "[]"})
    waits = segment_key("f" * 32, 1)
    store.commit_segment(waits, {"stage": "f" * 32, "until": 1}, {})
    PartialStage(store, waits).save({"history": "[]"})
    later = 4e9
    best = next(s for s in segments if s["verdict"] == "goes on")
    assert [i.name for i in unneeded(store, None, 1, later)] == [f"partial/{best['key']}"], "its stage is finished"
    used = used_by([chosen / "out"])
    gone = {i.name for i in unneeded(store, used, 1, later)}
    assert {f"segments/{waits}", f"partial/{waits}", *(f"partial/{s['key']}" for s in segments)} <= gone
    assert not any(name.startswith(("stages/", "scores/")) or name[9:] in used.segments for name in gone - {
        f"partial/{s['key']}" for s in segments})  # fmt: skip
    put_away(store, [item for item in unneeded(store, used, 1, later) if item.kind != "case store"])
    assert run(selected(chosen, by="loss"), chosen / "out").summary["stages"]["reused"] == 2


def test_gc_keeps_the_state_of_the_longest_segment_of_what_may_go_on(chosen: Path, tmp_path: Path) -> None:
    """Killed runs leave states behind: of two stages at their rungs, of rates, of one that nobody has decided on."""
    rows = [
        {"key": "a1", "stage": "a", "until": 1, "verdict": "goes on"},
        {"key": "a2", "stage": "a", "until": 2, "verdict": "goes on"},
        {"key": "b1", "stage": "b", "until": 1, "verdict": "goes on"},
        {"key": "b2", "stage": "b", "until": 2, "verdict": "pruned"},
        {"key": "c1", "stage": "c", "until": 1, "verdict": "not chosen"},
        {"key": "d1", "stage": "d", "until": 1, "verdict": ""},
    ]
    rows = [{**row, "key": str(row["key"]) * 16, "stage": str(row["stage"]) * 32} for row in rows]
    shutil.copytree(chosen / "out", tmp_path / "out")
    tables.write(tables.build("segments", rows), tmp_path / "out" / "tables" / "segments.arrow")
    store = StageStore(str(tmp_path / "store"))
    for row in rows:
        store.commit_segment(row["key"], {"stage": row["stage"], "until": row["until"]}, {})
        PartialStage(store, row["key"]).save({"history": "[]"})
    gone = {i.name[:10] for i in unneeded(store, used_by([tmp_path / "out"]), 1, 4e9)}
    assert gone == {"partial/a1", "partial/b1", "partial/b2", "partial/c1"}
    assert unneeded(store, None, 1, 4e9) == [], "without studies nobody can tell"


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many each call of the trainer trained."""
    found: list[int] = []
    train = work.train_stage

    def counted(*given: Any, **named: Any) -> Any:
        before = given[4].load()
        trained = train(*given, **named)
        found.append(len(trained.history) - len(json.loads(before["history"]) if before else []))
        return trained

    monkeypatch.setattr(work, "train_stage", counted)
    return found


def test_killed_between_segments_it_goes_on(tmp_path: Path, epochs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies when a rate was chosen and the rest not begun: no epoch is trained twice."""
    tasks = {"simclr": {"lr": {"select": RATES, "epochs": 2}}}
    study = small(tmp_path, tasks, search={"pruner": "median", "rungs": [3]})
    do = worker.run_job

    def killed(job: Job) -> Record:
        if job.until == 3:
            raise KeyboardInterrupt
        return do(job)

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr("dermsearch.run.run.run_engine", lambda driver, _: inline.run_inline(driver, killed))
        run(study, tmp_path / "out")
    assert epochs == [2, 2]
    outcome = run(study, tmp_path / "out")
    assert epochs == [2, 2, 1, 1], "each segment, the one to the rung, and the rest"
    assert outcome.summary["stages"]["trained"] == 1
    rows = {(s["until"], s["verdict"], s["reused"]) for s in load(tmp_path / "out").segments.to_pylist()}
    assert rows == {(2, "goes on", True), (2, "not chosen", True), (3, "goes on", False)}


def test_a_stage_whose_patience_ends_within_a_segment_is_what_it_would_be_without(
    tmp_path: Path, epochs: list[int]
) -> None:
    settings = {"patience": 1, "epochs": 9, "batch": 6}
    rates = {"select": [1e-9, 1e-8], "epochs": 8}  # nothing is learnt, so it ends when patience does
    run(small(tmp_path / "a", {"rotation": {**settings, "lr": rates}}), tmp_path / "a" / "out")
    (stage,) = load(tmp_path / "a" / "out").stages.to_pylist()
    rate = json.loads(stage["settings"])["train"]["lr"]
    run(small(tmp_path / "b", {"rotation": {**settings, "lr": rate}}), tmp_path / "b" / "out")
    (alone,) = load(tmp_path / "b" / "out").stages.to_pylist()
    assert (stage["key"], stage["epochs"]) == (alone["key"], alone["epochs"]) and alone["epochs"] < 8
    assert len(epochs) == 4 and epochs[2:] == [0, alone["epochs"]], "what has ended is not begun again"
    kept = (StageStore(str(tmp_path / name / "store")).artifact(stage["key"]) for name in "ab")
    one, two = (artifact["encoders"].state for artifact in kept)
    assert all(torch.equal(value, two[name]) for name, value in one.items()) and one.keys() == two.keys()


TASK = "curriculum.tasks.simclr.lr"


@pytest.mark.parametrize(
    ("lr", "told"),
    [
        (
            {"select": [0.1], "epochs": 1},
            f"{TASK}.select: must be two rates or more above 0, up to 1e9, such as",
        ),
        ({"select": [0.1, -1], "epochs": 1}, f"{TASK}.select: must be two rates or more above 0"),
        ({"select": 0.1, "epochs": 1}, f"{TASK}.select: must be two rates or more above 0"),
        ({"select": [0.1, 0.1], "epochs": 1}, f"{TASK}.select: must name each rate once"),
        ({"select": RATES}, f"{TASK}.epochs: is missing: after so many the rates are compared"),
        ({"select": RATES, "epochs": 0.5}, f"{TASK}.epochs: must be a whole number above 0, not 0.5"),
        ({"select": RATES, "epochs": 4}, f"{TASK}.epochs: must be at most 3, for the best to go on, not 4"),
        ({"select": RATES, "epochs": 1, "by": "los"}, f"{TASK}.by: must be probe or loss, not 'los'"),
        ({"select": RATES, "epoch": 1}, f"{TASK}.epoch: unknown field; did you mean 'epochs'"),
        ({"selct": RATES}, f"{TASK}: must be a value, {{choice: [...]}}"),
    ],
)
def test_a_choice_of_rates_that_cannot_be_is_refused_in_words(tmp_path: Path, lr: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        space_of(small(tmp_path, {"simclr": {"lr": lr}}))
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"rungs": [2]}, "rungs: go with a pruner"),
        ({"pruner": "halving", "rungs": [3, 2]}, "must rise from one to the next"),
        ({"pruner": "wilcoxon", "seeds": [0, 1, 2]}, "pruner: wilcoxon compares curricula seed by seed"),
        (
            {"pruner": "halving", "rungs": [2, 9]},
            "rungs: must lie below 4, the longest stage's epochs, not at 9",
        ),
        ({"pruner": "halving", "rungs": [4]}, "search.rungs: must lie below 4, the longest stage's epochs, not at 4"),
    ],
)
def test_a_pruner_that_cannot_be_is_refused_in_words(tmp_path: Path, search: Any, told: str) -> None:
    with pytest.raises((UserError, ValueError)) as error:
        space_of(small(tmp_path, {"simclr": {}}, search=search))
    assert told in str(error.value)


def test_the_plan_tells_of_what_is_chosen_and_pruned(tmp_path: Path) -> None:
    study = selected(tmp_path)
    said = "\n".join(lines(make_plan(study)))
    assert "rates      simclr: the best of 2 goes on after 1 epoch, by probe; 1 choice, 1 epoch for the others" in said
    plain = make_plan(small(tmp_path, {"simclr": {}, "rotation": {}}))
    both = make_plan(study)
    assert both.stages == plain.stages and both.passes > plain.passes
    seeds = {"pruner": "halving", "rungs": [1, 2], "seeds": [0, 1]}
    tasks = {"simclr": {"lr": {"select": [0.1, 0.2, 0.3], "epochs": 1}}, "rotation": {}}
    cut = make_plan(small(tmp_path, tasks, search=seeds, curriculum={"tasks": tasks, "length": [1, 2]}))
    assert cut.stages == 8 and cut.choices == {"simclr": 2}
    assert cut.looks == 2 * (2 * 2 + 2 * 1), "of four stages rotation's two at both, simclr's behind its choice"
    one = make_plan(small(tmp_path, {"simclr": {}})).passes / 4  # of an epoch
    whole = small(tmp_path, {}, curriculum={"tasks": list(tasks), "length": [1, 2]}, search={"seeds": [0, 1]})
    assert cut.passes == pytest.approx(make_plan(whole).passes + 2 * 2 * one)
    told = "\n".join(lines(cut))
    assert "pruner     halving: looks at each stage after 1, 2 epochs and at its end; less may be trained" in told
    assert "simclr: the best of 3 goes on after 1 epoch, by probe; 2 choices, 4 epochs for the others" in told
