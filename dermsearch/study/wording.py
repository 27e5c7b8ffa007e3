"""What pydantic found wrong with a study, as one sentence that names the field and what would be right."""

from __future__ import annotations

import json
import re
from datetime import date
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from dermsearch.errors import nearest
from dermsearch.study.config import Study

QUICK = "quick"  # the section of a study that --quick lays over the others
SEARCHED = {"choice", "log", "range", "select"}  # a mapping with one of these is a value, not a section

# What is allowed, by the type of pydantic's error; the braces take its context.
_ALLOWED = {
    "int_type": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_unicode": "text in whole Unicode characters",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
}


def problem(e: dict[str, Any]) -> tuple[str, str]:
    """(field, what is wrong with it) of one pydantic error."""
    loc = tuple(str(part) for part in e["loc"] if part != "[key]")
    field, kind, value, ctx = ".".join(loc), e["type"], e.get("input"), e.get("ctx", {})
    if kind == "extra_forbidden":
        return field, f"unknown field; {_meant(loc)}"
    if kind == "missing":
        return field, "is missing" + ": the list is too short" * loc[-1].isdigit()
    if kind == "value_error":  # our own sentence; it may name the field within the section
        text = str(ctx["error"])
        within = re.match(r"([a-z_.]+): ", text)
        if within:
            prefix = "" if "." in within[1] else ".".join((*loc, ""))
            return prefix + within[1], text[within.end() :]
        return field, text
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", ctx["expected"])
        close = nearest(value, allowed) if isinstance(value, str) else ""
        hint = f"; {close}" if close.startswith("did") else ""
        return field, f"must be one of {', '.join(allowed)}, not {say(value)}{hint}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {ctx['min_length']}" if kind == "too_short" else f"at most {ctx['max_length']}"
        return field, f"must have {bound} item{'s' * (not bound.endswith(' 1'))}, not {ctx['actual_length']}"
    if kind == "string_pattern_mismatch":
        return field, f"must be a name (letters, digits, '.', '_', '-', at most 64 in all), not {say(value)}"
    if kind not in _ALLOWED:
        return field, f"{say(value)} is not allowed: {short(e['msg'], 200)}"
    quoted = isinstance(value, str) and re.fullmatch(r"[-+.\deE]+|true|false", value)
    hint = " (without quotes)" if quoted and kind in ("int_type", "float_type", "bool_type") else ""
    if isinstance(value, dict) and value.keys() & SEARCHED:
        hint = ": only what stands under a task in curriculum.tasks is searched"
    hint = " (text goes in quotes)" if kind == "string_type" and isinstance(value, (int, float, date)) else hint
    bounds = {k: f"{v:g}" if isinstance(v, float) else v for k, v in ctx.items()}
    return field, f"must be {_ALLOWED[kind].format(**bounds)}, not {say(value)}{hint}"


def _meant(loc: tuple[str, ...]) -> str:
    """Where an unknown key belongs, or the closest field of the section that it stands in."""
    homes = [f"{section}.{loc[-1]}" for section in Study.model_fields if loc[-1] in _siblings((section, ""))]
    if homes and not get_close_matches(loc[-1], _siblings(loc), cutoff=0.8):
        return "did you mean '" + "' or '".join(homes) + "'?"
    return nearest(loc[-1].lower(), _siblings(loc))


def _siblings(loc: tuple[str, ...]) -> list[str]:
    """The field names that are valid where an unknown one stood."""
    model: type[BaseModel] = Study
    for part in loc[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [*model.model_fields, *([QUICK] if model is Study else [])]


def say(value: Any) -> str:
    """A value as it stands in a study, on one short line."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"'{short(value)}'"
    try:
        return short(json.dumps(value, default=str))
    except ValueError:  # more digits than Python writes out
        return "a huge number"


def short(text: str, length: int = 60) -> str:
    """One printable line of a text that a user gave."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    return line if len(line) <= length else line[: length - 3] + "..."
