"""The section `quick` of a study: what it lays over the others, what stays away from real results, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermsearch.errors import UserError
from dermsearch.study.load import load_study, located

STUDY = """\
name: big
data: {source: store, path: cases, size: 224}
encoder: {name: resnet50}
curriculum:
  length: [1, 2]
  tasks:
    moco_v2: {queue: {choice: [256, 512]}, lr: 0.03}
    odc: {clusters: 150}
train: {epochs: 200, batch: 256}
downstream: {knn: {}, linear: {c: 2.0}}
quick:
  data: {source: synthetic, path: null, size: 64}
  encoder:
    name: resnet18
  curriculum: {tasks: {moco_v2: {queue: 64, lr: null}, odc: {clusters: 4}}}
  train: {epochs: 2, batch: 32}
  downstream: {knn: null}
"""


def write(folder: Path, text: str = STUDY) -> str:
    file = folder / "study.yaml"
    file.write_text(text)
    return str(file)


def wrong(folder: Path, text: str, *overrides: str, quick: bool = False) -> str:
    """What is said of a study that is refused, without the folder."""
    with pytest.raises(UserError) as error:
        load_study(write(folder, text), overrides, quick)
    said = str(error.value)
    assert "\n" not in said
    return said.replace(str(folder / "study.yaml"), "study.yaml")


def test_quick_lies_over_the_file_field_by_field_and_null_takes_a_field_out(tmp_path: Path) -> None:
    study = load_study(write(tmp_path), quick=True)
    assert (study.name, study.data.source, study.data.path, study.data.size) == ("big-quick", "synthetic", None, 64)
    assert (study.encoder.name, study.train.epochs, study.train.batch) == ("resnet18", 2, 32)
    assert study.curriculum.tasks == {"moco_v2": {"queue": 64}, "odc": {"clusters": 4}}
    assert study.curriculum.length == (1, 2), "what quick does not name stays"
    assert study.downstream == {"linear": {"c": 2.0}}
    assert "quick" not in study.model_dump()


def test_without_the_option_the_section_changes_nothing(tmp_path: Path) -> None:
    alone = STUDY[: STUDY.index("quick:")]
    with_it = load_study(write(tmp_path))
    assert with_it == load_study(write(tmp_path, alone))
    assert with_it.name == "big"


def test_the_command_line_wins_over_quick(tmp_path: Path) -> None:
    overrides = ["train.epochs=5", "moco_v2.queue=128", "data.size=96", "name=mine"]
    study = load_study(write(tmp_path), overrides, quick=True)
    assert (study.train.epochs, study.train.batch, study.data.size, study.name) == (5, 32, 96, "mine")
    assert study.curriculum.tasks["moco_v2"] == {"queue": 128}


def test_an_override_for_the_real_study_is_not_checked_against_quick(tmp_path: Path) -> None:
    assert load_study(write(tmp_path), ["data.path=elsewhere", "train.batch=512"]).data.path == "elsewhere"


def test_a_searched_setting_is_replaced_whole(tmp_path: Path) -> None:
    text = STUDY.replace("queue: 64, lr: null", "queue: 64, lr: {log: [1e-3, 1e-1]}").replace(
        "lr: 0.03", "lr: {choice: [0.1, 0.2]}"
    )
    assert load_study(write(tmp_path, text), quick=True).curriculum.tasks["moco_v2"]["lr"] == {"log": [1e-3, 1e-1]}
    text = text.replace("{log: [1e-3, 1e-1]}", "{select: [0.1, 0.2], epochs: 1}")
    assert load_study(write(tmp_path, text), quick=True).curriculum.tasks["moco_v2"]["lr"]["select"] == [0.1, 0.2]
    assert "choice" not in load_study(write(tmp_path, text), quick=True).curriculum.tasks["moco_v2"]["lr"]


def test_quick_reaches_into_a_list_of_tasks(tmp_path: Path) -> None:
    text = "name: n\ncurriculum: {tasks: [moco_v2, odc], length: [1, 1]}\n"
    text += "quick: {curriculum: {tasks: {odc: {clusters: 4}}}}\n"
    assert load_study(write(tmp_path, text), quick=True).curriculum.tasks == {"moco_v2": {}, "odc": {"clusters": 4}}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("name: resnet18", "nam: resnet18"), "study.yaml:14: quick.encoder.nam: unknown field; did you mean 'name'?"),
        (
            ("  train: {epochs: 2", "  trian: {epochs: 2"),
            "study.yaml:16: quick.trian: unknown field; did you mean 'train'?",
        ),
        (("epochs: 2,", "epochs: two,"), "study.yaml:16: quick.train.epochs: must be a whole number, not 'two'"),
        (("  train: {epochs: 2, batch: 32}", "  train: 3"), "study.yaml:16: quick.train: must be a mapping"),
        (
            ("  train: {epochs: 2, batch: 32}", "  epochs: 3"),
            "study.yaml:16: quick.epochs: unknown field; did you mean",
        ),
        (("downstream: {knn: null}", "quick: {}"), "study.yaml:17: quick.quick: unknown field; "),
        (("downstream: {knn: null}", "name: x"), "study.yaml:17: quick.name: cannot be given; with --quick a study is"),
        (("quick:\n", "quick: 3\nx:\n"), "study.yaml:11: quick: must be a mapping (key: value), not 3"),
        (("quick:\n", "quick:\nx:\n"), "study.yaml:11: quick: must be a mapping (key: value), not nothing"),
        (("quick:\n", "quik:\n"), "study.yaml:11: quik: unknown field; did you mean 'quick'?"),
    ],
    ids=lambda v: v[1].strip() if isinstance(v, tuple) else "",
)
def test_what_is_wrong_in_quick_is_told_whether_it_is_used_or_not(
    change: tuple[str, str], said: str, quick: bool, tmp_path: Path
) -> None:
    assert change[0] in STUDY
    if "quik" in change[1] and quick:
        said = "--quick: study.yaml has no section 'quick' with smaller settings"
    assert wrong(tmp_path, STUDY.replace(*change, 1), quick=quick).startswith(said)


def test_quick_on_a_study_without_it(tmp_path: Path) -> None:
    alone = STUDY[: STUDY.index("quick:")]
    assert wrong(tmp_path, alone, quick=True) == "--quick: study.yaml has no section 'quick' with smaller settings"


def test_an_override_of_quick_says_what_to_write_instead(tmp_path: Path) -> None:
    said = wrong(tmp_path, STUDY, "quick.train.epochs=3")
    assert said == "command line: quick.train.epochs: say train.epochs=... beside --quick instead"


def test_a_part_that_quick_forgets_is_told_in_its_own_place(tmp_path: Path) -> None:
    said = wrong(tmp_path, STUDY.replace("path: null, ", ""), quick=True)
    assert said.startswith("study.yaml:2: data.path: goes with source 'store' only")


def test_what_is_found_wrong_later_names_quick_too(tmp_path: Path) -> None:
    study = write(tmp_path)
    for quick, place in ((True, "study.yaml:15: quick."), (False, "study.yaml:8: ")):
        with pytest.raises(UserError) as error, located(study, (), quick):
            raise UserError("curriculum.tasks.odc.clusters: are too many")
        assert str(error.value) == f"{tmp_path}/{place}curriculum.tasks.odc.clusters: are too many"


def test_a_name_that_grows_too_long(tmp_path: Path) -> None:
    said = wrong(tmp_path, STUDY.replace("name: big", f"name: {'b' * 60}"), quick=True)
    assert said.startswith("study.yaml:1: name: must be a name (letters, digits, '.', '_', '-', at most 64 in all)")
