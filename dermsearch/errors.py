"""What a user did wrong, as one sentence. Everything else that is raised is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

SECRET = re.compile(r"://[^/@\s]*@")  # s3://key:secret@bucket


class UserError(ValueError):
    """A mistake in a study, a command or a folder: printed as one message, exit code 2."""

    code = 2


class EngineLost(UserError):
    """Ray died under a run: nobody's mistake, nothing failed, but nothing can go on; exit code 1."""

    code = 1


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The ending of an error message: the closest valid name, or all of them when none is close."""
    names = list(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"choose from: {', '.join(names)}" if names else "none is available"


def first_line(error: Exception) -> str:
    """What an exception says, short enough for a message, and without the secrets of a URI."""
    text = (str(error) or type(error).__name__).splitlines()[0]
    return SECRET.sub("://", text.split(". Detail:")[0][:200])
