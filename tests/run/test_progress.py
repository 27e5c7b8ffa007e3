"""What a run says while it works: names that tell variants apart, lines on long stages, every traceback."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from conftest_search import Bench, make_study
from rich.console import Console

from dermsearch.engines.inline import run_inline
from dermsearch.results.tables.lineages import rounded
from dermsearch.run import progress
from dermsearch.run.naming import named
from dermsearch.run.progress import Progress
from dermsearch.run.record import Recorder
from dermsearch.search.tree.driver import Driver
from dermsearch.work.job import Job

SEARCHED = {"odc": {"clusters": 4, "lr": {"choice": [0.0123456, 0.1]}}, "moco_v2": {"queue": 64}}


def heard(driver: Driver) -> tuple[Progress, io.StringIO]:
    """A progress of that driver that prints no matter where."""
    out = io.StringIO()
    return Progress(Console(file=out, width=200, markup=False), driver, [], lambda: None), out


def test_variants_and_seeds_have_names_of_their_own(bench: Bench) -> None:
    study = make_study(curriculum__tasks=SEARCHED, curriculum__length=[1, 2], search__seeds=[0, 1])
    driver = bench.driver(study)
    _, out = heard(driver)
    run_inline(driver, bench.work(driver))
    names = [named(n, driver.space, study.search.seeds) for n in driver.tree.stages()]
    assert len(set(names)) == len(names) > 8
    assert "odc (lr 0.0123) > moco_v2, seed 1" in names and "moco_v2 > odc (lr 0.1), seed 0" in names
    assert all(f"  {name} " in out.getvalue() for name in names)


def test_variants_are_told_apart_in_the_live_tree_too(bench: Bench) -> None:
    driver = bench.driver(make_study(curriculum__tasks=SEARCHED, curriculum__length=[1, 2]))
    shown, _ = heard(driver)
    run_inline(driver, bench.work(driver))
    labels = {shown._label(node).plain.partition("  ")[0].split(" ", 1)[1] for node in driver.tree.stages()}
    assert labels >= {"odc (lr 0.0123)", "odc (lr 0.1)", "moco_v2"}


def test_the_live_tree_says_which_is_the_best_so_far(bench: Bench) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 2]))
    shown, _ = heard(driver)
    shown.console.height = 40

    def picture() -> str:
        with shown.console.capture() as caught:
            shown.console.print(shown._picture(list(driver.tree.nodes.values())))
        return caught.get()

    assert "best so far" not in picture()
    run_inline(driver, bench.work(driver))
    best = max((n for n in driver.tree.stages() if n.value is not None), key=lambda n: n.value or 0.0)
    assert f"; best so far: {best.curriculum}, {100 * (best.value or 0.0):.1f} %" in picture()


def test_a_fit_under_way_stands_below_its_stage(bench: Bench) -> None:
    """With its epochs; once it is done its stage alone is left, with its score."""
    fits: dict[str, Any] = {"downstream": {"finetune": {"epochs": 4}}, "objective": {"protocol": "finetune"}}
    driver = bench.driver(make_study(curriculum__length=[1, 1], curriculum__tasks={"odc": {"clusters": 4}}, **fits))
    shown, _ = heard(driver)
    shown.console.height = 40
    work = bench.work(driver)

    def picture() -> str:
        with shown.console.capture() as caught:
            shown.console.print(shown._picture(list(driver.tree.nodes.values())))
        return caught.get()

    seen = []
    while isinstance(job := driver.next_job(), Job):
        if job.kind == "fit":
            driver.store.write_progress(job.key, [{"epoch": 1, "loss": 2.0, "embedding_std": 0.9, "parts": {}}])
            shown._look()
            seen.append(picture().splitlines())
            assert any(
                told.endswith("odc, finetune, epoch 1/4, loss 2, spread 0.90") for told in shown.under_way()
            ) == (job.curriculum == "odc")
        driver.done(work(job))
    of_root, of_stage = seen
    assert of_root[0].startswith("test  1 of 3 stages and fits, ") and of_stage[0].startswith("test  2 of 3 stages")
    assert of_root[2] == "├── ● finetune  epoch 1/4, loss 2, spread 0.90"
    assert of_stage[3] == "    └── ● finetune  epoch 1/4, loss 2, spread 0.90"
    assert "finetune" not in picture() and "3.0 %" in picture()


def test_what_nobody_searches_is_not_in_a_name(bench: Bench) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 2]))
    run_inline(driver, bench.work(driver))
    assert {named(n, driver.space, [0]) for n in driver.tree.stages()} >= {"odc", "odc > moco_v2"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.4914473368931056, 0.1], ["0.491", "0.1"]),
        ([0.49144, 0.49139], ["0.49144", "0.49139"]),
        ([8, "a"], ["8", "a"]),
    ],
)
def test_numbers_are_as_short_as_tells_them_apart(values: list[Any], told: list[str]) -> None:
    assert [rounded(values)[repr(value)] for value in values] == told


def test_a_long_stage_says_a_line_a_minute_where_there_is_no_terminal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 1], train__epochs=100))
    shown, out = heard(driver)
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    next_jobs = [driver.next_job(), driver.next_job()]  # the root and a stage
    node = next(n for n in driver.tree.running() if n.task)
    assert len(next_jobs) == 2
    rows = [
        {"epoch": e, "loss": 5.0 - e / 100, "embedding_std": 0.9, "parts": {}, "seconds": 1.0} for e in range(1, 101)
    ]
    for epochs, seconds in ((1, 10), (3, 40), (4, 71), (5, 72), (5, 300), (9, 301), (100, 400), (100, 470), (100, 540)):
        clock[0] = 1000.0 + seconds
        driver.store.write_progress(node.key, rows[:epochs])
        shown._look()
    said = [" ".join(line.split("]")[1].split()[1:]) for line in out.getvalue().splitlines()]
    others = "about 0:26 left"  # of those that wait, whose views cost less
    assert [line for line in said if line.startswith(node.task)] == [
        f"{node.task} epoch 4/100, loss 4.96, spread 0.90 about 1:36 left",  # of a second an epoch, though none is done
        f"{node.task} epoch 5/100, loss 4.95, spread 0.90 about 1:35 left",
        f"{node.task} epoch 100/100, loss 4, spread 0.90 {others}",
        f"{node.task} judging, for 1:10 {others}",
        f"{node.task} judging, for 2:20 {others}",
    ]


def test_of_many_short_fits_one_a_minute_is_spoken_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: dict[str, Any] = {"labelled": [5], "repeats": 9, "epochs": 4}
    driver = bench.driver(make_study(downstream={"finetune": fits}, objective={"protocol": "finetune"}))
    shown, out = heard(driver)
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    work, fitted = bench.work(driver), 0
    while fitted < 9 and isinstance(job := driver.next_job(), Job):  # those of the root
        shown._look()
        clock[0] += 25.0 * (job.kind == "fit")
        fitted += job.kind == "fit"
        driver.done(work(job))
    lines = [line for line in out.getvalue().splitlines() if ", finetune from 5, draw " in line]
    assert len(lines) == 2 and all("epoch 0/4" in line for line in lines)


def test_a_stage_that_is_only_to_be_judged_is_not_at_its_first_epoch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 1]))
    run_inline(driver, bench.work(driver))
    again = bench.driver(make_study(curriculum__length=[1, 1], downstream={"knn": {"k": 7}, "linear": {}}))
    shown, out = heard(again)
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    again.next_job(), again.next_job()
    node = next(n for n in again.tree.running() if n.task)
    rows = [{"epoch": e, "loss": 5.0, "embedding_std": 0.9, "parts": {}, "seconds": 1.0} for e in range(1, 11)]
    monkeypatch.setattr(again.store, "history", lambda key: rows[: node.epochs])
    for seconds in (0, 70, 140):
        clock[0] = 1000.0 + seconds
        shown._look()
    lines = [line for line in out.getvalue().splitlines() if f"  {node.task} " in line]
    assert f"epoch {node.epochs}/{node.epochs}" in lines[0] and "judging, for" in lines[1]


def test_what_a_kill_left_of_a_stage_hides_no_epoch_of_any(bench: Bench) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 1]))
    for name in ("odc", "moco_v2"):  # the first is there, and its manifest is not
        driver.window.move()
        (node,) = (n for n in driver.tree.stages() if n.task == name)
        driver.store.write_progress(node.key, [{"epoch": 1, "loss": 1.0}])
        driver.tree.begin(node)
    killed = next(n for n in driver.tree.stages() if n.task == "odc")
    driver.store.write(f"stages/{killed.key}/encoders.safetensors", b"half")
    driver.look_up.there.add(killed.key)  # as it was when another run's commit was under way
    shown, _ = heard(driver)
    shown._look()
    assert sorted(shown.epochs.values()) == [1, 1]


def test_two_that_tell_of_the_store_tell_each_thing_once(bench: Bench) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 1]))
    shown, out = heard(driver)

    class Shared(list[str]):
        """Of which another thread takes the last one between a look and a grasp."""

        def __bool__(self) -> bool:
            there = len(self) > 0
            self.clear()
            return there

    driver.store.notes = Shared(["a thing"])
    shown._tell_of_store()
    shown._tell_of_store()
    assert out.getvalue().count("a thing") == 1


def test_every_traceback_of_a_node_is_kept(bench: Bench) -> None:
    driver = bench.driver(make_study(curriculum__length=[1, 1]))
    run_inline(driver, bench.work(driver))
    recorder, node = Recorder(driver, bench.folder / "out"), driver.tree.stages()[0]
    for judge, text in ((", knn", "Traceback: one"), (", linear", "Traceback: two"), ("", "Traceback: two"), ("", "")):
        recorder._tell_of_bug(node, text, judge)
    (path,) = (bench.folder / "out" / "errors").iterdir()
    assert "knn\n\nTraceback: one" in path.read_text() and "linear\n\nTraceback: two" in path.read_text()


def test_a_writing_error_at_the_end_hides_nothing(bench: Bench) -> None:
    from dermsearch.run.run import written

    class Full:
        def write(self) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(KeyboardInterrupt), written(Full()):  # type: ignore[arg-type]
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="No space"), written(Full()):  # type: ignore[arg-type]
        pass


def test_before_a_stage_is_asked_for_none_is_counted(bench: Bench) -> None:
    """A root that is being judged is no stage; in a study without tasks it is what there is to do."""
    driver = bench.driver(make_study(curriculum__length=[1, 1]))
    shown, _ = heard(driver)
    assert shown.under_way()[0] == "no stage is asked for yet" and shown._counts() == (0, 0)
    run_inline(driver, bench.work(driver))
    assert re.fullmatch(r"(\d+) of \1 stages", shown.under_way()[0])
    alone = bench.driver(make_study(curriculum={"tasks": {}, "length": [0, 0]}, search__sampler="grid"))
    shown, _ = heard(alone)
    run_inline(alone, bench.work(alone))
    assert shown.under_way()[0] == "1 of 1 stage"


TWO = {"odc": {"clusters": 4}, "moco_v2": {"queue": 64}}
RATES = {"odc": {"clusters": 4, "lr": {"select": [0.01, 0.1], "epochs": 1}}}
BOTH = {**RATES, "moco_v2": {"queue": 64}}
PRIOR = {"search__sampler": "curriculum_prior", "search__lag": 1}


@pytest.mark.parametrize(
    ("study", "open_", "closed"),
    [
        ({"curriculum__tasks": TWO, "curriculum__length": [1, 2], "search__sampler": "grid"}, [], [4]),
        ({"curriculum__tasks": RATES, "curriculum__length": [1, 1], "search__sampler": "grid"}, [2], [3]),
        ({"curriculum__tasks": BOTH, "curriculum__length": [1, 2], "search__sampler": "grid"}, [2, 4, 6], [8]),
        ({**PRIOR, "curriculum__tasks": TWO, "curriculum__length": [1, 2], "search__trials": 3}, [2], [3]),
        (
            {
                "curriculum__tasks": TWO,
                "curriculum__length": [1, 1],
                "search__seeds": [0, 1],
                "search__replicates": "leaders",
                "search__sampler": "grid",
            },
            [2, 4],
            [],
        ),
    ],
)
def test_what_may_still_be_added_to_is_said_to_be(
    bench: Bench, study: dict[str, Any], open_: list[int], closed: list[int]
) -> None:
    """By a choice of rates, a search, or further seeds; a grid is asked for as a whole."""
    driver = bench.driver(make_study(**study))
    shown, out = heard(driver)
    shown._left = lambda: 60.0  # type: ignore[method-assign]
    run_inline(driver, bench.work(driver))
    told = re.findall(r"^\[ *\d+/(\d+)(\+?)\] .*  (?:odc|moco_v2)", out.getvalue(), re.MULTILINE)
    assert sorted({int(n) for n, more in told if more}) == open_
    assert sorted({int(n) for n, more in told if not more}) == closed
    estimates = [line for line in out.getvalue().splitlines() if "about" in line]
    assert estimates and all(line.endswith(" for these") == ("+]" in line) for line in estimates)
