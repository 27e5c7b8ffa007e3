"""A study with all that one may hold: two data sets, fits from few labels in several draws, several roots."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e.tiny import run
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.interrupted import kill_all, start
from dermsearch.models.encoders import backbone
from dermsearch.results import load

STUDY = [
    "data={a: {cases: 60, size: 32}, b: {cases: 50, size: 32, seed: 3}}",
    "curriculum.tasks={moco_v2: {queue: 32}}",
    "curriculum.length=[1,1]",
    "train.batch=16",
    "train.epochs=2",
    "compute.save_every=0",
    "encoder.name=test_resnet",
    "downstream={linear@a: {c: 0.1}, finetune@b: {labelled: [2, 4], repeats: 3, epochs: 2, lr: 0.001}}",
    "objective={protocol: finetune@b, labelled: 4, metric: auc, label: mean}",
]
TABLES = ("trials", "stages", "epochs", "scores", "confusions", "judgements")
OF_THE_RUN = {"seconds", "images_per_second", "peak_memory", "reused", "device", "node", "workers", "commit"} | {
    "process",
    "began",
    "ended",
    "libraries",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The study, with a file of weights for one of its roots."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "given.safetensors"
    save_file(backbone("test_resnet").state_dict(), path)
    return [*STUDY, f"encoder.weights={{choice: [null, {path}]}}"]


@pytest.fixture(scope="module")
def inline(study: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run in this process's kind of peace."""
    folder = tmp_path_factory.mktemp("inline")
    run(folder, *study, "compute.engine=inline")
    return folder


def tables(folder: Path) -> dict[str, list[Any]]:
    """All rows of a run, without what a run of the same study may differ in."""
    results = load(folder / "out")
    rows = {name: getattr(results, name).to_pylist() for name in TABLES}
    return {
        name: sorted(str([v for k, v in row.items() if k not in OF_THE_RUN]) for row in each)
        for name, each in rows.items()
    }


def test_everything_is_there(inline: Path) -> None:
    results = load(inline / "out")
    stages = results.pandas("stages")
    assert sorted(stages.groupby(["kind", "root"]).size().items()) == [
        (("fit", "given.safetensors"), 12),  # of the root and of the stage: two numbers of labels, three draws
        (("fit", "random"), 12),
        (("pretext", "given.safetensors"), 1),
        (("pretext", "random"), 1),
    ]
    judged = results.pandas("judgements")
    assert set(judged.status) == {"done"} and len(judged) == 4 * (1 + 6)
    fitted = judged[judged.protocol == "finetune"]
    assert set(fitted.data) == {"b"} and set(fitted.labelled) == {"2", "4"} and set(fitted.draw) == {0, 1, 2}
    trials = results.pandas("trials")
    assert set(trials.root) == {"random", "given.safetensors"} and set(trials.status) == {"done"}
    scores = results.pandas("scores")
    wanted = scores[(scores.protocol == "finetune") & (scores.labelled == "4") & (scores.metric == "auc")]
    mine = wanted[(wanted.label == "mean") & (wanted["class"] == "") & (wanted.curriculum == "moco_v2")]
    for trial in trials.itertuples():
        assert trial.value == pytest.approx(mine[mine.root == trial.root].value.mean())
    assert wanted.groupby(["root", "curriculum", "draw"]).value.first().nunique() > 3, "draws differ"


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.long)])
def test_killed_in_a_stage_and_in_a_fit_it_goes_on(engine: str, study: list[str], inline: Path, tmp_path: Path) -> None:
    long = [*study, f"compute.engine={engine}"]
    task = {row["key"]: row["task"] for row in load(inline / "out").stages.to_pylist()}  # a study's keys are its own

    def under_way() -> set[str]:
        """Tasks and fits that have a state in the store, and no end."""
        return {task.get(state.parent.name, "") for state in (tmp_path / "store" / "partial").glob("*/state.pt")}

    for kind in ("moco_v2", "finetune"):
        for _ in range(5):
            mark = uuid.uuid4().hex
            going = start("curriculum_three.yaml", long, tmp_path, mark)
            try:
                until = time.monotonic() + 400
                while kind not in under_way() and going.poll() is None:
                    assert time.monotonic() < until
                    time.sleep(0.002)
                going.kill()
            finally:
                kill_all(mark)
            if kind in under_way():
                break
            shutil.rmtree(tmp_path / "store")  # the machine stood still until it was over: once more
        assert kind in under_way(), "a stage of that kind was under way"
    run(tmp_path, *long)
    assert tables(tmp_path) == tables(inline)
    again, _ = run(tmp_path, *long)
    assert again["stages"]["trained"] == 0 and tables(tmp_path) == tables(inline)


def test_a_judgement_that_fails_hides_no_other(tmp_path: Path) -> None:
    study = [
        *STUDY,
        "downstream={knn@a: {}, finetune@b: {epochs: 3, lr: 10.0, weight_decay: 100.0, labelled: 4}}",
        "objective.labelled=4",
    ]
    summary, said = run(tmp_path, *study, "compute.engine=inline", code=3)
    results = load(tmp_path / "out")
    stages, judged = results.pandas("stages"), results.pandas("judgements")
    assert set(stages[stages.kind == "pretext"].status) == {"done"}, said
    assert set(judged[judged.protocol == "knn"].status) == {"done"}
    failed = judged[judged.protocol == "finetune"]
    assert set(failed.status) == {"failed"} and failed.reason.str.contains("predictions are not finite").all()
    scores = results.pandas("scores")
    assert set(scores.protocol) == {"knn"} and set(scores.curriculum) == {"no pre-training", "moco_v2"}
    assert results.pandas("trials").status.tolist() == ["failed"] and "finetune" in results.pandas("trials").error[0]
    assert summary["stages"]["failed"] == 0


def test_a_finished_stage_is_a_root_of_another_study(inline: Path, tmp_path: Path) -> None:
    stages = load(inline / "out").pandas("stages")
    key = stages[stages.kind == "pretext"].key.iloc[0]
    other = [*STUDY, f"encoder.weights={{store: {inline / 'store'}, key: {key}}}", "downstream={knn@a: {}}"]
    other.append("objective={protocol: knn@a, metric: balanced_accuracy}")
    run(tmp_path, *other, "compute.engine=inline")
    scores = load(tmp_path / "out").pandas("scores")
    assert set(scores.curriculum) == {"no pre-training", "random weights", "moco_v2"}
    _, said = run(tmp_path, *other, f"encoder.weights.key={'f' * 32}", code=2)
    assert "has no finished stage fff" in said and "Traceback" not in said
