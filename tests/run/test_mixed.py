"""A study that trains on a mixture of its data sets, without the images that it is judged on."""

from pathlib import Path
from typing import Any

import pytest
from conftest_search import make_study
from pydantic import ValidationError
from rich.console import Console

from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.mixed import both_in, left_out, open_sets
from dermsearch.data.open import open_cases
from dermsearch.data.store.card import quarantined
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.results import load
from dermsearch.run.plan import lines, make_plan
from dermsearch.run.run import caveats, run_study

# Case i of a seed is the same whatever their number: all 40 of `seen` stand in `ours`, each with two images.
SETS: dict[str, Any] = {
    "pool": {"source": "mix", "mix": ["ours", "theirs"], "without": ["seen"], "size": 32},
    "ours": {"cases": 60, "size": 32},
    "theirs": {"cases": 50, "size": 32, "seed": 5},
    "seen": {"cases": 40, "size": 32},
}

# Other hospitals: the lesions of `seen` as the camera of `ours` takes them, or another; `theirs` has other diagnoses.
HOME: dict[str, Any] = {"camera": {"cast": [1.08, 0.97, 0.95], "vignette": 0.4}}
AWAY: dict[str, Any] = {"camera": {"cast": [1.0, 1.0, 0.8], "vignette": 0.4}}
CLASSES: dict[str, Any] = {"classes": {"NEV": 2, "SK": 1}, "skin": [0, 0, 1, 1, 1, 1]}
WAYS = ("has the same pixels as", "is nearly the same picture as")


def hospitals(seen: dict[str, Any]) -> dict[str, Any]:
    told = {"ours": HOME, "theirs": CLASSES, "seen": seen}
    return {name: {**SETS[name], "variant": variant} for name, variant in told.items()}


def study_of(folder: Path, **sets: Any) -> Any:
    return make_study(
        data={**SETS, **sets},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {}}, "length": [1, 1]},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        downstream={"knn@seen": {"k": 5}},
        objective={"protocol": "knn@seen", "metric": "auc", "label": "mean"},
        compute={"engine": "inline", "store": str(folder / "store")},
        logging=[],
    )


def planned(study: Any) -> str:
    return "\n".join(lines(make_plan(study)))


@pytest.mark.slow
def test_a_mixture_lacks_what_is_judged_on(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert "mixture    pool: ours, theirs, without what seen shows\n" in planned(study)
    with (tmp_path / "log").open("w") as log:
        assert not run_study(study, tmp_path / "out", None, Console(file=log)).failed
    assert "Mixing ours, theirs" in (tmp_path / "log").read_text()
    (folder,) = (tmp_path / "store" / "data").glob("mix-*")
    assert not list(folder.glob("images-*")), "it shows the images of its stores where they lie"
    pool, seen = CaseStore(folder), open_cases(study.sets["seen"], tmp_path / "store" / "data")
    assert left_out(pool) == 80 and len(pool) == 60 + 50 - 40 and not both_in(pool, seen)
    assert set(load(tmp_path / "out").scores["caveats"].to_pylist()) == {"pool lacks 80 images that also stand in seen"}
    assert "pool: ours, theirs, without what seen shows: 80 images are left out" in planned(study)
    again = run_study(study, tmp_path / "out", None, Console(quiet=True))
    assert again.summary["stages"]["trained"] == 0, "the mixture that is there is taken"


@pytest.mark.slow
def test_what_is_trained_and_judged_on_is_said(tmp_path: Path) -> None:
    everything = {"source": "mix", "mix": ["ours", "theirs"], "size": 32, "weights": {"theirs": 3}}
    study = study_of(tmp_path, pool=everything)
    assert "mixture    pool: ours 25 %, theirs 75 %\n" in planned(study)
    run_study(study, tmp_path / "out", None, Console(quiet=True))
    (folder,) = (tmp_path / "store" / "data").glob("mix-*")
    assert CaseStore(folder).settings["weights"] == [1, 3]
    (said,) = set(load(tmp_path / "out").scores["caveats"].to_pylist())
    assert said.startswith("80 images of pool also stand in seen: ") and "has the same pixels as" in said
    assert said.endswith(", and others")


@pytest.mark.parametrize(("seen", "way"), [(HOME, WAYS[0]), (AWAY, WAYS[1])])
def test_what_overlaps_is_left_out_whatever_the_cameras(seen: dict[str, Any], way: str, tmp_path: Path) -> None:
    """40 of 60 lesions of `ours` are those of `seen`: both pictures of each, no more and no fewer."""
    study = study_of(tmp_path, **hospitals(seen))
    stores = open_sets(study.sets, tmp_path / "data", lambda data: open_cases(data, tmp_path / "data"))
    pool = stores["pool"]
    assert left_out(pool) == 80 and len(pool) == 60 + 50 - 40 and not both_in(pool, stores["seen"])
    assert all(way in row["reason"] for row in quarantined(pool) if row["done"] == "left out")
    assert caveats(study, stores) == "pool lacks 80 images that also stand in seen"
    own = [pool.classes[f"{stores[name].folder.name}_diagnosis"] for name in ("ours", "theirs")]
    assert own == [SEVEN_POINT["diagnosis"], ("NEV", "SK")], "each store's labels stay its own"

    everything = study_of(tmp_path, **hospitals(seen), pool={**SETS["pool"], "without": []})
    stores = open_sets(everything.sets, tmp_path / "data", lambda data: open_cases(data, tmp_path / "data"))
    said = caveats(everything, stores)
    assert said.startswith("80 images of pool also stand in seen: ") and said.endswith(", and others")
    ours, seen_at = (stores[name].folder.name for name in ("ours", "seen"))
    assert f"{ours}:C00000 (derm) {way} {seen_at}:C00000 (derm); " in said, "a pair by its names"


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"source": "mix", "mix": ["ours", "pool"]}, "data.pool.mix: must name data sets that are no mixtures"),
        ({"source": "mix", "mix": ["ours", "nobody"]}, r"\(ours, theirs, seen\), not 'nobody'"),
        ({"source": "mix"}, "mix: goes with source 'mix', and names"),
        ({"mix": ["ours"]}, "mix: goes with source 'mix'"),
        ({"without": ["ours"]}, "without: goes with source 'mix'"),
    ],
)
def test_mixtures_of_what_is_not_there_are_refused(pool: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=said):
        study_of(tmp_path, pool={"size": 32, **pool})


def test_a_pool_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    nothing = {"source": "mix", "mix": ["seen"], "without": ["ours"], "size": 32}
    with pytest.raises(UserError, match=r"data\.pool: nothing is left to mix"):
        run_study(study_of(tmp_path, pool=nothing), tmp_path / "out", None, Console(quiet=True))
    assert not (tmp_path / "out").exists(), "its name is not taken by what never began"
