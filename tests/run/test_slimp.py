"""SLIMP in studies: what is refused before anything starts, its places in a curriculum, and a second study."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from conftest_search import make_study
from rich.console import Console

from dermsearch.data.case import Case, columns
from dermsearch.data.open import open_cases
from dermsearch.data.prepare.build import write_store
from dermsearch.errors import UserError
from dermsearch.models.artifact import TABLES
from dermsearch.results import load
from dermsearch.run.check import check, check_cases
from dermsearch.run.run import run_study
from dermsearch.search.propose.proposer import Proposer
from dermsearch.search.space.checks import space_of
from dermsearch.search.tree.judges import draws
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.load import load_study

CONSOLE = Console(file=io.StringIO())
METADATA = ["age", "sex", "skin_type", "site", "elevation"]
DATA = {"cases": 60, "size": 32, "metadata": METADATA}


def study(tasks: dict[str, Any], **changes: Any) -> Study:
    given = {
        "curriculum": {"tasks": tasks, "length": [1, 1]}, "data": DATA, "encoder": {"name": "test_resnet"},
        "downstream": {"knn": {"k": 3}}, "objective": {"protocol": "knn"}, "train__epochs": 1,
    }  # fmt: skip
    return make_study(**{**given, **changes})


SMALL = {"lesions": 4, "width": 16, "out": 16}


@pytest.mark.parametrize("task, changes, said", [
    ({}, {}, ""),
    ({}, {"data": {**DATA, "metadata": []}}, "data.metadata: names no columns of the lesion, which slimp contr"),
    ({}, {"data": {**DATA, "metadata": ["site"]}}, "data.metadata: names no columns of the patient, such as age"),
    ({"weight": 1.0}, {"data": {**DATA, "metadata": ["site"]}}, ""),
    ({}, {"data": {**DATA, "metadata": ["sites"]}}, "data.metadata: 'sites' is no metadata of built-in cases; did you"),
    ({"lesions": 16}, {}, "curriculum.tasks.slimp.lesions: must be at most 8, so that a batch of 16 cases holds two"),
    ({"lesions": 3}, {}, "curriculum.tasks.slimp.lesions: must divide the 16 cases of a batch, not 3"),
    ({"weight": {"choice": [0.5, 2.0]}}, {}, "curriculum.tasks.slimp.weight: "),
    ({"lesions": {"choice": [4, 5]}}, {}, "curriculum.tasks.slimp.lesions: must divide"),
    ({"positive": "diagnosis=X"}, {}, "curriculum.tasks.slimp.positive: 'X' is no class of 'diagnosis'; choose"),
    ({"frozen": "attention"}, {}, "encoder.name: must be a ViT for slimp with frozen: attention"),
    ({}, {"data": {**DATA, "modalities": ["derm", "clinic"]}}, "encoder.branches: must be separate for slimp"),
    ({}, {"data": {**DATA, "modalities": ["derm", "clinic"]},
          "encoder": {"name": "test_resnet", "branches": "separate"}}, ""),
    ({"positive": "diagnosis=MEL"}, {"data": {**DATA, "transductive": True}}, "curriculum.tasks.slimp: goes with data"),
    ({}, {"data": {**DATA, "metadata": []}, "downstream": {"knn": {"k": 3, "features": "full"}},
          "curriculum": {"tasks": {"rotation": {}}, "length": [1, 1]}},
     "downstream.knn: reads metadata, and data.metadata names no columns"),
    ({}, {"downstream": {"knn": {"k": 3, "features": "tables"}}}, "downstream.knn.features: "),
])  # fmt: skip
def test_what_a_study_may_ask_for(task: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    tasks = {"slimp": {**SMALL, **task}}
    if not said:
        check(study(tasks, **changes))
        return
    with pytest.raises(UserError) as error:
        check(study(tasks, **changes))
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def stored(folder: Path, patients: int, **told: Any) -> Study:
    """A study of a store of so many patients; columns are as the last case tells them."""
    import numpy as np

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 32, 32, 3), np.uint8)
    given: dict[str, list[Any]] = {
        "age": list(range(64)),
        "site": ["arm", "leg"] * 32,
        "size": [float(i) for i in range(64)],
    }
    given |= {name: [value] * 64 for name, value in told.items()}
    cases = [
        Case(f"c{i}", f"l{i}", f"p{i % patients}" if patients else "", {"derm": pixels[i]}, {"diagnosis": i // 8 % 2},
             {name: values[i] for name, values in given.items()})
        for i in range(64)
    ]  # fmt: skip
    split = {c.case: "val" if i // 8 % 4 == 0 else "train" for i, c in enumerate(cases)}
    declared = (*columns("patient", ["age"]), *columns("lesion", ["size"], ["site"]))
    about = {"denied": {"biopsed": "it follows from the diagnosis"}}
    write_store(folder, cases, split, {"diagnosis": ("a", "b")}, {"source": "test"}, declared, about)
    names = ["age", "size", "site"]
    return study({"slimp": SMALL}, data={"source": "store", "path": str(folder), "size": 32, "metadata": names})


@pytest.mark.parametrize("patients, told, weight, said", [
    (8, {}, 0.5, ""),
    (0, {}, 0.5, "curriculum.tasks.slimp.weight: must be 1, not 0.5: the cases' patients are not known"),
    (0, {}, 1.0, ""),
    (1, {}, 0.5, "curriculum.tasks.slimp.weight: must be 1, not 0.5: all training cases are of one patient"),
    (8, {"size": 3.0}, 0.5, "data.metadata: 'size' is the same in all training cases of the store at "),
    (8, {"site": "arm"}, 0.5, "data.metadata: 'site' is the same in all training cases of the store at "),
    (8, {"size": None}, 0.5, "data.metadata: 'size' is not known in any training cases of the store at "),
])  # fmt: skip
def test_what_a_store_can_give(tmp_path: Path, patients: int, told: dict[str, Any], weight: float, said: str) -> None:
    one = stored(tmp_path / "cases", patients, **told)
    tasks = {"slimp": {**SMALL, "weight": weight}}
    one = one.model_copy(update={"curriculum": one.curriculum.model_copy(update={"tasks": tasks})})
    cases = open_cases(one.main, tmp_path)
    if not said:
        check_cases(one, check(one), {"data": cases})
        return
    with pytest.raises(UserError) as error:
        check_cases(one, check(one), {"data": cases})
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("patients, names, task, said", [
    (8, ["age", "size", "biopsed"], {}, "data.metadata: 'biopsed' is no input: it follows from the diagnosis"),
    (8, ["age", "sizes"], {}, "data.metadata: 'sizes' is no metadata of .*; did you mean 'size'"),
    (8, ["age", "size", "patient"], {}, "data.metadata: 'patient' is no metadata of "),
    (8, ["age", "size"], {"columns": "age, site"}, "curriculum.tasks.slimp.columns: 'site' is not named in data.metad"),
    (8, ["age", "size"], {"columns": {"choice": ["age,size", "size"]}},
     "curriculum.tasks.slimp.columns: names no columns of the patient, such as age"),
    (0, ["age", "size"], {}, "curriculum.tasks.slimp.weight: must be 1, not 0.5: the cases' patients are not known"),
    (1, ["age", "size"], {}, "curriculum.tasks.slimp.weight: must be 1, not 0.5: all training cases are of one"),
    (8, ["age", "size"], {"lesions": 16}, "curriculum.tasks.slimp.lesions: must be at most 8, so that a batch of 16 "),
])  # fmt: skip
def test_what_is_refused_starts_nothing(
    tmp_path: Path, patients: int, names: list[str], task: dict[str, Any], said: str
) -> None:
    """One sentence, and no folder of stages or of results; a table of another store: work/test_borrow."""
    one = stored(tmp_path / "cases", patients, biopsed="yes")
    changed = {
        "data": {**one.main.model_dump(mode="json", exclude_unset=True), "metadata": names},
        "compute": {"engine": "inline", "store": str(tmp_path / "store")},
    }
    bad = study({"slimp": {**SMALL, **task}}, **changed)
    with pytest.raises(UserError, match=f"^{said}") as error:
        run_study(bad, tmp_path / "out", None, CONSOLE)
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cases"]


@pytest.mark.parametrize("sampler_seed", range(4))
@pytest.mark.parametrize("slimp_is_best", [True, False])
def test_the_shipped_search_has_its_baselines_whatever_they_come_to(sampler_seed: int, slimp_is_best: bool) -> None:
    """SimCLR and MoCo v2 are proposed beside the 72 settings of slimp, though the sampler learns where to look."""
    shipped = load_study("slimp", [f"search.sampler_seed={sampler_seed}"])
    proposer, found, waiting = Proposer(space_of(shipped), shipped.search, None), [], []
    while waiting := [*waiting, *proposer.ask()]:
        asked = waiting.pop(0)
        (task,) = asked.proposal.curriculum.tasks
        found.append(task)
        proposer.tell(asked, [0.5 + 0.4 * ((task == "slimp") == slimp_is_best) + 0.001 * len(found)])
    assert len(found) == shipped.search.trials and {"simclr", "moco_v2"} < {*found[:8]}


def test_columns_are_a_dimension_of_the_search() -> None:
    choice = {"choice": ["age, site", "all"]}
    space = space_of(study({"slimp": {**SMALL, "columns": choice}}))
    told = [space.settings("slimp", p.settings) for p in space.every()]
    assert [s["config"].get("columns") for s in told] == ["age, site", None]  # what all read is in no key


def test_one_that_reads_labels_comes_last() -> None:
    both = {"curriculum": {"length": [1, 2]}}
    for own, expected in (
        ({}, {("slimp", "rotation"), ("rotation", "slimp")}),
        ({"positive": None}, {("slimp", "rotation"), ("rotation", "slimp")}),
        ({"positive": "diagnosis=MEL"}, {("rotation", "slimp")}),
        ({"positive": {"choice": ["diagnosis=MEL", "diagnosis=NEV"]}}, {("rotation", "slimp")}),
    ):
        curriculum = {"tasks": {"slimp": {**SMALL, **own}, "rotation": {}}, **both["curriculum"]}
        space = space_of(make_study(curriculum=curriculum, data=DATA))
        assert {c.tasks for c in space.curricula() if len(c.tasks) == 2} == expected


def test_columns_are_in_the_judgement_of_what_reads_them_and_of_nothing_else() -> None:
    kinds = ["image", "lesion", "full", "table", "mask"]
    one = study({"slimp": SMALL}, downstream={"knn": {"k": 3}, "linear": {}})
    for kind in kinds:
        told = study({"slimp": SMALL}, downstream={"knn": {"k": 3, "features": kind}})
        (judge,) = draws(told.entries["knn"], told, "val", {})
        assert judge.metadata == (() if kind == "image" else tuple(METADATA))
        assert ("features" in judge.config) == (kind != "image")
    assert all(not judge.metadata for entry in one.entries.values() for judge in draws(entry, one, "val", {}))


@pytest.mark.slow
def test_it_comes_second_and_third_and_a_second_study_goes_on(tmp_path: Path) -> None:
    """Behind other tasks, and from a stage of another store, whose columns are taken over by name."""
    compute = {"engine": "inline", "store": str(tmp_path / "store")}
    tasks: dict[str, Any] = {"moco_v2": {"queue": 32, "out": 16}, "rotation": {}, "slimp": SMALL}
    downstream = {
        "knn": {"k": 3},
        "linear": {"features": "full", "c": 1.0},
        "linear@other": {"features": "mask", "c": 1.0},
    }
    first = study(
        tasks, compute=compute, downstream=downstream, data={"main": DATA, "other": {**DATA, "seed": 1}},
        curriculum={"tasks": tasks, "length": [2, 3], "order": "listed"},
    )  # fmt: skip
    outcome = run_study(first, tmp_path / "one", None, CONSOLE)
    assert not outcome.failed and outcome.summary["stages"]["trained"] == 6
    table = load(tmp_path / "one").pandas("stages")
    ends = table[table.curriculum.str.endswith("slimp")]
    assert sorted(ends.curriculum) == ["moco_v2 > rotation > slimp", "moco_v2 > slimp", "rotation > slimp"]
    store = StageStore(compute["store"])
    key = ends.key[ends.depth == 3].iloc[0]
    before = store.artifact(key)[TABLES]
    assert all({"inner_above", "outer_floor"} <= row["parts"].keys() for row in store.history(key))
    scores = load(tmp_path / "one").pandas("scores")
    assert set(scores.protocol) == {"knn", "linear"}
    again = stored(tmp_path / "cases", 8)
    second = again.model_copy(
        update={
            "curriculum": again.curriculum.model_copy(update={"tasks": {"slimp": {**SMALL, "frozen": "blocks"}}}),
            "encoder": type(again.encoder).model_validate(
                {"name": "test_resnet", "weights": {"store": compute["store"], "key": key}}
            ),
            "compute": type(again.compute).model_validate(compute),
        }
    )
    outcome = run_study(second, tmp_path / "two", None, CONSOLE)
    assert not outcome.failed and outcome.summary["stages"]["trained"] == 1
    (last,) = load(tmp_path / "two").pandas("stages").query("depth == 1").key
    after = store.artifact(last)[TABLES]
    assert [c["name"] for c in after.config["levels"]["lesion"]["columns"]] == ["size", "site"]
    for name, weights in before.state.items():
        if name.startswith("levels.") and ".blocks." in name:
            assert (weights == after.state[name]).all(), name  # frozen, and not drawn anew


@pytest.mark.slow
def test_the_study_of_real_lesions_reads_them_in_four_ways(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """slimp_ham10000 on built-in cases, and what `benchmarks/readings.py` prints of it: the tables' own numbers."""
    from benchmarks.readings import main, readings

    small = [f"data.{n}.{told}" for n in ("image", "full", "table", "mask")
             for told in ("source=synthetic", "path=null", "cases=120", "size=32")]  # fmt: skip
    small += ["encoder.name=test_resnet", "train.epochs=1", "train.batch=16", "search.seeds=[0, 1]"]
    shipped = load_study("slimp_ham10000", [*small, "objective.label=mean", f"compute.store={tmp_path / 'store'}"])
    said = io.StringIO()
    assert not run_study(shipped, tmp_path / "out", None, Console(file=said)).failed
    assert said.getvalue().count("120 cases from ") == 1, "the four are of one store"
    results = load(tmp_path / "out")
    found = readings(results, "linear", "balanced_accuracy", "mean")
    assert {*found} == {"no pre-training", "slimp"}
    assert all({*own} == {"image", "full", "table", "mask"} for own in found.values())
    scores = results.pandas("scores").query("protocol == 'linear' and label == 'mean' and `class` == ''")
    for row in scores[scores.metric == "balanced_accuracy"].itertuples():
        own = found[row.curriculum][row.data][row.seed, 0]
        assert own[0] == pytest.approx(row.value) and own[1:].min() < own[0] < own[1:].max()
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["readings.py", str(tmp_path / "out")])
        main()
    said = capsys.readouterr().out.splitlines()
    n = int(results.pandas("scores").query("protocol == 'own_table'").n.max())
    assert any("slimp, acc_at_5: " in line and f"of {n}, chance {500 / n:.2f}" in line for line in said)
    values = {n: 50 * sum(v[0] for v in of.values()) for n, of in found["slimp"].items()}  # of two seeds
    best, other = sorted(values, key=lambda n: -values[n])[:2]
    above = next(line for line in said[said.index("slimp, 2 seeds") :] if f"{best} above {other}" in line).split()
    assert float(above[3]) == pytest.approx(values[best] - values[other], abs=0.051)
    assert not any("table above no pre-training" in line for line in said)  # no image is in it
