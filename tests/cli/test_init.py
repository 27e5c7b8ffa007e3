"""`dermsearch init`: whatever is answered, the study passes `plan`; one is run; and the questions are walked."""

from __future__ import annotations

import csv
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dermsearch.cli.ask import hours_of, several, share
from dermsearch.cli.draft import EXTENTS, Collection, Extent, Wishes, draft, written
from dermsearch.cli.main import app
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.run import bill
from dermsearch.run.plan import make_plan, refuse
from dermsearch.study.config import Study
from dermsearch.study.load import load_study
from dermsearch.study.reading import read_value

pytestmark = pytest.mark.slow  # drafts are planned, some run

CALM = ["--yes", "--gpus", "0"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bill, "speed", lambda *_: 200.0)
    return tmp_path


def init(*words: str) -> str:
    done = CliRunner().invoke(app, ["init", "mine.yaml", *words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def planned() -> Study:
    """The study that was written, which passes `plan`."""
    study = load_study("mine.yaml")
    make_plan(load_study("mine.yaml", quick=True))
    make_plan(study)
    refuse(study, elsewhere=bool(study.compute.gpus))
    return study


def pictures(folder: Path, count: int = 60) -> Path:
    """Photographs of a practice, sorted into folders by class, and a table that knows whose they are."""
    folder.mkdir()
    rows = []
    for i, case in enumerate(synthetic(count, 40, 1)):
        word = ("naevus", "cancer")[case.labels["diagnosis"] == 2]
        (folder / word).mkdir(exist_ok=True)
        Image.fromarray(case.images["derm"]).save(folder / word / f"{i}.png")
        rows.append({"picture": f"{folder.name}/{word}/{i}.png", "patient_id": f"p{i // 2}", "age": i, "dx": word})
    with (folder.parent / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=";")
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], {"data.modalities": ("derm",), "objective.label": "mean", "train.batch": 32}),
        (["--modalities", "clinic, derm"], {"data.modalities": ("derm", "clinic"), "encoder.branches": "separate"}),
        (["--label", "diagnosis", "--labelled", "5"], {"objective.label": "diagnosis"}),
        (["--labelled", "10%"], {"downstream": {k: {"labelled": "10%", "repeats": 3} for k in ("linear", "knn")}}),
        (["--time", "3d"], {"search.seeds": (0, 1, 2), "search.budget.hours": 72.0}),
        (["--gpus", "2"], {"compute.gpus": 1.0, "encoder.name": "resnet18", "data.size": 128}),
    ],
    ids=" ".join,
)
def test_a_study_of_built_in_cases_passes_plan(words: list[str], wanted: dict[str, object]) -> None:
    said = init(*(CALM if "--gpus" not in words else ["--yes"]), *words)
    study = planned()
    for name, value in wanted.items():
        found: object = study
        for part in name.split("."):
            found = getattr(found, part)
        if isinstance(found, dict) and isinstance(value, dict):
            found = {key: {k: v for k, v in each.items() if k != "k"} for key, each in found.items()}
        assert found == value, name
    assert said.count("\n") >= 3 and "`dermsearch run mine.yaml`" in said
    lines = Path("mine.yaml").read_text().splitlines()
    assert max(map(len, lines)) <= 120 and sum(line.lstrip().startswith("#") for line in lines) > len(lines) / 3


def test_more_time_is_a_richer_study() -> None:
    collection = Collection(None, "skin", 600, 420, 128, ("derm",), ("diagnosis",))
    found = []
    for hours in (0.001, 0.1, 1000):
        text = draft(Wishes("x", collection, ("derm",), "diagnosis", "all", hours, 0))
        study = load_study(read_value(text))
        shape = len(study.curriculum.tasks), study.curriculum.length[1], len(study.search.seeds)
        found.append((*shape, study.train.epochs))
    assert found == sorted(found) and [Extent(*f[:3]) for f in (found[-1], found[0])] == [EXTENTS[0], EXTENTS[-1]]
    assert found[0][-1] == 1 and found[1][:3] != found[0][:3]


@pytest.mark.parametrize(("train", "name"), [(30, "2024"), (44, "yes"), (10_000, "a-b")])
def test_any_number_of_cases_and_any_name_pass(train: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermsearch.run.plan.drawn_for_training", lambda _: train)
    monkeypatch.setattr("dermsearch.run.check.drawn_for_training", lambda _: train)
    collection = Collection(None, "skin", train, train, 64, ("derm",), ("diagnosis",))
    text = written(Wishes(name, collection, ("derm",), "diagnosis", "2", 1, 0), EXTENTS[0], 3)
    study = load_study(read_value(text))
    make_plan(study)
    assert study.name == name and study.curriculum.length == (1, 3)


def test_a_table_becomes_a_store_by_patient(here: Path) -> None:
    pictures(here / "photos")
    said = init(*CALM, "--data", "cases.csv", "--time", "1min")
    assert "data prepare csv cases.csv -o data/mine --image derm=picture --label dx --patient patient_id" in said
    store = CaseStore("data/mine")
    assert store.split_by == "patient" and len(store) == 60 and store.classes == {"dx": ("cancer", "naevus")}
    study = planned()
    assert (study.main.path, study.main.cases, study.objective.label) == ("data/mine", 60, "dx")
    init_again = CliRunner().invoke(app, ["init", "again.yaml", *CALM, "--data", "data/mine"], catch_exceptions=False)
    assert init_again.exit_code == 0 and load_study("again.yaml").main.path == "data/mine"


def test_pictures_of_nobody_are_split_by_image_only_if_one_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(here / "photos")
    with pytest.raises(UserError, match=r"^--data: pictures of one person would .* --modality derm --split-by image`"):
        init(*CALM, "--data", "photos")
    assert not Path("mine.yaml").exists()
    monkeypatch.setattr("dermsearch.cli.ask.Asker.sure", lambda *_: True)
    init(*CALM, "--data", "photos", "--time", "1min")
    assert CaseStore("data/mine").split_by == "image" and planned().objective.label == "diagnosis"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"a,dx\nx.png,n\xe6vus\n", r"t\.csv, line 2: is not UTF-8 text; save it as UTF-8"),
        (b'a;dx\n"x.png;cancer\n', r"t\.csv, line 2: unexpected end of data, so it is not CSV"),
        (b"a\tdx\nx.png\n", r"t\.csv: has no rows"),
        (b"", r"t\.csv is empty"),
    ],
)
def test_a_damaged_table_is_one_sentence(here: Path, table: bytes, said: str) -> None:
    Path("t.csv").write_bytes(table)
    with pytest.raises(UserError, match=said):
        init(*CALM, "--data", "t.csv")


def test_a_release_becomes_a_store(here: Path) -> None:
    """HAM10000 as it is downloaded, with sixty of its lesions."""
    pictures(here / "photos")
    (here / "release").mkdir()
    rows = [f"HAM_{i},ISIC_{i:07d},{('nv', 'mel')[i % 2]},histo,50,male,back" for i in range(60)]
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    Path("release/HAM10000_metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    for part, numbers in (("1", range(30)), ("2", range(30, 60))):
        (folder := here / "release" / f"HAM10000_images_part_{part}").mkdir()
        for i in numbers:
            (picture,) = (here / "photos").glob(f"*/{i}.png")
            Image.open(picture).save(folder / f"ISIC_{i:07d}.jpg", quality=95)
    init(*CALM, "--data", "ham10000:release", "--time", "1min")
    assert planned().main.path == "data/mine" and CaseStore("data/mine").split_by == "lesion"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "standard input is no terminal; --yes takes the defaults"),
        (["--yes", "--data", "nowhere"], "there is no 'nowhere'"),
        (["--yes", "--data", "ham1000:."], "is no data set that is known; did you mean 'ham10000'"),
        (["--yes", "--label", "diagnoses"], "--label: 'diagnoses' is none of them; did you mean 'diagnosis'"),
        (["--yes", "--modalities", "derm,xray"], "--modalities: 'xray' is none of them"),
        (["--yes", "--data", "s3://bucket/store"], "s3://bucket/store lies elsewhere"),
        (["--yes", "--time", "soon"], "--time: must be a number with min, h or d"),
        (["--yes", "--labelled", "0"], "--labelled: must be all"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes_are_one_sentence_and_nothing_is_written(words: list[str], said: str, here: Path) -> None:
    with pytest.raises(UserError, match=said):
        init(*words)
    assert not list(here.iterdir())


def test_a_folder_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"^nowhere/mine\.yaml: there is no folder 'nowhere'"):
        CliRunner().invoke(app, ["init", "nowhere/mine.yaml", *CALM], catch_exceptions=False)


def test_nothing_is_written_over() -> None:
    Path("mine.yaml").write_text("x")
    with pytest.raises(UserError, match=r"mine\.yaml: is there already"):
        init(*CALM)


@pytest.mark.parametrize(
    ("text", "hours"), [("30min", 0.5), ("2 h", 2), ("1.5 hours", 1.5), ("3 days", 72), ("1d", 24)]
)
def test_times_are_read(text: str, hours: float) -> None:
    assert hours_of(text) == hours


@pytest.mark.parametrize("text", ["all", "20", "10%", "2.5%", "100%"])
def test_shares_of_labels_are_read(text: str) -> None:
    assert share(text) == text and share("20 of every class") == share("20 per class") == "20"


@pytest.mark.parametrize("text", ["clinic,derm", "derm clinic", " derm, clinic "])
def test_modalities_are_read(text: str) -> None:
    assert several(text, ("derm", "clinic")) == ("derm", "clinic")


def test_cases_of_one_class_are_refused(here: Path) -> None:
    """Every score of theirs would be 100 %; where a study names such a store, `plan` says so too."""
    init(*CALM)
    pictures(here / "photos")
    for path in (here / "photos" / "cancer").iterdir():
        path.rename(here / "photos" / "naevus" / path.name)
    (here / "photos" / "cancer").rmdir()
    words = ["data", "prepare", "folder", "photos", "-o", "data/photos", "--split-by", "image"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    with pytest.raises(UserError, match=r"^data/photos: all cases are of one class, diagnosis naevus, so there"):
        CliRunner().invoke(app, ["init", "own.yaml", *CALM, "--data", "data/photos"], catch_exceptions=False)
    told = ["data={source: store, path: data/photos, size: 32, modalities: [derm]}"]
    for label in ("mean", "diagnosis"):
        with pytest.raises(UserError, match=r"^objective.label: all cases are of one class, diagnosis naevus, so"):
            make_plan(load_study("mine.yaml", [*told, f"objective.label={label}"]))


@pytest.mark.slow
def test_its_study_is_run(here: Path) -> None:
    init(*CALM, "--time", "1min", "--labelled", "20")
    small = "data.cases=60 encoder.name=test_resnet train.batch=16 compute.engine=inline downstream.knn.k=5"
    words = ["run", "mine.yaml", "--quick", *small.split(), "downstream.linear.repeats=1"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0 and "no pre-training" in done.stdout, done.output
    assert Path("results/mine-quick/report.html").is_file()


@pytest.mark.slow
def test_the_questions_are_walked_in_a_terminal(here: Path) -> None:
    """A wrong answer is told and asked again; what is typed is what the study says."""
    pictures(here / "photos")
    answers = {
        "Number [1]": "9",
        "'9' is none of them": "",
        "Number [1]:": "3",
        "The table [.]": "cases.xlsx",
        "there is no 'cases.xlsx' here": "",
        "The table [.]: ": "cases.csv",
        "Column of derm pictures [picture]": "",
        "Column of clinic pictures [none]": "",
        "Column of the diagnosis [dx]": "",
        "Column of patients [patient_id]": "",
        "Column of lesions [none]": "",
        "Label to judge by (mean, dx) [dx]": "",
        "Labels to learn from": "10%",
        "Time to spend (10min, 2h, 3d) [10min]": "1 min",
        "GPUs": "0",
    }
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "dermsearch", "init", "walked.yaml"]
    going = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"})
    os.close(theirs)
    screen, until = "", time.monotonic() + 120

    def see(text: str) -> None:
        nonlocal screen
        while text not in screen:
            assert time.monotonic() < until, screen
            if select.select([mine], [], [], 1)[0]:
                screen += os.read(mine, 4096).decode()
        screen = screen[screen.index(text) + len(text) :]

    for question, answer in answers.items():
        see(question)
        if answer or "[" in question or question == "GPUs":
            os.write(mine, f"{answer}\n".encode())
    see("`dermsearch run walked.yaml`")
    assert going.wait(60) == 0
    os.close(mine)
    study = load_study("walked.yaml")
    assert study.main.path == "data/walked" and study.entries["linear"].labelled == ("10%",)
