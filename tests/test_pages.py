"""What pages tell to type: every command of every page can be understood, and those of the learning pages are run."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.drawn.skin import synthetic
from dermsearch.errors import UserError
from dermsearch.run.check import check
from dermsearch.study.load import load_study

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "clusters/README.md"))]
LEARN = ("start.md", "own_data.md", "study.md", "results.md", "cluster.md")
# What makes a study of a page small; nothing else of a command is changed.
SMALL = [
    *("data.cases=60", "data.size=32", "encoder.name=test_resnet", "train.batch=16", "train.epochs=1"),
    *("compute.engine=inline", "curriculum.length=[1,1]", "downstream.knn.k=5", "search.seeds=[0]"),
    "curriculum.tasks={relative_location: {}, simclr: {}}",
]


def blocks(text: str) -> Iterator[str]:
    """Commands that stand alone, in lines set in by four spaces; a backslash goes on in the next one."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"^ {4}(dermsearch .*)$", text, re.MULTILINE):
        yield re.split(r"\s+#\s|\s&&\s|\s\|\s", line)[0].strip()


def words_of(line: str) -> list[str]:
    """The words behind `dermsearch`; what may be left out is given."""
    return shlex.split(line.replace(" [", " ").replace("] ", " ").rstrip("]") if " [--" in line else line)[1:]


def inline(text: str) -> Iterator[str]:
    """Commands within a sentence, which may lack what a command needs."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for told in re.findall(r"`dermsearch ([^`]+)`", outside):
        yield " ".join(told.split())


def found(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what follows its name."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0][:1].isalpha():
        assert words[0] in command.commands, f"there is no command '{words[0]}'"
        command, words = command.commands[words[0]], words[1:]
    return command, words


BLOCKS = [(page.name, line) for page in PAGES for line in blocks(page.read_text())]


@pytest.mark.parametrize(("page", "line"), BLOCKS, ids=[f"{page}: {line}"[:70] for page, line in BLOCKS])
def test_a_command_that_stands_alone_is_understood(page: str, line: str) -> None:
    command, rest = found(words_of(line))
    command.make_context("dermsearch", rest)


def test_there_are_commands() -> None:
    assert len(BLOCKS) > 60 and {page for page, _ in BLOCKS} >= {*LEARN, "data.md", "search.md", "tasks.md"}


OWN_OPTIONS = {o for p in typer.main.get_command(app).params for o in p.opts}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_a_sentence_exist(page: Path) -> None:
    for told in inline(page.read_text()):
        for way in re.split(r"\s*\|\s*", told) if re.match(r"\w+ \w+\\?\|", told) else [told]:
            if way in OWN_OPTIONS:
                continue
            words = re.split(r"[\s=]+", way.replace("\\", "").replace("[", "").replace("]", ""))
            if words[0] not in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
                assert way != told, f"{page.name}: {told}"
                continue
            command, rest = found(words)
            known = {option for param in command.params for option in param.opts} | {"-h", "--help"}
            assert {word for word in rest if word.startswith("-")} <= known, f"{page.name}: {told}"


STUDIES = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    if re.search("^name:", text, re.MULTILINE) and "\nsimsiam" not in text
]


@pytest.mark.parametrize(("page", "text"), STUDIES, ids=[page for page, _ in STUDIES])
def test_a_study_on_a_page_is_sound(page: str, text: str) -> None:
    told = yaml.safe_load(text)
    study = load_study(told)
    try:
        check(study)
    except UserError as error:  # pages that write a package name what it brings
        assert page in ("tasks.md", "fits.md", "protocols.md", "domains.md", "samplers.md", "sources.md"), error


class Reader:
    """Somebody who types what a page says, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0

    def types(self, page: str) -> str:
        """Every command and every Python block in turn; returns all that was printed."""
        text, said = (ROOT / "docs" / page).read_text(), ""
        for name, block in re.findall(r"(?:^`(\w+\.yaml)`\n\n)?^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            (self.folder / (name or f"{yaml.safe_load(block)['name']}.yaml")).write_text(block)
        for line in blocks(text):
            words = words_of(line)
            asked = CliRunner().invoke(app, [*words, *SMALL] if words[0] == "run" else words)
            assert asked.exit_code == 0 and asked.exception is None, f"{line}\n{asked.output}\n{asked.exception!r}"
            said += asked.output
            self.done += 1
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            exec(compile(code, page, "exec"), {})
        return said


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dermsearch.run.bill.speed", lambda *_: 200.0)
    return Reader(tmp_path)


def photographs(folder: Path, count: int = 60) -> None:
    """`cases.csv` and `photos/` as the page shows them; folders by class; HAM10000 as it is downloaded."""
    ham = folder / "DOWNLOADED" / "HAM10000"
    for part in (folder / "photos", ham / "HAM10000_images_part_1", ham / "HAM10000_images_part_2"):
        part.mkdir(parents=True)
    rows, known = [], ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for i, case in enumerate(synthetic(count, 40, 1)):
        word, picture = ("naevus", "melanoma")[case.labels["diagnosis"] == 2], Image.fromarray(case.images["derm"])
        picture.save(folder / "photos" / f"{i}.png")
        picture.save(ham / f"HAM10000_images_part_{1 + i % 2}" / f"ISIC_{i:07d}.jpg", quality=95)
        rows.append({"photo": f"photos/{i}.png", "patient_id": f"p{i // 2}", "dx": word, "age": 20 + i // 2})
        known.append(f"HAM_{i},ISIC_{i:07d},{('nv', 'mel')[word == 'melanoma']},histo,50,male,back")
    (ham / "HAM10000_metadata.csv").write_text("\n".join(known) + "\n")
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


@pytest.mark.slow
def test_the_first_pages_are_run_one_after_the_other(reader: Reader) -> None:
    """Five minutes, then the results of that run."""
    photographs(reader.folder)
    assert "no pre-training" in reader.types("start.md")
    assert (reader.folder / "features.parquet").is_file()
    said = reader.types("results.md")
    assert r"\begin{tabular}" in said and "Opening 1 of this test split" in said
    assert reader.done > 12


@pytest.mark.slow
def test_the_page_of_ones_own_data_is_run(reader: Reader) -> None:
    photographs(reader.folder)
    said = reader.types("own_data.md")
    assert "60 cases" in said and (reader.folder / "sheet.png").is_file() and (reader.folder / "mine.yaml").is_file()


@pytest.mark.slow
def test_the_page_of_studies_is_run(reader: Reader) -> None:
    said = reader.types("study.md")
    assert "no pre-training" in said and (reader.folder / "study.schema.json").stat().st_size > 10_000


@pytest.mark.slow
def test_the_page_of_clusters_plans(reader: Reader) -> None:
    """What joins a cluster is understood only; what is planned is planned."""
    lines = [line for line in blocks((ROOT / "docs" / "cluster.md").read_text()) if line.startswith("dermsearch plan")]
    done = CliRunner().invoke(app, words_of(*lines))
    assert done.exit_code == 0 and "on a GPU" in done.output
