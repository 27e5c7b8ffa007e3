"""Asking: a question has a default, and is put again until the answer can be understood."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from dermsearch.errors import UserError, nearest

T = TypeVar("T")
UNITS = {"m": 1 / 60, "min": 1 / 60, "h": 1.0, "d": 24.0}
TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(min|m|h|d)(?:utes?|inutes?|ours?|ays?)?", re.IGNORECASE)


class Asker:
    """Asks until an answer can be understood; with `yes` it takes the default instead."""

    def __init__(self, yes: bool) -> None:
        self.yes = yes

    def __call__(self, question: str, default: str, given: str | None, read: Callable[[str], T]) -> T:
        """The answer, read; what was given on the command line is not asked."""
        if given is not None or self.yes:
            return read(default if given is None else given)
        while True:
            try:
                return read(str(typer.prompt(question, default=default)).strip())
            except UserError as error:
                print(re.sub(r"^(--)?\w+: ", "", str(error)))  # what was asked stands above

    def sure(self, question: str) -> bool:
        """Yes or no; no where nobody can be asked."""
        return not self.yes and typer.confirm(question, default=False)


def present(text: str) -> str:
    """A path that is there."""
    if not Path(text).expanduser().exists():
        raise UserError(
            f"--data: there is no '{text}'; say built-in, the path of a store, folder or table, or NAME:PATH"
        )
    return str(Path(text).expanduser())


def lies_here(text: str) -> str:
    """The same of an answer to a question, which has said what path it wants."""
    if not Path(text).expanduser().exists():
        raise UserError(f"there is no '{text}' here")
    return str(Path(text).expanduser())


def one(text: str, allowed: Sequence[str], what: str) -> str:
    """One of these words."""
    if text not in allowed:
        raise UserError(f"{what}: '{text}' is none of them; {nearest(text, allowed)}")
    return text


def several(text: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Some of these words, each once, in their order; commas or spaces part them."""
    named = {one(part, allowed, "--modalities") for part in re.split(r"[\s,]+", text.strip())}
    return tuple(each for each in allowed if each in named)


def share(text: str) -> str:
    """All, a number or a share of labels; `20 of every class`, as it is asked for, is 20."""
    text = re.sub(r"\s*(of every|per|a) class$", "", text)
    if not re.fullmatch(r"all|[1-9]\d{0,6}|(?:[1-9]\d?|100)(?:\.\d+)?%", text):
        raise UserError(
            f"--labelled: must be all, a number of every class such as 20, or a share such as 10%, not '{text}'"
        )
    return text


def hours_of(text: str) -> float:
    """10min, 2h, 3 days."""
    found = TIME.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise UserError(f"--time: must be a number with min, h or d behind it, such as 10min or 2h, not '{text}'")
    return float(found[1]) * UNITS[found[2].lower()]


def whole(text: str) -> int:
    """A whole number."""
    if not text.isdecimal():
        raise UserError(f"--gpus: must be a number such as 0 or 1, not '{text}'")
    return int(text)
