"""What the pages say: their blocks, the commands in these, and what is said within sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer

from dermsearch.cli.main import app

ROOT = Path(__file__).parents[1]
NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "clusters/README.md", "results/README.md")
PAGES = {str(p.relative_to(ROOT)): p for p in (*sorted((ROOT / "docs").glob("*.md")), *(ROOT / n for n in NAMED))}
TEXTS = {name.removeprefix("docs/"): page.read_text() for name, page in PAGES.items()}
# Pages of a package that they write: without it its names are unknown.
OWN = ("tasks.md", "fits.md", "protocols.md", "domains.md", "samplers.md", "sources.md")
TOOLS = ("dermsearch", "python", "pip", "pytest", "ruff", "mypy")
UsageError: Any = typer.BadParameter.__base__
FENCED = re.compile(r"(?:^`([\w.]+)`\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n(?:\n(?= {4}))?)+")


class Block(NamedTuple):
    """Lines of code on a page."""

    kind: str  # a language; of what is none, the first word
    name: str  # of the file that it shows, or ""
    text: str


def blocks(text: str) -> Iterator[Block]:
    """All of a page: between fences, or set in by four spaces."""
    for name, language, code in FENCED.findall(text):
        yield Block(language or "text", name, code)
    for code in INDENTED.findall(FENCED.sub("", text)):
        lines = [line[4:] for line in code.splitlines()]
        yield Block(kind_of(lines[0].split()[0]), "", "\n".join(lines) + "\n")


def kind_of(word: str) -> str:
    """The language of lines between which no fence tells it, by their first word."""
    if word in TOOLS:
        return "shell"
    return "yaml" if word.endswith(":") else "python" if word in ("from", "import") else word


def shell(block: Block) -> Iterator[list[str]]:
    """The commands of a block, word by word, without comments; what may be left out is given."""
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        line = line.replace(" [", " ").replace("] ", " ").rstrip("]") if " [--" in line else line
        for part in re.split(r"\s&&\s", line):
            if words := shlex.split(part, comments=True):
                yield words


def commands(text: str) -> Iterator[list[str]]:
    """What follows `dermsearch` in each command that stands alone."""
    for block in blocks(text):
        if block.kind == "shell":
            yield from (words[1:] for words in shell(block) if words[0] == "dermsearch")


def spans(text: str) -> Iterator[str]:
    """Code within sentences."""
    for told in re.findall(r"`([^`]+)`", INDENTED.sub("\n", FENCED.sub("", text))):
        yield " ".join(told.replace(r"\|", "|").split())


def found(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what follows its name."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0][:1].isalpha():
        assert words[0] in command.commands, f"there is no command '{words[0]}'"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of a command: its arguments and options."""
    command, rest = found(words)
    try:
        return command.make_context("dermsearch", [*rest]).params
    except UsageError as error:
        raise AssertionError(f"dermsearch {shlex.join(words)}: {error.format_message()}") from error
