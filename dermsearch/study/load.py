"""From a file and the command line to a Study, or one message about what is wrong where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from dermsearch.errors import UserError
from dermsearch.study.config import Study
from dermsearch.study.finding import find
from dermsearch.study.overlay import Told, tell
from dermsearch.study.reading import read
from dermsearch.study.wording import QUICK, problem, short


def load_study(study: str, overrides: Sequence[str] = (), quick: bool = False) -> Study:
    """Read, override, check. Raises UserError with one message; starts nothing.

    `quick` lays the study's section of that name over it; command-line overrides go over both. The section is
    checked even where it is not used.
    """
    path = find(study)
    told = tell(path, overrides, quick)
    try:
        found = Study.model_validate(told.raw)
    except ValidationError as error:
        raise UserError(_explain(error, told)) from None
    if not quick:
        _check_quick(path)
    return found


@contextmanager
def located(study: str, overrides: Sequence[str] = (), quick: bool = False) -> Iterator[None]:
    """What turns out wrong with a study after it was loaded is told with its place, too."""
    try:
        yield
    except UserError as error:
        name, colon, text = str(error).partition(": ")
        if not colon or name.split(".")[0] not in Study.model_fields:
            raise
        raise UserError(tell(find(study), overrides, quick).place(name) + text) from None


def _check_quick(path: Path) -> None:
    """Refuse what is wrong within a section `quick` that nobody asked for."""
    if QUICK not in read(path)[0]:
        return
    told = tell(path, (), quick=True)
    try:
        Study.model_validate(told.raw)
    except ValidationError as error:
        if any(told.by_quick(problem(dict(e))[0]) for e in error.errors()):
            raise UserError(_explain(error, told)) from None


def _explain(error: ValidationError, told: Told) -> str:
    """All that pydantic found, as one message about the first mistake; a misspelt key explains a missing one."""
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    problems = [problem(dict(e)) for e in found]
    name, text = problems[0]
    others = sorted({f for f, _ in problems if not f"{name}.".startswith(f"{f}.")})
    if others:
        more = ", ".join(short(f) for f in others[:4]) + ", ..." * (len(others) > 4)
        text += f" ({len(others)} more wrong: {more})"
    return told.place(name) + text
