"""What pages tell to type is typed: every command that stands alone, page by page, in a folder with what it speaks of.

Studies are made small and searches few; nothing else of a command is changed. `test_pages.py` reads what is not run.
"""

from __future__ import annotations

import csv
import shlex
import shutil
import webbrowser
from collections.abc import Mapping
from pathlib import Path

import made_hub
import numpy as np
import pydicom
import pytest
import timm
import torch
import yaml
from data import releases
from data.page import install
from huggingface_hub import constants
from pages import OWN, ROOT, TEXTS, blocks, commands
from PIL import Image
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.drawn.skin import synthetic
from dermsearch.results import load

pytestmark = pytest.mark.slow
CLUSTER = "joins a cluster; `plan` beside it is run"
LEFT = {  # commands that are only read, and why
    "run curriculum.yaml --address auto compute.store=/shared/dermsearch compute.gpus=1": CLUSTER,
    "run uda_made --quick": "minutes; tests/results/papers/test_aiseeme_uda.py runs that study",
}
# Pages that a test of their own types.
ELSEWHERE = {"made.md": "generate/test_page.py"}
TYPED = {
    *OWN, "start.md", "results.md", "own_data.md", "study.md", "cluster.md", "README.md", "encoders.md", "explain.md",
    "report.md", "search.md", "store.md", "data.md", "chest.md",
}  # fmt: skip
SMALL = [
    *("data.cases=60", "data.size=32", "encoder.name=test_resnet", "train.batch=16", "train.epochs=1"),
    *("compute.engine=inline", "curriculum.length=[1,1]", "downstream.knn.k=5", "search.seeds=[0]"),
    "curriculum.tasks={relative_location: {}, simclr: {}}",
]
QUICK = ["--quick", "encoder.name=test_resnet", "compute.engine=inline"]
TINY = ["data.cases=60", "data.size=32", "train.epochs=1", "train.batch=16", "compute.engine=inline"]
MINE = """
name: mine
data: {source: synthetic, cases: 60, size: 32, modalities: [derm]}
encoder: {name: test_resnet}
curriculum: {length: [1, 2], tasks: {moco_v2: {queue: 32}, odc: {clusters: 2}}}
train: {epochs: 1, batch: 16}
downstream: {knn: {k: 5}, finetune: {epochs: 1, batch: 16}}
objective: {protocol: knn, metric: balanced_accuracy, label: mean}
compute: {engine: inline}
"""


class Reader:
    """Somebody who types what a page says, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.typed = folder, 0

    def type(self, *words: str) -> str:
        """One command, and what it prints."""
        asked = CliRunner().invoke(app, words)
        line = f"dermsearch {shlex.join(words)}"
        assert asked.exit_code == 0 and asked.exception is None, f"{line}\n{asked.output}\n{asked.exception!r}"
        self.typed += 1
        return asked.output

    def types(self, page: str, small: list[str] = SMALL, instead: Mapping[str, list[str]] | None = None) -> str:
        """Every study is written and every command typed in turn, then Python is run; returns all that was printed.

        `instead`: what stands for a placeholder, one thing after the other.
        """
        said, names = "", {word: iter(each) for word, each in (instead or {}).items()}
        for kind, name, text in blocks(TEXTS[page]):
            if kind == "yaml" and "\nname:" in f"\n{text}":
                (self.folder / (name or f"{yaml.safe_load(text)['name']}.yaml")).write_text(text)
        for words in commands(TEXTS[page]):
            if shlex.join(words) not in LEFT:
                given = [next(names[word]) if word in names else word for word in words]
                said += self.type(*given, *{"run": small, "replay": ["--repeats", "2"]}.get(words[0], []))
        for kind, name, text in blocks(TEXTS[page]):
            if kind == "python" and not name:
                exec(compile(text, page, "exec"), {"__name__": "page"})
        return said


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """In a folder with photographs, their table, data sets as they are downloaded, and a table of results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dermsearch.run.bill.speed", lambda *_: 200.0)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    photographs(tmp_path)
    for name in ("curriculum", "a", "b"):
        shutil.copytree(ROOT / "results" / "first_run", tmp_path / "results" / name)
    return Reader(tmp_path)


def photographs(folder: Path, count: int = 60) -> None:
    """`cases.csv` and `photos/` as pages show them; folders by class; HAM10000 as it is downloaded."""
    ham = folder / "DOWNLOADED" / "HAM10000"
    for part in (folder / "photos", ham / "HAM10000_images_part_1", ham / "HAM10000_images_part_2"):
        part.mkdir(parents=True)
    rows, known = [], ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for i, case in enumerate(synthetic(count, 40, 1)):
        word, picture = ("naevus", "melanoma")[case.labels["diagnosis"] == 2], Image.fromarray(case.images["derm"])
        picture.save(folder / "photos" / f"{i}.png")
        picture.save(ham / f"HAM10000_images_part_{1 + i % 2}" / f"ISIC_{i:07d}.jpg", quality=95)
        row = {"photo": f"photos/{i}.png", "patient_id": f"p{i // 2}", "dx": word, "age": 20 + i // 2}
        rows.append(
            {**row, "dermoscopy": row["photo"], "diagnosis": word, "lesion_id": f"l{i}", "sex": "fm"[i // 2 % 2]}
        )
        known.append(f"HAM_{i},ISIC_{i:07d},{('nv', 'mel')[word == 'melanoma']},histo,50,male,back")
    (ham / "HAM10000_metadata.csv").write_text("\n".join(known) + "\n")
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def trained(reader: Reader, study: str) -> str:
    """A study of the reader's own, run; returns the key of a stage of it."""
    name = yaml.safe_load(study)["name"]
    (reader.folder / f"{name}.yaml").write_text(study)
    reader.type("run", f"{name}.yaml")
    stages = load(reader.folder / "results" / name).pandas("stages")
    return str(stages[stages.curriculum == stages.task].key.iloc[0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which `mine.yaml` was run, and the key of one of its stages."""
    folder = tmp_path_factory.mktemp("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, trained(Reader(folder), MINE)


@pytest.fixture
def key(reader: Reader, finished: tuple[Path, str]) -> str:
    """That study in the reader's folder."""
    shutil.copytree(finished[0], reader.folder, dirs_exist_ok=True)
    return finished[1]


def test_every_page_is_typed() -> None:
    told = {page: [shlex.join(words) for words in commands(text)] for page, text in TEXTS.items()}
    assert {page for page, lines in told.items() if lines} <= TYPED | ELSEWHERE.keys()
    assert all((ROOT / "tests" / path).is_file() for path in ELSEWHERE.values())
    assert LEFT.keys() <= {line for lines in told.values() for line in lines}


def test_the_first_pages_are_run_one_after_the_other(reader: Reader) -> None:
    """Five minutes, then the results of that run."""
    assert "no pre-training" in reader.types("start.md")
    assert (reader.folder / "features.parquet").is_file()
    said = reader.types("results.md")
    assert r"\begin{tabular}" in said and "Opening 1 of this test split" in said
    assert reader.typed > 12


def test_the_page_of_ones_own_data_is_run(reader: Reader) -> None:
    said = reader.types("own_data.md")
    assert "60 cases" in said and (reader.folder / "sheet.png").is_file() and (reader.folder / "mine.yaml").is_file()


def test_the_page_of_studies_is_run(reader: Reader) -> None:
    said = reader.types("study.md")
    assert "no pre-training" in said and (reader.folder / "study.schema.json").stat().st_size > 10_000


def test_the_page_of_clusters_plans(reader: Reader) -> None:
    """What joins a cluster is understood only; what is planned is planned."""
    assert "on a GPU" in reader.types("cluster.md")


def test_the_readme_is_run(reader: Reader) -> None:
    (reader.folder / "search_spaces").symlink_to(ROOT / "search_spaces")
    said = reader.types("README.md", QUICK, {"PATH": ["DOWNLOADED/HAM10000"], "data/mine": ["data/mine", "data/too"]})
    assert said.count("no pre-training") >= 2 and (reader.folder / "sheet.png").is_file()


def test_encoders_come_in_and_leave(reader: Reader, key: str) -> None:
    hub = reader.folder / "hub"
    made_hub.repository(hub)
    made_hub.repository(hub, "timm/resnet10t.c3_in1k", "resnet10t")
    made_hub.repository(hub, "timm/resnet50.a1_in1k", "resnet50")
    made_hub.repository(hub, "ORG/NAME")
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), "mine.pth")
    (reader.folder / "more").mkdir()
    Image.open("photos/0.png").save("more/0.jpg")
    reader.type("data", "prepare", "folder", "photos", "-o", "data/ours", "--split-by", "image")
    reader.type("export", "results/mine", "-o", "exported")
    reader.types("encoders.md", instead={"1a2b3c": [key[:6]], "encoder": [f"encoder{i}" for i in (1, 2, 3, 1)]})
    assert all((reader.folder / name).is_file() for name in ("features.parquet", "predictions.csv"))


def test_results_are_explained_reported_and_replayed(reader: Reader, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda page: opened.append(page) or True)
    for page in ("explain.md", "report.md", "search.md"):
        reader.types(page)
    assert len(opened) == 1 and (reader.folder / "both.html").is_file()
    assert all((reader.folder / name).is_file() for name in ("why.csv", "why.png", "costs.csv", "regret.png"))


def test_a_store_is_looked_after(reader: Reader, key: str) -> None:
    said = reader.types("store.md", instead={"STORE": ["results/store"] * 3})
    assert "moco_v2" in said


def test_cases_lend_and_are_found(reader: Reader, key: str) -> None:
    prepare = ["data", "prepare", "csv", "cases.csv", "--image", "derm=photo", "--label", "diagnosis", "--patient"]
    reader.type(*prepare, "patient_id", "--metadata", "age", "-o", "lends")
    reader.type(*prepare, "patient_id", "-o", "borrows")
    table = (reader.folder / "cases.csv").read_text().splitlines(keepends=True)
    for name, rows in (("isic", table[1:31]), ("derm7pt", table[31:])):  # what is mixed shares no image
        (reader.folder / f"{name}.csv").write_text("".join([table[0], *rows]))
        reader.type(*prepare[:3], f"{name}.csv", *prepare[4:], "patient_id", "-o", f"data/{name}")
    places = {"TARGET": ["borrows"], "REFERENCE": ["lends"], "STORE": ["lends"], "KEY": [key, key]}
    reader.types("data.md", instead=places)
    assert all((reader.folder / name).is_file() for name in ("rows.arrow", "rows-random.arrow", "found.png"))


def enlarge(folder: Path, side: int) -> None:
    """Releases for tests that read no pixels have pictures smaller than a store takes."""
    rng = np.random.default_rng(0)
    for path in folder.rglob("*.*"):
        pixels = rng.integers(0, 256, (side, side))
        if path.suffix in (".jpg", ".png"):
            Image.fromarray(pixels.astype(np.uint8)).resize((2 * side, 2 * side)).save(path)
        elif path.suffix == ".dcm":
            scan = pydicom.dcmread(path)
            scan.Rows, scan.Columns, scan.PixelData = side, side, (pixels * 16).astype("<u2").tobytes()
            scan.save_as(path, enforce_file_format=True)


def test_chests_are_prepared_and_looked_at(reader: Reader) -> None:
    text = next(block.text for block in blocks(TEXTS["chest.md"]) if block.kind == "yaml")
    study = yaml.safe_load(text)
    for data in study["data"].values():
        data |= {"cases": 60, "size": 48}
    study |= {"encoder": {"name": "test_resnet"}, "train": {"epochs": 1, "batch": 16}, "downstream": {"linear": {}}}
    study["curriculum"] = {"tasks": ["rotation"], "length": [1, 1]}
    (reader.folder / "chest.yaml").write_text(yaml.safe_dump(study))
    key = trained(reader, yaml.safe_dump(study))
    names = ("chexpert", "chestxray14", "siim_covid")
    paths = [str(getattr(releases, name)(reader.folder / "DOWNLOADED" / name)) for name in names]
    enlarge(reader.folder / "DOWNLOADED", 48)
    for scan in (reader.folder / "DOWNLOADED").rglob("*.dcm"):
        mask = Image.new("L", (48, 48))
        mask.paste(255, (10, 10, 30, 30))
        (reader.folder / "MASKS").mkdir(exist_ok=True)
        mask.save(reader.folder / "MASKS" / f"{scan.stem}_mask.png")
    reader.types("chest.md", instead={"PATH": paths, "STUDY_OR_STORE": ["chest.yaml"], "KEY": [key]})
    assert (reader.folder / "maps.png").is_file()


@pytest.mark.parametrize("page", OWN)
def test_a_page_of_a_package_is_typed(page: str, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package in place; that pip installs it is shown by e2e/test_third_party.py."""
    from e2e.test_third_party import release

    install(page, reader.folder, monkeypatch)
    release(reader.folder / "DOWNLOADED" / "FOLDER")
    reader.types(page, [*TINY, *["moco_v2.queue=32"] * ("moco_v2" in TEXTS[page])])
