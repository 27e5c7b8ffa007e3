"""A study from one hospital to another: whose labels are learnt, whose images seen, what stands beside scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest_search import make_study
from rich.console import Console

from dermsearch.data.open import open_cases
from dermsearch.results import load
from dermsearch.run.run import run_study
from dermsearch.work import fits

SETS: dict[str, Any] = {
    name: {"domain": "chest", "modalities": ["xray"], "variant": name, "cases": cases, "size": 32}
    for name, cases in (("a", 60), ("b", 50))
}
SHORT = {"source": "a", "epochs": 1, "adapt_epochs": 1, "batch": 16}


@pytest.mark.slow
def test_labels_of_one_and_images_of_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(
        data=SETS,
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {}, "length": [0, 0]},
        downstream={"dann@b": SHORT, "finetune@b": {"epochs": 1, "batch": 16}},
        objective={"protocol": "dann@b", "metric": "balanced_accuracy", "label": "finding"},
        compute={"engine": "inline", "store": str(tmp_path / "store")},
        logging=[],
    )
    seen, whole = dict[str, Any](), fits.train_fit

    def train(task: str, *given: Any) -> Any:
        seen[task] = [x for x in given if hasattr(x, "fingerprint") or hasattr(x, "rows")], given[5]
        return whole(task, *given)

    monkeypatch.setattr(fits, "train_fit", train)
    assert not run_study(study, tmp_path / "out", None, Console(quiet=True)).failed
    a, b = (open_cases(study.sets[name], tmp_path / "store" / "data") for name in ("a", "b"))
    (cases, target), rows = seen["dann"]
    assert cases.fingerprint == a.fingerprint and rows.tolist() == a.split("train").tolist()
    assert target.cases.fingerprint == b.fingerprint and target.rows.tolist() == b.split("train").tolist()
    (cases,), rows = seen["finetune"]
    assert cases.fingerprint == b.fingerprint and rows.tolist() == b.split("train").tolist()

    scores = load(tmp_path / "out").pandas("scores")
    assert set(scores.data) == {"b"} and set(scores.split) == {"val"}
    shares = scores[scores.metric == "predicted_share"]
    assert set(shares.protocol) == {"dann"} and set(scores[scores.metric == "collapsed"].protocol) == {"dann"}
    classes = a.classes["finding"]
    assert shares[shares.label == "finding"].groupby("class", observed=True).value.sum().reindex(classes).sum() == (
        pytest.approx(1)
    )
    assert scores[scores.metric == "collapsed"].ci_low.notna().all()
