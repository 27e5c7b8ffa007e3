"""What stands in the fields of a study: names, paths, and the base of its sections."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from dermsearch.settings import Settings

# A folder name, a task name, a label name: nothing that could leave the folder it is meant for.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
# A way to judge, and on which of several data sets: linear, or linear@ham.
EntryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$")]


def _a_path(value: str) -> str:
    """What no file system would take is refused before one is asked."""
    if not value.strip() or not value.isprintable():
        raise ValueError(f"must be the path of a folder in printable characters, not {value[:60]!r}")
    if any(len(os.fsencode(part)) > 255 for part in value.split("/")):
        raise ValueError(f"must have no part longer than 255 bytes, as '{value[:30]}...' has")
    if value.startswith("~") and os.path.expanduser(value) == value:
        raise ValueError(f"there is no home folder '{value.split('/')[0]}'")
    return value


Path = Annotated[str, Field(max_length=1000), AfterValidator(_a_path)]


def _labelled(value: Any) -> Any:
    """20, "20" or "10%"; what is none of them is told in words."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"all|[1-9][0-9]{0,8}|[0-9]{1,3}([.][0-9]{1,6})?%", text):
        raise ValueError(
            f"must be all, a number of cases of every class such as 20, or a share such as 10%, not {value!r}"
        )
    if text.endswith("%") and not 0 < float(text[:-1]) <= 100:
        raise ValueError(f"must be a share above 0 and up to 100 %, not {text}")
    return text


Labelled = Annotated[str, BeforeValidator(_labelled)]


def _tables(value: Any) -> Any:
    """The name of a published table, or a list of them; what is neither is told in words."""
    names = [value] if isinstance(value, str) else value
    if value is None:
        return None
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        said = str(value)[:60]
        raise ValueError(f"must be a published table or a list such as [sm3_table2, sm3_table3], not {said!r}")
    wrong = [name for name in names if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name)]
    if wrong:
        raise ValueError(f"must hold names such as sm3_table2, not {wrong[0][:60]!r}")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise ValueError(f"names '{twice[0]}' twice")
    return value if isinstance(value, str) else tuple(names)


Tables = Annotated[str | tuple[str, ...] | None, BeforeValidator(_tables)]


class Section(Settings):
    """A part of a study: frozen, exact types, no unknown keys, no NaN."""
