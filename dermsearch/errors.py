"""What a user did wrong, as one sentence. Everything else that is raised is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# s3://key:secret@bucket, the secret with a slash in it or not; hdfs://host:8020/a@b has none.
SECRET = re.compile(r"://(?:[^/@\s:]*:(?!\d+/)[^@\s]*|[^/@\s]*)@")
LONGEST = 1900  # letters of a message
UNSEEN = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")  # colours, and what moves the cursor


class UserError(ValueError):
    """A mistake in a study, a command or a folder: printed as one message, exit code 2, without a URI's secrets."""

    def __str__(self) -> str:
        text = public(super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 205]} ... {text[-200:]}"  # a damaged file's word

    code = 2


class EngineLost(UserError):
    """Ray died under a run: nobody's mistake, nothing failed, but nothing can go on; exit code 1."""

    code = 1


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The ending of an error message: the closest valid name, or all of them when none is close."""
    names, word = list(allowed), str(name)
    # Of names that differ much in length the one must be a part of the other: melanoma is not meant to be mean.
    alike = [each for each in names if abs(len(each) - len(word)) < 4 or each in word or word in each]
    close = difflib.get_close_matches(word, alike, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose from: {', '.join(names)}" if names else "none is available"


def first_line(error: Exception) -> str:
    """What an exception says, short enough for a message, without the secrets of a URI and in no colour."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return public(UNSEEN.sub("", text.split(". Detail:")[0]))[:200]


def public(text: str) -> str:
    """The text without the secrets of the URIs in it."""
    return SECRET.sub("://", text)
