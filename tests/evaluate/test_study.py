"""Protocols within a study: what it refuses before anything runs, and a run that is judged by all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest_search import make_study
from e2e.tiny import TINY, run

from dermsearch.data.domain import SKIN
from dermsearch.errors import UserError
from dermsearch.evaluate import PROTOCOLS
from dermsearch.fit.base import FITS
from dermsearch.results import load
from dermsearch.results.tables.measure import choose, read_scores
from dermsearch.run.check import check
from dermsearch.study.load import load_study

pytestmark = pytest.mark.slow

MODALITIES = "data.modalities=[derm,clinic]"
BOTH = "data.modalities=[derm, clinic]"
OWN = {"pairs", "retrieval", "own_table"}  # have measures of their own
PAIRS = "downstream={pairs: {}, linear: {}}"


# Systems of two images are run together in tests/e2e/test_systems.py, attention in data/test_chest_page.py.
JUDGES = {*PROTOCOLS.names()} - {*FITS.shipped} - {"attention"} | {"finetune"}


def objective(**fields: str) -> str:
    return "objective={" + ", ".join(f"{k}: {v}" for k, v in fields.items()) + "}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [PAIRS, BOTH, objective(protocol="pairs", metric="auc", label="pairs")],
            "objective.metric: must be acc_at_1 or acc_at_5 for protocol 'pairs', not 'auc'",
        ),
        (
            [PAIRS, BOTH, objective(protocol="pairs", metric="acc_at_1")],
            "objective.label: must be pairs for protocol 'pairs', not 'diagnosis'",
        ),
        (
            [objective(metric="acc_at_5")],
            "objective.metric: 'acc_at_5' goes with protocol 'own_table' or 'pairs' only, not with 'linear'",
        ),
        ([objective(label="pairs")], "objective.label: 'pairs' goes with protocol 'pairs' only, not with 'linear'"),
        ([objective(metric="named_auc")], "objective.label: must be mean for metric 'named_auc', not 'diagnosis'"),
        ([objective(metric="mean_rank")], "objective.metric: must be one of balanced_accuracy, macro_f1, auc, "),
        (
            ["downstream={majority: {}}", objective(protocol="majority")],
            "objective.protocol: 'majority' never looks at an image",
        ),
    ],
)
def test_an_objective_that_cannot_be_is_refused_before_anything_starts(given: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        check(load_study("curriculum_three", given))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        [PAIRS, MODALITIES, objective(protocol="pairs", metric="acc_at_1", label="pairs")],
        [objective(metric="named_precision", label="mean")],
    ],
)
def test_an_objective_that_can_be(given: list[str]) -> None:
    check(load_study("curriculum_three", given))


@pytest.mark.parametrize("modalities", ["[derm]", "[derm,clinic,xray]"])
def test_pairs_need_two_modalities(modalities: str) -> None:
    with pytest.raises(UserError, match=r"downstream.pairs: needs two modalities, such as data.modalities: \[derm, cl"):
        check(load_study("curriculum_three", [PAIRS, f"data.modalities={modalities}"]))


def test_an_unknown_setting_of_a_protocol_without_any_is_refused() -> None:
    with pytest.raises(UserError, match=r"downstream\.majority\.k: unknown field"):
        check(make_study(downstream={"majority": {"k": 3}, "linear": {}}))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A study of one task on two modalities, judged by every protocol, that looks for matching pairs."""
    folder: Path = tmp_path_factory.mktemp("protocols")
    protocols = "knn: {}, linear: {}, linear_handover: {epochs: 5}, finetune: {epochs: 1}, pairs: {}"
    found = "retrieval: {labelled: [5, all]}, own_table: {}, metadata_only: {c: 0.1}"
    given = [
        *TINY,
        MODALITIES,
        "data.metadata=[age, site]",
        "encoder.branches=separate",
        "curriculum.tasks={moco_v2: {queue: 32}}",
    ]
    given += ["curriculum.length=[1,1]", f"downstream={{{protocols}, majority: {{}}, stratified: {{}}, {found}}}"]
    given += [objective(protocol="pairs", metric="acc_at_5", label="pairs"), "train.knn_every=1"]
    given += ["compute.engine=inline", "published=null"]
    given.remove("odc.clusters=2")
    summary, _ = run(folder, *given)
    assert summary["stages"]["trained"] == 1 and not summary["failures"]
    return load(folder / "out")


def test_every_protocol_is_in_the_tables(judged: Any) -> None:
    scores = judged.pandas("scores")
    assert {*scores.protocol} == JUDGES
    assert {*scores[scores.split == "train"].protocol} == {"pairs"}
    keys = ["curriculum", "protocol", "labelled", "split", "label", "class", "metric"]
    assert not scores.duplicated(keys).any() and {*scores.curriculum} == {"moco_v2", "no pre-training"}
    for (_, protocol), rows in scores.groupby(["curriculum", "protocol"]):
        assert rows[rows.metric == "named_recall"].label.tolist() == ([] if protocol in OWN else ["mean"])
    named = scores[(scores.protocol == "linear") & (scores.curriculum == "moco_v2") & (scores.metric == "recall")]
    named = named[[SKIN.named[label] == cls for label, cls in zip(named.label, named["class"], strict=True)]]
    mean = scores[(scores.protocol == "linear") & (scores.curriculum == "moco_v2") & (scores.metric == "named_recall")]
    assert mean.value.item() == pytest.approx(named.value.mean())


def test_confusions_are_in_the_tables(judged: Any) -> None:
    cells, scores = judged.pandas("confusions"), judged.pandas("scores")
    assert {*cells.protocol} == JUDGES - OWN and {*cells.split} == {"val"}
    whole = scores[(scores.metric == "balanced_accuracy") & (scores.label != "mean")]
    keys = ["stage", "protocol", "label"]
    assert cells.groupby(keys)["count"].sum().sort_index().tolist() == whole.set_index(keys).n.sort_index().tolist()


def test_guesses_are_the_same_for_every_encoder_and_finetuning_is_not(judged: Any) -> None:
    scores = judged.pandas("scores")
    whole = scores[(scores.label == "mean") & (scores.metric == "auc")].pivot(
        index="protocol", columns="curriculum", values="value"
    )
    same = whole["moco_v2"] == whole["no pre-training"]
    assert same["majority"] and same["stratified"] and not same["finetune"] and not same["linear_handover"]


def test_the_search_and_the_leaderboard_find_the_objective(judged: Any) -> None:
    measure = choose(judged)
    assert (measure.protocol, measure.metric, measure.label, measure.split) == ("pairs", "acc_at_5", "pairs", "val")
    stages, root = read_scores(judged, measure)
    assert len(stages) == len(root) == 1
    (score,) = stages.values()
    assert judged.pandas("trials").value.tolist() == [score.value] and 0 <= score.value <= 1
    # Asked for another protocol, the objective's label is no longer meant.
    assert choose(judged, protocol="pairs", metric="acc_at_1").metric == "acc_at_1"
    assert choose(judged, protocol="linear", label="mean", metric="auc").label == "mean"
    with pytest.raises(UserError, match="no scores with metric 'mean_rank'"):
        choose(judged, metric="mean_rank")


def test_the_watcher_looks_at_all_labels_where_the_objective_is_of_none(judged: Any) -> None:
    epochs = judged.pandas("epochs").query("task == 'moco_v2'")
    assert epochs.knn.notna().all() and epochs.knn.between(0, 1).all()
