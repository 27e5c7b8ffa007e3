"""Commands that run a study end alike: what is refused beforehand, what failed, a signal, a budget that is spent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from dermsearch.cli import main
from dermsearch.work import judging

pytestmark = pytest.mark.slow

STUDY = {
    "name": "tiny",
    "data": {"cases": 60, "size": 32},
    "encoder": {"name": "test_resnet"},
    "curriculum": {"tasks": {"rotation": {}}, "length": [1, 1]},
    "train": {"epochs": 1, "batch": 16, "precision": "fp32"},
    "downstream": {"knn": {"k": 5}},
    "objective": {"protocol": "knn", "metric": "auc", "label": "mean"},
    "compute": {"engine": "inline"},
    "logging": [],
}
COMMANDS = {"run": ["run", "study.yaml"], "judge": ["judge", "own.safetensors", "--study", "study.yaml"]}
both = pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study, and weights that somebody else has trained."""
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(json.dumps(STUDY))
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), "own.safetensors")
    return tmp_path


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["dermsearch", *words])
    return main._answer()


@both
@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:1", "joins a Ray cluster, but compute.engine is 'inline'"), ("", "joins a Ray")]
)
def test_no_cluster_is_joined_by_who_works_in_this_process(
    words: list[str], address: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended([*words, "--address", address], monkeypatch) == 2
    assert capsys.readouterr().err.startswith(f"dermsearch: --address: {said}") and not Path("results").exists()


@both
def test_that_all_failed_is_said_with_its_reason_and_a_code_of_its_own(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*of: object) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(judging, "judge", refuse)
    assert ended(words, monkeypatch) == 3
    said = capsys.readouterr().err
    assert "Failed: " in said and "ValueError: on purpose" in said and "scored yet" not in said


@both
def test_who_is_interrupted_is_told_that_it_goes_on(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*of: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(judging, "judge", stop)
    assert ended(words, monkeypatch) == 130
    assert capsys.readouterr().err.endswith("Interrupted. The same command continues from here.\n")


@pytest.mark.parametrize(
    ("limit", "larger"), [("hours: 0.000000001", ""), ("stages: 1", " with a larger search.budget")]
)
def test_after_hours_the_same_command_continues(
    limit: str, larger: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["curriculum.tasks=[rotation, colorme]", f"search.budget={{{limit}}}"]
    assert ended(["run", "study.yaml", *more], monkeypatch) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Ended: ")]
    assert [line.rpartition(". ")[2] for line in said] == [f"The same command{larger} continues."]
