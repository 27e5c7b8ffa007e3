"""The study of HAM10000 that ships with its tables: what it says, from a fresh clone, without torch or Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.results.board.opened import opened
from dermsearch.results.board.paired import Difference
from dermsearch.results.board.settled import settled

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "results" / "ham10000"
AGAIN = ROOT / "results" / "rotation_ham10000"
WITHOUT = """
import sys
for name in ("torch", "ray", "timm", "torchvision"):
    sys.modules[name] = None
from dermsearch.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables elsewhere: figures are drawn beside them."""
    return Path(shutil.copytree(STUDY, tmp_path_factory.mktemp("ham") / "ham10000"))


def call(*words: str) -> str:
    command = [sys.executable, "-c", WITHOUT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("leaderboard", "6 of 8 curricula are above no pre-training"),
        (
            "leaderboard --format markdown",
            "(chance 14.3 %), protocol finetune:20, 1,501 cases of split val of ham10000",
        ),
        ("explain", "within 2 points of the best"),
        ("figures", "figures/tree.svg"),
        ("report", "report.html"),
        ("replay", "curriculum_prior"),
    ],
)
def test_its_tables_are_enough(command: str, said: str, copy: Path) -> None:
    more = ("--sampler", "curriculum_prior") if command == "replay" else ()
    name, *options = command.split()
    assert said in " ".join(call(name, str(copy), *options, *more).split())


@pytest.mark.slow
def test_what_the_readme_says_of_it() -> None:
    results = load(STUDY)
    rows = leaderboard(results)
    best, told = rows[0], " ".join((ROOT / "README.md").read_text().split())
    assert best.name == "rotation" and best.to_none is not None and best.to_none.half is not None
    assert f"rotation by {100 * best.to_none.value:.1f} ± {100 * best.to_none.half:.1f} points" in told
    assert settled(rows).startswith("6 of 8 curricula are above no pre-training") and "six of eight" in told
    tests = results.pandas("tests")
    assert set(tests.curriculum) == {"rotation", "no pre-training"} and set(tests.opening) == {1}
    assert settled(leaderboard(results, metric="auc")).startswith("8 of 8") and "by AUC all eight" in told
    for metric, said in (
        ("auc", "{} points of AUC"),
        ("balanced_accuracy", "of balanced accuracy, by which it was chosen, {}"),
    ):
        found = opened(results, metric=metric)
        assert found is not None
        (gain,) = [each.test.to_none for each in found.tested if each.test.name == "rotation"]
        assert gain is not None and gain.half is not None and (gain.value > gain.half) == (metric == "auc")
        assert said.format(f"{100 * gain.value:.1f} ± {100 * gain.half:.1f}") in told


@pytest.mark.slow
def test_what_the_readme_says_of_the_five_new_seeds() -> None:
    results, told = load(AGAIN), " ".join((ROOT / "README.md").read_text().split())
    tests = results.pandas("tests")
    assert len(set(tests.seed)) == 5 and set(tests.opening[tests.labelled == "20"]) == {1, 2}
    assert set(tests.opening[tests.labelled == "100"]) == {2}

    def gain(labelled: int, metric: str) -> Difference:
        found = opened(results, f"finetune:{labelled}", metric)
        assert found is not None
        (gain,) = [each.test.to_none for each in found.tested if each.test.name == "rotation"]
        assert gain is not None
        return gain

    few, more = ([gain(n, metric) for metric in ("auc", "balanced_accuracy")] for n in (20, 100))
    assert [d.above for d in (*few, *more)] == [True, False, True, True]
    assert (
        "{} of AUC, {} of balanced accuracy; with 100 labels a class {} and {}, at the second opening".format(
            *(f"{100 * d.value:.1f} ± {100 * d.half:.1f}" for d in (*few, *more) if d.half is not None)
        )
        in told
    )


@pytest.mark.parametrize(("name", "tables"), [("curriculum_ham10000", STUDY), ("rotation_ham10000", AGAIN)])
def test_it_is_the_study_that_ships(name: str, tables: Path) -> None:
    from dermsearch.study.load import load_study

    shipped, ran = load_study(name), load_study(str(tables / "study.yaml"))
    assert shipped == ran
    assert not Path(ran.main.path).is_absolute() and not Path(ran.compute.store).is_absolute()
