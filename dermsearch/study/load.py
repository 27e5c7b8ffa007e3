"""From a file and the command line to a Study, or one message about what is wrong where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from dermsearch.errors import UserError
from dermsearch.study.config import Study
from dermsearch.study.overlay import Told, tell
from dermsearch.study.wording import field_of, problem, short


def load_study(study: str | Mapping[str, Any], overrides: Sequence[str] = (), quick: bool = False) -> Study:
    """Read a file, a shipped study or a mapping, override, check. Raises UserError with one message; starts nothing.

    `quick` lays the study's section of that name over it; command-line overrides go over both. The section is
    checked even where it is not used.
    """
    told = tell(study, overrides, quick)
    try:
        checked = Study.model_validate(told.raw)
    except ValidationError as error:
        raise UserError(_explain(error, told)) from None
    if told.has_quick and not quick:
        _check_quick(study)
    return checked


@contextmanager
def located(study: str | Mapping[str, Any], overrides: Sequence[str] = (), quick: bool = False) -> Iterator[None]:
    """What turns out wrong with a study after it was loaded is told with its place, too."""
    try:
        yield
    except UserError as error:
        name, colon, text = str(error).partition(": ")
        if not colon or name.split(".")[0] not in Study.model_fields:
            raise
        raise UserError(tell(study, overrides, quick).place(name) + text) from None


def _check_quick(study: str | Mapping[str, Any]) -> None:
    """Refuse what is wrong within a section `quick` that nobody asked for."""
    told = tell(study, (), quick=True)
    try:
        Study.model_validate(told.raw)
    except ValidationError as error:
        if any(map(told.by_quick, fields(error))):
            raise UserError(_explain(error, told)) from None


def _explain(error: ValidationError, told: Told) -> str:
    """All that pydantic found, as one message about the first mistake; a misspelt key explains a missing one."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    name, text = problem(dict(first))
    others = sorted({f for f in fields(error) if not f"{name}.".startswith(f"{f}.")})
    if others:
        more = ", ".join(short(f) for f in others[:4]) + ", ..." * (len(others) > 4)
        text += f" ({len(others)} more wrong: {more})"
    return told.place(name) + text


def fields(error: ValidationError) -> list[str]:
    """The fields that are wrong; to find what was meant by each of thousands would take long."""
    return [field_of(dict(e)) for e in error.errors()]
