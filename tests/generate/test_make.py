"""A store of made cases: what is in it, that it is marked for ever, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generate.made import JUDGING, SIDE, make_store, making
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.case import Case
from dermsearch.data.inspect.check import check
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.mix import mix
from dermsearch.data.prepare.version import version
from dermsearch.data.prepare.view import view
from dermsearch.data.store.card import describe
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.generate import make as making_module
from dermsearch.generate.compare import compare
from dermsearch.generate.exported import draw, export_generator, load_generator
from dermsearch.generate.judge import Critic, make_judge
from dermsearch.generate.make import Wanted, make
from dermsearch.generate.quality import kid
from dermsearch.metrics import summary
from dermsearch.models.artifact import GENERATOR
from dermsearch.run.run import caveats
from dermsearch.storage.stages import StageStore
from dermsearch.study.load import load_study
from dermsearch.training.health import StageFailed
from dermsearch.upkeep.inventory import STAGE, curriculum, items, manifests
from dermsearch.upkeep.upkeep import unneeded
from dermsearch.upkeep.used import Used


class Made:
    """A real store, one made after it, and who judged."""

    def __init__(self, place: Path) -> None:
        self.place, self.real = place, make_store(place / "real")
        self.stages, self.said = StageStore(str(place / "stages")), list[str]()
        self.asked = Wanted(version(self.real, None, ()), 5, 2)
        self.store, self.judge = self.make(place / "made")

    def make(self, out: Path, **more: Any) -> tuple[CaseStore, Critic]:
        """Another one of the same generator."""
        return make(self.real, out, replace(self.asked, **more), making(1), JUDGING, self.stages, self.said.append)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def test_as_many_of_every_class_as_were_asked_for(made: Made) -> None:
    store = made.store
    for split, each in (("train", 5), ("val", 2)):
        assert np.bincount(store.label("finding")[store.split(split)]).tolist() == [each] * 4
    assert store.classes == made.real.classes and store.modalities == ("xray",) and store.side == SIDE
    assert store.grey == made.real.grey == ("xray",)
    finding = np.array(store.classes["finding"])[store.label("finding")]
    for name in store.classes["finding"][1:]:
        assert np.array_equal(store.label(name) == 1, finding == name)
    assert set(store.strings("patient")) == {""} and not check(store.folder).failed


def test_it_is_marked_for_ever(made: Made, tmp_path: Path) -> None:
    text = f"images made by a generator of the training cases of store {made.real.fingerprint[:8]}"
    assert made.store.settings["made"] == text
    assert f"**Warning.** It holds {text}" in (made.store.folder / "README.md").read_text()
    assert "scores on them say nothing of real cases" in " ".join(" ".join(describe(made.store)).split())
    told = {"source": "store", "path": str(made.store.folder), "domain": "chest", "size": 32, "modalities": ["xray"]}
    study = load_study(
        {
            "name": "x",
            "data": told,
            "encoder": {"name": "test_resnet"},
            "curriculum": {"tasks": ["rotation"], "length": [1, 1]},
            "downstream": {"linear": {}},
        }
    )
    assert text in caveats(study, {"data": made.store}) and "made" not in caveats(study, {"data": made.real})
    mix([made.store.folder, made.real.folder], tmp_path / "mixed")
    part = view(CaseStore(tmp_path / "mixed"), tmp_path / "part", version(made.store, "finding", ["none", "pneumonia"]))
    assert CaseStore(tmp_path / "mixed").settings["made"] == part.settings["made"] == text


def test_the_same_again_and_others_of_the_same_generator(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making_module, "train_generator", lambda *_: pytest.fail("it was trained again"))
    monkeypatch.setattr("dermsearch.generate.judge.train_fit", lambda *_: pytest.fail("it was trained again"))
    assert made.make(made.store.folder)[0].fingerprint == made.store.fingerprint
    assert made.said[-1].endswith("is there already, made in the same way: 28 cases.")
    others = made.make(made.place / "others", seed=1)[0]
    assert others.settings["generator"] == made.store.settings["generator"]
    assert others.fingerprint != made.store.fingerprint
    with pytest.raises(UserError, match=r"holds other cases already; choose another folder with -o"):
        made.make(made.store.folder, seed=2)
    (made.place / "full").mkdir(exist_ok=True)
    (made.place / "full" / "a.txt").write_text("mine")
    with monkeypatch.context() as at_once:  # before anything is trained
        at_once.setattr(making_module, "make_judge", lambda *_: pytest.fail("a judge was asked for"))
        with pytest.raises(UserError, match=r"full: is not empty and holds no case store"):
            made.make(made.place / "full")
    again = made.make(made.place / "again")[0]
    assert again.fingerprint == made.store.fingerprint  # it follows from the generator and the seed


def test_generators_and_judges_are_not_taken_for_rubbish(made: Made) -> None:
    everything, gone = items(made.stages), unneeded(made.stages, Used(), 0, time.time() + 10)
    stages = {item.key for item in everything if item.kind == STAGE}
    assert stages == {made.store.settings["generator"], made.judge.key} and not [i for i in gone if i.kind == STAGE]
    assert curriculum(made.store.settings["generator"], manifests(made.stages, everything)) == "generator gan"


def test_classes_of_the_users_own(made: Made) -> None:
    wanted = version(made.real, None, ["none", "some=pneumothorax+pneumonia"], "absent")
    store = made.make(made.place / "v2", version=wanted)[0]
    assert store.classes == {"finding": ("none", "some")} and len(store) == 14
    assert compare(store, made.real, made.judge).lines[0].n > 0


def test_what_is_told_of_it(made: Made) -> None:
    found = compare(made.store, made.real, made.judge)
    told = {line.what: line for line in found.lines}
    made_, real, noise = (told[f"KID, {who} against real"] for who in ("made", "real", "noise"))
    assert made_.value is not None and real.value is not None and noise.value is not None
    assert made_.value > real.value and noise.low is not None and noise.low > real.value
    whose, held, learnt = made.real.groups(), made.real.split("val"), made.real.split("train")
    theirs = (made.judge.features(made.real, rows) for rows in (held, learnt))
    assert (real.value, real.low, real.high) == pytest.approx(summary(kid(*theirs, whose[held], whose[learnt])))
    assert told["near-duplicates of training cases"].value == 0 and not found.copies
    assert len(found.made) == len(found.nearest) == told["KID, made against real"].n
    train = set(made.real.strings("case")[made.real.split("train")])
    assert set(found.nearest) <= train and set(found.made) <= set(made.store.strings("case"))
    assert sum(line.what.startswith("taken for") for line in found.lines) == 8


def test_a_judge_that_fails_is_a_sentence(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StageFailed("finetune: loss is nan at step 1 of 9")

    monkeypatch.setattr("dermsearch.generate.judge.train_fit", fail)
    with pytest.raises(UserError, match=r"^the judge: finetune: loss is nan .*; let it begin with another --encoder"):
        make_judge(made.real, JUDGING, StageStore(str(tmp_path)), lambda row: None)


def test_images_of_16_pixels_are_judged(made: Made) -> None:
    """The smallest that a generator draws, and smaller than any that a study looks at."""
    judge = make_judge(made.real, replace(JUDGING, size=16), made.stages, lambda row: None)
    rows = made.real.split("val")[:3]
    assert np.isfinite(judge.features(made.real, rows)).all() and judge.look.size == 16
    assert {label: len(said) for label, said in judge.predict(made.real, rows).items()} == dict.fromkeys(
        made.real.classes, 3
    )


def test_copies_of_training_cases_are_found(made: Made, tmp_path: Path) -> None:
    rows = made.real.split("train")[:12]
    pixels = made.real.pictures("xray", rows)[0]
    cases = [
        Case(f"M{i}", "", "", {"xray": np.clip(x + 2.0, 0, 255).astype(np.uint8)}, {"finding": int(c)})
        for i, (x, c) in enumerate(zip(pixels, made.real.label("finding")[rows], strict=True))
    ]
    store = write_store(
        tmp_path / "copies", cases, {c.case: "train" for c in cases}, made.store.classes, made.store.settings
    )
    found = compare(store, made.real, made.judge)
    assert len(found.copies) == 12
    assert found.copies[3] == ("M3", str(made.real.strings("case")[rows[3]]))
    assert any(line.startswith("M0 is nearly the same picture as") for line in found.told())
    real = str(made.real.folder)
    told = checked(str(store.folder), "--real", real)
    assert "12 of 12 are nearly the same picture as a training case, M0 as" in told and "and 9 more" in told
    assert "none of 28 made cases is nearly the same picture" in checked(str(made.store.folder), "--real", real)
    assert "not looked for: --real names the store" in checked(str(store.folder)) and "copies" not in checked(real)


def checked(*words: str) -> str:
    """What `dermsearch data check` prints."""
    result = CliRunner().invoke(app, ["data", "check", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_a_generator_in_a_file(made: Made, tmp_path: Path) -> None:
    part = made.stages.artifact(made.store.settings["generator"])[GENERATOR]
    export_generator(part, tmp_path / "g.safetensors")
    model = load_generator(tmp_path / "g.safetensors")
    images = draw(model, {"finding": "pneumonia"}, 3)
    assert images.shape == (3, SIDE, SIDE, 3) and not np.array_equal(images, draw(model, {"finding": "none"}, 3))
    with pytest.raises(UserError, match=r"^finding: the generator knows no 'cold' of it"):
        draw(model, {"finding": "cold"}, 3)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match=r"^--export: '.*folder.safetensors' cannot be written: .*directory"):
        export_generator(part, tmp_path / "folder.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match=r"is no generator that `dermsearch data make --export` wrote"):
        load_generator(tmp_path / "bad.safetensors")


def test_a_part_keeps_patients_splits_and_metadata(made: Made, tmp_path: Path) -> None:
    part = view(made.real, tmp_path / "part", version(made.real, None, ["none", "some=pneumothorax+cardiomegaly"]))
    names = made.real.strings("case").tolist()
    rows = np.array([names.index(name) for name in part.strings("case")])
    truth = made.real.label("finding")[rows]
    assert np.array_equal(part.label("finding"), (truth > 0).astype(int)) and not (truth == 2).any()
    assert np.array_equal(part.strings("patient"), made.real.strings("patient")[rows])
    assert np.array_equal(part.pictures("xray", np.arange(len(part)))[0], made.real.pictures("xray", rows)[0])
    assert np.array_equal(part.masks(np.arange(len(part)))[0], made.real.masks(rows)[0])
    assert part.metadata("age") == [made.real.metadata("age")[row] for row in rows]
    for split in ("train", "val", "test"):
        there = set(part.strings("case")[part.split(split)])
        assert there == set(made.real.strings("case")[np.intersect1d(rows, made.real.split(split))]) and there
    assert not check(part.folder).failed
    with pytest.raises(UserError, match=r"part: is there already; choose another folder with -o"):
        view(made.real, tmp_path / "part", version(made.real, None, ["none", "pneumonia"]))


REFUSED: list[tuple[list[str], str]] = [
    (["make", "{real}", "-o", "x", "--model", "gann"], r"'gann' is not a generator; did you mean 'gan'"),
    (["make", "{real}", "-o", "x", "--set", "wide=2"], r"--set: model 'gan' has no setting 'wide'; did you mean 'wid"),
    (["make", "{real}", "-o", "x", "--set", "width"], r"--set: 'width' must be NAME=VALUE"),
    (["make", "{real}", "-o", "x", "--set", "width=-1"], r"--set: width: "),
    (["make", "{real}", "-o", "x", "--side", "64"], r"--side: must be at most 32, the side of the store's images"),
    (["make", "{real}", "-o", "x", "--side", "24"], r"--side: must be 16, 32, 64"),
    (["make", "{real}", "-o", "x", "--modality", "derm"], r"--modality: the store has no derm images, only xray"),
    (["make", "{real}", "-o", "x", "--label", "find"], r"--label: the cases have no label 'find'"),
    (["make", "{real}", "-o", "x", "--class", "none"], r"--class: name two or more"),
    (["make", "{real}", "-o", "x", "--class", "none", "--class", "flu"], r"--class: no training case has finding"),
    (["make", "{real}", "-o", "x", "--stage", "abc"], r"--stage: the store '.*' has no finished stage abc"),
    (["make", "{real}", "-o", "x", "--quick"], r"--quick: goes with a study, not with a case store"),
    (["make", "{real}", "-o", "x", "--nearest", "a.txt"], r"--nearest: 'a.txt' must end in .csv"),
    (["make", "{made}", "-o", "x"], r"holds made cases; make others after the real ones"),
    (["quality", "{real}", "--real", "{real}"], r"real: holds no made cases; `dermsearch data make` makes some"),
    (["quality", "{made}", "--real", "{other}"], r"--real: these cases were made after other ones than those in"),
    (["check", "{real}", "--real", "{other}"], r"^--real: .*real holds no made cases; `dermsearch data make` makes"),
    (["check", "{made}", "--real", "{other}"], r"^--real: these cases were made after other ones than those in"),
    (["view", "{real}", "-o", "x", "--class", "no", "--class", "none"], r"--class: no training case has finding 'no'"),
    (["view", "{real}", "-o", "s3://bucket/x"], r"^s3://bucket/x: is written in a folder of this machine"),
    (["make", "{real}", "-o", "s3://bucket/x"], r"^s3://bucket/x: is written in a folder of this machine"),
]


@pytest.fixture(scope="module")
def folders(made: Made) -> Iterator[dict[str, str]]:
    other = make_store(made.place / "other", 48, "b").folder
    yield {"real": str(made.real.folder), "made": str(made.store.folder), "other": str(other)}


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda x: " ".join(x[1:]) if isinstance(x, list) else "")
def test_what_is_refused(
    words: list[str], said: str, folders: dict[str, str], made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judge = ["--store", str(made.place / "stages"), "--encoder", "test_resnet", "--judge-epochs", "1"]
    judge = [] if words[0] in ("view", "check") else judge
    result = CliRunner().invoke(app, ["data", *(word.format(**folders) for word in words), *judge])
    assert isinstance(result.exception, UserError), result.output
    with pytest.raises(UserError, match=said):
        raise result.exception
    assert not any(tmp_path.iterdir())
