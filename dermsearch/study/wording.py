"""What pydantic found wrong with a study, as one sentence that names the field and what would be right."""

from __future__ import annotations

import json
import re
from datetime import date
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

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


NOWHERE = object()
Path = tuple[Any, ...]  # of a field: the keys and places that lead to it


def problems(error: ValidationError, model: type[BaseModel] = Study, given: Any = None) -> list[tuple[str, str]]:
    """(field, what is wrong with it) of all that pydantic found, the most telling first.

    With what was given, fields are named as they stand there, whatever a validator or a union made of it.
    """
    errors = _spoken([dict(e) for e in error.errors()], given)
    errors.sort(key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    return [problem(e, model) for e in errors]


def _spoken(errors: list[dict[str, Any]], given: Any) -> list[dict[str, Any]]:
    """The errors with a `path` each; of those of one union, only what the member says that was meant."""
    members: dict[Path, dict[str, list[dict[str, Any]]]] = {}
    for e in errors:
        e["path"], union, member = _path(e, given)
        members.setdefault(union, {}).setdefault(member, []).append(e)
    return [e for union, of in members.items() for e in max(of.values(), key=lambda es: _fit(es, len(union)))]


def _fit(errors: list[dict[str, Any]], depth: int) -> tuple[int, int, int]:
    """How well a member of a union at a depth fits: keys and sections that it does not know speak against it."""
    strange = sum(e["type"] in ("extra_forbidden", "model_type") and len(e["path"]) == depth + 1 for e in errors)
    return -strange, max(len(e["path"]) for e in errors), -len(errors)


def _path(e: dict[str, Any], given: Any) -> tuple[Path, Path, str]:
    """Of one error: the path through what was given, where a union stood on it, and pydantic's name of its member."""
    parts = [part for part in e["loc"] if part != "[key]"]
    if given is None:
        return tuple(parts), (), ""
    path: Path = ()
    union: tuple[Path, str] = (), ""
    for i, part in enumerate(parts):
        below = _below(given, part)
        absent = e["type"] == "missing" and i == len(parts) - 1
        if below is NOWHERE and not absent:  # no key of the study, but a name that pydantic or a validator gave
            union = union if union[1] else (path, str(part))
        else:
            given, path = below, (*path, part)
    return path, *union


def _below(given: Any, part: Any) -> Any:
    """What lies under a key or a place of what was given."""
    if isinstance(given, dict):
        return given.get(part, NOWHERE)
    if isinstance(given, list | tuple):
        if isinstance(part, int):
            return given[part] if part < len(given) else NOWHERE
        return None if part in given else NOWHERE  # names alone, each standing for its defaults
    return NOWHERE


def problem(e: dict[str, Any], model: type[BaseModel] = Study) -> tuple[str, str]:
    """(field, what is wrong with it) of one pydantic error of a model."""
    loc = tuple(str(part) for part in e.get("path", e["loc"]) if part != "[key]")
    field, kind, value, ctx = ".".join(loc), e["type"], e.get("input"), e.get("ctx", {})
    if kind == "extra_forbidden":
        return field, f"unknown field; {_meant(e['loc'], model)}"
    if kind == "missing":
        return field, "is missing" + ": the list is too short" * loc[-1].isdigit()
    if kind == "value_error":  # our own sentence; it may name the field within the section
        text = str(ctx["error"])
        within = re.match(r"([a-z][\w.@-]*): ", text)
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


def _meant(loc: Path, model: type[BaseModel]) -> str:
    """Where an unknown key belongs, or the closest field of the section that it stands in."""
    key, siblings = str(loc[-1]), _siblings(loc, model)
    sections = Study.model_fields.items() if model is Study else ()
    homes = [f"{name}.{key}" for name, of in sections if any(key in m.model_fields for m in _models(of.annotation))]
    if homes and not get_close_matches(key, siblings, cutoff=0.8):
        return "did you mean '" + "' or '".join(homes) + "'?"
    return nearest(key.lower(), siblings)


def _siblings(loc: Path, model: type[BaseModel]) -> list[str]:
    """The field names that are valid where an unknown one stood."""
    models = [model]
    for part in loc[:-1]:
        inner = [m for at in models if part in at.model_fields for m in _models(at.model_fields[part].annotation)]
        models = inner or models  # a name in a mapping, a place in a list, a member of a union: the same model goes on
    names = dict.fromkeys(name for at in models for name in at.model_fields)
    return [*names, *([QUICK] if models == [Study] else [])]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models within an annotation, be it of one, of several by name or of one or nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


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
