"""Whatever a page tells to type can be understood: commands by the command line, studies by their reader, Python by
Python, scripts by their own options. `test_pages_run.py` types it. The log is of its day, and no page."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import typer
import yaml
from huggingface_hub import constants
from pages import OWN, ROOT, TEXTS, Block, blocks, commands, found, parsed, shell, spans

from dermsearch.cli.main import app
from dermsearch.errors import UserError
from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.pretext.base import TASKS
from dermsearch.run.check import check
from dermsearch.study.config import Study
from dermsearch.study.load import load_study

# Blocks that nothing reads, by how they begin, and why.
SHOWN = {
    "store.json": "a listing of files",
    "cli/": "the rooms, see test_architecture.py",
    "results/curriculum/": "a listing of files",
    "#": "a leaderboard, held to its tables by tests/results/test_ham10000.py",
    "photo,patient_id,dx,age": "a table, which test_pages_run.py writes",
    "aws": "wants an account",
    "gcloud": "wants an account",
    "az": "wants an account",
    "docker": "builds an image and fills a cluster; tests/clusters reads the files",
}
READ = {"shell", "yaml", "python", "toml"}
OF_READERS = {"mine", "STUDY", "FILE"}  # studies that no page shows
# What no test machine has: the case stores, weights and other lines that a part of a study goes with.
LACKS = ("no case store", "is no file", "hub's cache", "must be one of downstream", "is not one of data")
SECTIONS = {"data", "encoder", "curriculum", "train", "downstream", "objective", "search", "compute"}
BASE: dict[str, Any] = {
    "name": "page", "data": {"source": "synthetic", "modalities": ["derm"]}, "encoder": {"name": "resnet10t"},
    "curriculum": {"tasks": ["simclr"], "length": [1, 1]}, "downstream": {"linear": {}, "finetune": {}},
    "search": {"sampler": "grid", "trials": 4, "pruner": "halving"},
}  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL = [(page, block) for page, text in TEXTS.items() for block in blocks(text)]
COMMANDS = [(page, words) for page, text in TEXTS.items() for words in commands(text)]
SPANS = [(page, span) for page, text in TEXTS.items() for span in dict.fromkeys(spans(text))]


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a reader of a clone stands; without a network, as no test needs one."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def of(told: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A test's arguments, each under the name of its page."""
    told = list(told)
    return {"argvalues": told, "ids": [f"{page}: {' '.join(str(x).split())}"[:70] for page, x in told]}


def test_every_block_of_every_page_is_of_a_kind_that_is_read() -> None:
    assert {block.text.split()[0] for _, block in ALL if block.kind not in READ} == SHOWN.keys()
    assert len(COMMANDS) > 70 and len({page for page, _ in COMMANDS}) >= 16


def read_study(page: str, words: list[str], given: dict[str, Any]) -> None:
    """Where a command names a shipped study it is there, and takes the overrides."""
    name = given.get("study") or (given.get("real") if given.get("quick") else None)
    yamls = [block for where, block in ALL if where == page and block.kind == "yaml"]
    shown = {block.name or yaml.safe_load(block.text).get("name", "") for block in yamls}
    written = {parsed(each)["file"].name for where, each in COMMANDS if where == page and each[0] == "init"}
    if name and not {name, name.removesuffix(".yaml")} & (OF_READERS | shown | written):
        study = load_study(name, given.get("overrides") or [], given.get("quick") or False)
        try:
            check(study)
        except UserError as error:
            assert any(each in str(error) for each in LACKS), error


@pytest.mark.parametrize(("page", "words"), **of(COMMANDS))
def test_a_command_that_stands_alone_is_understood(page: str, words: list[str]) -> None:
    read_study(page, words, parsed(words))


def ways(told: str) -> Iterator[str]:
    """Each of what may stand in one place: `a | b`."""
    either = re.search(r"[\w-]+(?:\s*\|\s*[\w-]+)+", told)
    for one in re.split(r"\s*\|\s*", either[0]) if either else [""]:
        yield told.replace(either[0], one) if either else told


@pytest.mark.parametrize(("page", "told"), **of(each for each in SPANS if each[1].startswith("dermsearch ")))
def test_a_command_in_a_sentence_is_understood(page: str, told: str) -> None:
    """It may lack what a command needs."""
    for way in ways(told.removeprefix("dermsearch ")):
        words = shlex.split(re.sub(r"section\.key=value|[\[\]]|\.\.\.", " ", way))
        options = {option for param in typer.main.get_command(app).params for option in param.opts}
        if not words or words[0] in options:
            continue
        try:
            read_study(page, words, parsed(words))
        except AssertionError as error:
            if not re.search("Missing|requires an argument", str(error)):
                raise
            command, rest = found(words)
            known = {option for param in command.params for option in param.opts}
            assert {word for word in rest if word.startswith("-")} <= known, told


def study_of(text: str) -> dict[str, Any]:
    """A study of which a page shows a part; dots stand for more of a section."""
    told = yaml.safe_load(re.sub(r",\s*\.\.\.", "", text))
    if not set(told) <= Study.model_fields.keys():
        tasks = all(name in TASKS for name in told)
        told = {"curriculum": {"tasks": told, "length": [1, 1]}} if tasks else {"data": {"ours": BASE["data"], **told}}
    if re.search(r",\s*\.\.\.[}\]]", text):
        told = {section: {**BASE[section], **fields} for section, fields in told.items()}
    if "downstream" in told and "objective" not in told:
        told["objective"] = {"protocol": next(iter(told["downstream"])), "label": "mean"}
    return {**BASE, **told}


@pytest.mark.parametrize(("page", "block"), **of(each for each in ALL if each[1].kind == "yaml"))
def test_a_study_or_a_part_of_one_is_sound(page: str, block: Block) -> None:
    study = load_study(study_of(block.text))
    try:
        check(study)
    except UserError as error:
        assert page in OWN or any(each in str(error) for each in LACKS), error


LISTED = {*PROTOCOLS.names()}, {*TASKS.names()}  # once: what is installed takes a while to list


def overrides(span: str) -> list[str]:
    """What a sentence says of a field of the study, of a task or of a protocol, as an override of a study."""
    name, mark, value = re.match(r"([\w.@]*)(: |=|$)(.*)", span).groups()  # type: ignore[union-attr]
    section = name.split(".")[0]
    if not mark or re.search(r"\b[A-Z]{3,}\b|^k$", value) or (name in SECTIONS and value[:1] != "{"):
        return []  # placeholders; of a protocol, whose setting is called as a section
    value = re.sub(r",\s*\.\.\.|\.\.\.", "", value)
    if section.split("@")[0] in LISTED[0]:
        return [f"downstream.{name}={value}"]
    return [f"{name}={value}"] if section in Study.model_fields or section in LISTED[1] else []


PARTS = [(page, span) for page, span in SPANS if re.match(r"[\w.@]+(: |=)", span) and overrides(span)]


@pytest.mark.parametrize(("page", "span"), **of(PARTS))
def test_a_setting_in_a_sentence_is_one(page: str, span: str) -> None:
    try:
        load_study(BASE, overrides(span))
    except UserError as error:
        assert any(each in str(error) for each in LACKS), error


FIELDS = [(p, s) for p, s in SPANS if re.fullmatch(rf"({'|'.join(Study.model_fields)})(\.[a-z_]+)+", s)]


@pytest.mark.parametrize(("page", "span"), **of(each for each in FIELDS if not each[1].endswith(("yaml", ".md"))))
def test_a_field_that_a_sentence_names_is_one(page: str, span: str) -> None:
    """Nothing is worse than what no field takes: then the message is of its value."""
    try:
        load_study(BASE, [f"{span}={{'nothing': [{{}}]}}"])
    except UserError as error:
        assert f"{span}.nothing" in str(error) or "unknown" not in str(error), error


@pytest.mark.parametrize(("page", "block"), **of(each for each in ALL if each[1].kind == "python"))
def test_python_is_python_and_what_it_imports_is_there(page: str, block: Block) -> None:
    shown = {other.name.removesuffix(".py") for where, other in ALL if where == page}
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            assert all(importlib.import_module(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module not in shown:
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


@pytest.mark.parametrize(("page", "block"), **of(each for each in ALL if each[1].kind == "toml"))
def test_a_package_names_what_its_page_shows(page: str, block: Block) -> None:
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    shown = {other.name: other.text for where, other in ALL if where == page}
    for group in groups.values():
        for place in group.values():
            module, _, name = place.partition(":")
            assert re.search(rf"^(class |def |)({name})\b", shown[f"{module}.py"], re.MULTILINE)


NAMES = [(p, m[0]) for p, s in SPANS if (m := re.match(r"dermsearch(\.\w+)+", s)) and m[0] != "dermsearch.generators"]


@pytest.mark.parametrize(("page", "name"), **of(NAMES))
def test_what_a_sentence_names_of_the_package_is_there(page: str, name: str) -> None:
    thing: Any = importlib.import_module("dermsearch")
    for i, part in enumerate(words := name.split(".")):
        if i and not hasattr(thing, part):
            importlib.import_module(".".join(words[: i + 1]))
        thing = getattr(thing, part) if i else thing


INSTALLS = [(p, " ".join(w)) for p, b in ALL if b.kind == "shell" for w in shell(b) if w[0] == "pip"]
INSTALLS += [(page, span) for page, span in SPANS if span.startswith("pip install ")]


@pytest.mark.parametrize(("page", "line"), **of(INSTALLS))
def test_what_is_installed_can_be(page: str, line: str) -> None:
    """Constraints and extras are there; the tests beside the pages of packages install these."""
    words = shlex.split(line)
    assert all((ROOT / words[i + 1]).is_file() for i, word in enumerate(words) if word == "-c")
    for extras in re.findall(r"\.\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


class Understood(Exception):
    """A script would begin now."""


SCRIPTS = sorted({s for _, s in SPANS if re.match(r"(python )?(benchmarks|docs|tests|examples)/[\w/]+\.py\b", s)})


@pytest.mark.parametrize("told", SCRIPTS)
def test_a_script_is_there_and_knows_its_options(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own parser reads what follows its name; nothing of it is done."""
    words = shlex.split(told.removeprefix("python "))
    text = (ROOT / words[0]).read_text()
    if not told.startswith("python "):
        return
    if "ArgumentParser" not in text:
        assert words[1:] == [] or "sys.argv" in text
        return
    real = argparse.ArgumentParser.parse_args

    def read(parser: argparse.ArgumentParser, words: Any = None, namespace: Any = None) -> None:
        real(parser, words, namespace)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read)
    monkeypatch.setattr(sys, "path", [str((ROOT / words[0]).parent), *sys.path])
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(Understood):
        runpy.run_path(words[0], run_name="__main__")
