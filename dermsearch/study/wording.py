"""What pydantic found wrong with a study, as one sentence that names the field and what would be right."""

from __future__ import annotations

import json
import re
from datetime import date
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from dermsearch.errors import nearest, public
from dermsearch.study.config import Study
from dermsearch.words import many

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
    "string_too_short": "text of at least {min_length}",
    "string_too_long": "text of at most {max_length}",
}


# The forms of a field that takes several, by the tags that a study's unions have.
_FORMS = {
    "[one]": "a value",
    "[several]": "a mapping of names",
    "[choice]": "{choice: [...]}",
    "[stage]": "{store: ..., key: ...}",
    "[rates]": "{select: [...]}",
    "[network]": "{name: ..., weights: ...}",
}


def problem(e: dict[str, Any], model: type[BaseModel] = Study) -> tuple[str, str]:
    """(field, what is wrong with it) of one pydantic error of a model.

    What stands in brackets is no part of a field's name: "[key]" is pydantic's, others are tags of a union.
    """
    loc = place(e)
    field, kind, value, ctx = field_of(e), e["type"], e.get("input"), e.get("ctx", {})
    if kind == "extra_forbidden":
        return field, f"unknown field; {_meant(loc, model)}"
    if kind == "missing":
        return field, "is missing" + ": the list is too short" * loc[-1].isdigit()
    if kind == "value_error":  # our own sentence; it may name the field within the section
        text = str(ctx["error"])
        within = WITHIN.match(text)
        return field, unwound(text[within.end() :] if within else text)
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", ctx["expected"])
        close = nearest(value, allowed) if isinstance(value, str) else ""
        hint = f"; {close}" if close.startswith("did") else ""
        return field, f"must be one of {', '.join(allowed)}, not {say(value)}{hint}"
    if kind in ("too_short", "too_long"):
        most = kind == "too_long"
        bound = many(ctx["max_length" if most else "min_length"], "item")
        return field, f"must have at {'most' if most else 'least'} {bound}, not {ctx['actual_length']}"
    if kind == "string_pattern_mismatch":
        return field, f"must be a name (letters, digits, '.', '_', '-', at most 64 in all), not {say(value)}"
    if kind == "union_tag_invalid":
        forms = [form for tag, form in _FORMS.items() if tag in ctx["expected_tags"]]
        return field, f"must be {' or '.join(forms)}, not {say(value)}"
    if kind not in _ALLOWED:
        return field, f"{say(value)} is not allowed: {short(e['msg'], 200)}"
    quoted = isinstance(value, str) and re.fullmatch(r"[-+.\deE]+|true|false", value)
    hint = " (without quotes)" if quoted and kind in ("int_type", "float_type", "bool_type") else ""
    if isinstance(value, dict) and value.keys() & SEARCHED:
        hint = ": only what stands under a task in curriculum.tasks is searched, and what curricula begin with"
    hint = " (text goes in quotes)" if kind == "string_type" and isinstance(value, (int, float, date)) else hint
    bounds = {k: f"{v:g}" if isinstance(v, float) else v for k, v in ctx.items()}
    bounds |= {k: many(ctx[k], "character") for k in ("min_length", "max_length") if k in ctx}
    return field, f"must be {_ALLOWED[kind].format(**bounds)}, not {say(value)}{hint}"


WITHIN = re.compile(r"([a-z][\w.@-]*): ")  # how a sentence begins that names a field of its section


def place(e: dict[str, Any]) -> tuple[str, ...]:
    """Where pydantic found an error, without what is no part of a field's name."""
    return tuple(str(part) for part in e["loc"] if not str(part).startswith("["))


def field_of(e: dict[str, Any]) -> str:
    """The field of one pydantic error."""
    within = WITHIN.match(str(e["ctx"]["error"])) if e["type"] == "value_error" else None
    if within is None:
        return ".".join(place(e))
    return within[1] if "." in within[1] else ".".join((*place(e), within[1]))


def _meant(loc: tuple[str, ...], model: type[BaseModel]) -> str:
    """Where an unknown key belongs, or the closest field of the section that it stands in."""
    key, siblings = loc[-1], _siblings(loc, model)
    sections = Study.model_fields.items() if model is Study else ()
    homes = [f"{name}.{key}" for name, of in sections if any(key in m.model_fields for m in models_in(of.annotation))]
    if homes and not get_close_matches(key, siblings, cutoff=0.8):
        return "did you mean '" + "' or '".join(homes) + "'?"
    return nearest(key.lower(), siblings)


def _siblings(loc: tuple[str, ...], model: type[BaseModel]) -> list[str]:
    """The field names that are valid where an unknown one stood."""
    models = [model]
    for part in loc[:-1]:
        inner = [m for at in models if part in at.model_fields for m in models_in(at.model_fields[part].annotation)]
        models = inner or models  # a name in a mapping or a place in a list: the same model goes on
    names = dict.fromkeys(name for at in models for name in at.model_fields)
    return [*names, *([QUICK] if models == [Study] else [])]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models within an annotation, be it of one, of several by name or of one or nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


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


def unwound(text: str) -> str:
    """A sentence, in which a number with hundreds of digits is cut short."""
    return re.sub(r"\d{40,}", lambda found: f"{found[0][:10]}...", text)


def short(text: str, length: int = 60) -> str:
    """One printable line of a text that a user gave."""
    line = "".join(c if c.isprintable() else "?" for c in public(text))
    return line if len(line) <= length else line[: length - 3] + "..."
