"""Whole runs without Ray: what comes out, what is reused, what a failure does."""

from __future__ import annotations

import resource
from importlib.metadata import version
from pathlib import Path

import pytest
import warm
from e2e.tiny import TINY, run, values

from dermsearch.data.store.case_store import CaseStore
from dermsearch.results import load

INLINE = [*TINY, "compute.engine=inline"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the study has run once."""
    folder = tmp_path_factory.mktemp("inline")
    summary, said = run(folder, *INLINE)
    assert summary["stages"] == {"proposed": 9, "trained": 9, "reused": 0, "failed": 0, "pruned": 0, "dropped": 0}
    assert "9/9" in said and "no pre-training" in said
    return folder


def test_the_tables_hold_every_stage_epoch_and_score(finished: Path) -> None:
    results = load(finished / "out")
    stages = results.pandas("stages")
    assert len(stages) == 9 and set(stages.status) == {"done"} and not stages.reused.any()
    assert set(stages.curriculum[stages.depth == 1]) == {"relative_location", "moco_v2", "odc"}
    assert set(stages.parent[stages.depth == 2]) <= set(stages.key)
    assert stages.libraries.str.contains(f"torch {version('torch')}", regex=False).all()
    epochs = results.pandas("epochs")
    assert len(epochs) == 9 * 2 and epochs.loss.notna().all() and (epochs.embedding_std > 0).all()
    scores = results.pandas("scores")
    assert set(scores.curriculum) == {*stages.curriculum, "no pre-training"}
    assert set(scores.protocol) == {"knn", "linear"} and set(scores.split) == {"val"}
    main = scores[(scores["class"] == "") & (scores.metric == "balanced_accuracy") & (scores.label == "diagnosis")]
    assert len(main) == 20 and ((main.ci_low <= main.value) & (main.value <= main.ci_high)).all()
    trials = results.pandas("trials")
    assert len(trials) == 9 and trials.value.notna().all()
    said = results.pandas("predictions")
    own = said[(said.stage == stages.key[0]) & (said.protocol == "linear") & (said.label == "diagnosis")]
    taken = own.loc[own.groupby("case", observed=True).probability.idxmax()]
    right = (taken["class"].astype(str) == taken.truth.astype(str)).groupby(taken.truth.astype(str)).mean()
    (told,) = main[(main.stage == stages.key[0]) & (main.protocol == "linear")].value
    assert right.mean() == pytest.approx(told), "a score can be made again from what was predicted"
    (store,) = (finished / "store" / "data").iterdir()
    wanted = {("curriculum_three", f"data {CaseStore(store).fingerprint}")}
    for table in filter(len, results.tables.values()):
        assert set(zip(table["study"].to_pylist(), table["stores"].to_pylist(), strict=True)) == wanted


def test_figures_logs_and_study_lie_beside_the_tables(finished: Path) -> None:
    out = finished / "out"
    assert {p.name for p in (out / "figures").iterdir()} >= {"curriculum.png", "curriculum.svg", "tree.png", "tree.svg"}
    assert len(list((out / "tensorboard").iterdir())) == 9
    assert "moco_v2" in (out / "study.yaml").read_text()
    assert (out / "optuna.journal").stat().st_size > 0


def test_the_same_command_again_reuses_everything_and_says_the_same(finished: Path) -> None:
    summary, _ = run(finished, *INLINE, out="again")
    assert summary["stages"]["reused"] == 9 and summary["stages"]["trained"] == 0
    assert values(finished) == values(finished, "again")


def test_another_seed_or_setting_is_another_stage(finished: Path) -> None:
    summary, _ = run(finished, *INLINE, "curriculum.length=[1,1]", "odc.dropout=0.25", out="other")
    assert summary["stages"]["trained"] == 1 and summary["stages"]["reused"] == 2


def test_a_damaged_stage_is_trained_again(finished: Path) -> None:
    key = load(finished / "out").pandas("stages").query("curriculum == 'odc'").key.iloc[0]
    weights = finished / "store" / "stages" / key / "encoders.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    summary, _ = run(finished, *INLINE, out="repaired")
    assert summary["stages"]["trained"] == 1
    assert values(finished) == values(finished, "repaired")


def test_a_stage_that_fails_is_recorded_and_drops_only_its_subtree(tmp_path: Path) -> None:
    summary, said = run(tmp_path, *INLINE, "odc.lr=1e9", code=3)
    assert summary["stages"]["failed"] == 3, "odc alone and after each of the others"
    assert summary["stages"]["dropped"] == 2, "what would have followed odc"
    stages = load(tmp_path / "out").pandas("stages").set_index("curriculum")
    assert stages.status["odc"] == "failed" and stages.status["moco_v2"] == "done"
    assert "odc: " in stages.error["odc"] and " at step " in stages.error["odc"]
    assert stages.status["odc > moco_v2"] == "dropped" and "odc failed" in stages.error["odc > moco_v2"]
    assert "3 failed, 2 dropped in" in said and "Failed: odc" in said and "Traceback" not in said


def test_two_modalities_shared_and_separate(tmp_path: Path) -> None:
    for branches in ("shared", "separate"):
        study = [*INLINE, "data.modalities=[derm, clinic]", f"encoder.branches={branches}", "curriculum.length=[1,1]"]
        summary, _ = run(tmp_path, *study, "curriculum.tasks={rotation: {}}", out=branches)
        assert summary["stages"]["trained"] == 1


@pytest.mark.parametrize("most", [1000, 4096, 12_000])
def test_where_results_have_no_room_a_sentence_says_so_and_the_same_command_goes_on(finished: Path, most: int) -> None:
    """The store has room; the folder of the results takes no file of more bytes than these."""
    words = ["run", "curriculum_three.yaml", *INLINE, "--out", str(finished / f"out-{most}")]
    with open(finished / f"{most}.txt", "w+") as said:
        going = warm.Command([*words, f"compute.store={finished / 'store'}"], finished, said.fileno(), said.fileno())
        resource.prlimit(going.pid, resource.RLIMIT_FSIZE, (most, most))
        assert going.poll(120) == 2
        said.seek(0)
        text = said.read()
    (line,) = [line for line in text.splitlines() if line.startswith("dermsearch: ")]
    assert f"out-{most}" in line and "File too large" in line
    assert "Traceback" not in text
    summary, _ = run(finished, *INLINE, out=f"out-{most}")
    assert summary["stages"]["trained"] == 0 and values(finished, f"out-{most}") == values(finished)
