"""From a file and the command line to a Study: reading, overriding, and saying exactly what is wrong where."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from dermsearch.errors import UserError, nearest
from dermsearch.study.config import Study

LARGEST = 1_000_000  # bytes; a study is a page of text
DEEPEST = 20  # levels of nesting
STANDARD = "tag:yaml.org,2002:"  # how YAML's own tags begin
QUICK = "quick"  # the section of a study that --quick lays over the others
SEARCHED = {"choice", "log", "range", "select"}  # a mapping with one of these is a value, not a section


class _Refused(yaml.YAMLError):
    """Something that YAML allows and a study does not, with the line that it stands in."""

    def __init__(self, mark: Any, text: str) -> None:
        super().__init__(text)
        self.line = mark.line + 1


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, a key is a word that stands once, and nothing can explode."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(event.start_mark, "aliases (*name) are not used in studies")
        if getattr(event, "tag", None) is not None:
            tag = _short(event.tag.replace(STANDARD, "!!"))
            raise _Refused(event.start_mark, f"tags ({tag}) are not used in studies")
        if self.depth == DEEPEST:
            raise _Refused(event.start_mark, f"nested more than {DEEPEST} levels deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key, mark = key_node.value, key_node.start_mark
            if key_node.tag != f"{STANDARD}str":
                given = f"'{_short(key)}'" if isinstance(key, str) else "a list or mapping"
                raise _Refused(mark, f"{given} cannot be a key; a key is a plain word")
            if key in seen:
                raise _Refused(mark, f"'{_short(key)}' stands twice in the same section")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, yaml.constructor.ConstructorError):  # 2020-13-45, a million digits
            text = f"'{_short(str(node.value))}' cannot be read as a value; text goes in quotes"
            raise _Refused(node.start_mark, text) from None


_Loader.add_implicit_resolver(
    f"{STANDARD}float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def shipped_folder() -> Path:
    """The studies that travel with the package: inside it in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "search_spaces"
    return inside if inside.is_dir() else here.parent / "search_spaces"


def find(study: str) -> Path:
    """A path if there is one, else the shipped study of that name."""
    if "\x00" in study or not study.strip():
        raise UserError("STUDY: must be the path of a file or the name of a shipped study")
    path, shown = Path(study), _short(study, 300)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UserError(f"{shown}: is a folder; name the study file in it")
        if path.exists():
            raise UserError(f"{shown}: is not a regular file")
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from None
    shipped = {p.name: p for p in sorted(shipped_folder().glob("*.yaml"))}
    for name in (study, f"{study}.yaml"):
        if name in shipped:
            return shipped[name]
    raise UserError(f"{shown}: no such file, and no shipped study of that name; {nearest(study, shipped)}")


@dataclass
class Told:
    """A study as plain data, and who said each of its fields: the file, its section `quick` or the command line."""

    path: Path
    raw: dict[str, Any]
    lines: dict[str, int]  # of the file, by field
    quick: set[str] = field(default_factory=set)  # fields that `quick` says
    given: set[str] = field(default_factory=set)  # fields that the command line says

    def by_quick(self, name: str) -> bool:
        """Does the section `quick` say this field?"""
        return _says(self.quick, name, self.lines)

    def place(self, name: str) -> str:
        """'file:line: field: ', or 'command line: field: ' when an override said it."""
        if _says(self.given, name, self.lines):
            return f"command line: {_short(name, 150)}: "
        name = f"{QUICK}.{name}" if self.by_quick(name) else name
        known = name
        while known and known not in self.lines:
            known = known.rpartition(".")[0]
        line = f":{self.lines[known]}" if known else ""
        return f"{_short(str(self.path), 300)}{line}: " + (f"{_short(name, 150)}: " if name else "")


def _says(fields: set[str], name: str, lines: dict[str, int]) -> bool:
    return any(f"{name}.".startswith(f"{f}.") or (f.startswith(f"{name}.") and name not in lines) for f in fields)


def load_study(study: str, overrides: Sequence[str] = (), quick: bool = False) -> Study:
    """Read, override, check. Raises UserError with one message; starts nothing.

    `quick` lays the study's section of that name over it; command-line overrides go over both. The section is
    checked even where it is not used.
    """
    path = find(study)
    told = _told(path, overrides, quick)
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
        raise UserError(_told(find(study), overrides, quick).place(name) + text) from None


def _told(path: Path, overrides: Sequence[str], quick: bool) -> Told:
    """The study as its file, its section `quick` where that is asked for, and the command line have it."""
    raw, lines = _read(path)
    told = Told(path, raw, lines)
    there, section = QUICK in raw, raw.pop(QUICK, None)
    if quick and not there:
        raise UserError(f"--quick: {_short(str(path), 300)} has no section '{QUICK}' with smaller settings")
    if there and not isinstance(section, dict):
        raise UserError(f"{told.place(QUICK)}must be a mapping (key: value), not {say(section)}")
    if there and "name" in section:
        raise UserError(f"{told.place(f'{QUICK}.name')}cannot be given; with --quick a study is called NAME-{QUICK}")
    if quick:
        told.quick = set(_lay_over(raw, section))
        if isinstance(raw.get("name"), str):
            raw["name"] += f"-{QUICK}"  # quick results never lie among real ones
    told.given = {_override(raw, override) for override in overrides}
    return told


def _check_quick(path: Path) -> None:
    """Refuse what is wrong within a section `quick` that nobody asked for."""
    if QUICK not in _read(path)[0]:
        return
    told = _told(path, (), quick=True)
    try:
        Study.model_validate(told.raw)
    except ValidationError as error:
        if any(told.by_quick(problem(dict(e))[0]) for e in error.errors()):
            raise UserError(_explain(error, told)) from None


def _lay_over(raw: dict[str, Any], section: dict[str, Any], within: str = "") -> Iterator[str]:
    """Lay the section over the study in place; null takes a field out. Yields the whole path of what it says."""
    for key, value in section.items():
        name, below = f"{within}.{key}".strip("."), raw.get(key)
        if name == "curriculum.tasks" and isinstance(below, list):
            below = {str(task): {} for task in below}
        if value is None:
            raw.pop(key, None)
            yield name
        elif value and isinstance(value, dict) and not value.keys() & SEARCHED and isinstance(below, dict | None):
            raw[key] = dict(below or {})
            yield from _lay_over(raw[key], value, name)
        else:
            raw[key] = value
            yield name


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file as plain data, and the line of every field."""
    shown = _short(str(path), 300)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UserError(f"{shown}: is larger than {LARGEST // 1000} kB; a study is a page of text")
        text = data.decode("utf-8")
        loader = _Loader(text)
        node = loader.get_single_node()
        raw = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}:{line}: is not text in UTF-8") from None
    except _Refused as error:
        raise UserError(f"{shown}:{error.line}: {error}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{shown}:{line}: the character U+{int(error.character):04X} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{shown}:{_syntax(error)}") from None
    if not isinstance(raw, dict):
        sections = ", ".join(Study.model_fields)
        raise UserError(f"{shown}: a study is a mapping of sections ({sections}), not {say(raw)}")
    lines: dict[str, int] = {}
    _mark(node, "", lines)
    return raw, lines


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """'line: not valid YAML: why', and where the part began that did not come out right."""
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    why = error.problem or error.context or ""
    for jargon, meaning in _MEANING.items():
        why = meaning if jargon in why else why
    text = f"{mark.line + 1 if mark else 1}: not valid YAML: {_short(why, 100)}"
    if begun and mark and begun.line < mark.line and re.search("flow|quoted", error.context or ""):
        text += f"; what began in line {begun.line + 1} is not closed"
    return text


# What the YAML parser says, and what it mostly means.
_MEANING = {
    "found another document": "a second document begins; a study is one",
    "<block": "the line does not fit the indentation of those above it",
    "<stream end>": "the file ends too early",
    "unexpected end of stream": "the file ends too early",
    "mapping values are not allowed": "a 'key:' cannot stand here; see the line above and the indentation",
    r"'\t'": "a tab cannot indent a line; use spaces",
    "could not find expected ':'": "this line or the one above has no 'key:'",
}


def _mark(node: Any, prefix: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            lines[name] = key.start_mark.line + 1
            _mark(value, name, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[f"{prefix}.{i}"] = value.start_mark.line + 1
            _mark(value, f"{prefix}.{i}", lines)


def _override(raw: dict[str, Any], override: str) -> str:
    """Apply `section.key=value` in place; the value is YAML. Returns the field's whole path."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise UserError(
            f"command line: '{_short(override)}': an override reads section.key=value, e.g. train.epochs=20"
        )
    begin = f"command line: {_short(name.strip(), 150)}: "
    if parts[0] == QUICK:
        raise UserError(f"{begin}say {_short('.'.join(parts[1:]), 150) or 'section.key'}=... beside --quick instead")
    try:
        value = yaml.load(text, Loader=_Loader)
    except _Refused as error:
        raise UserError(f"{begin}{error}") from None
    except yaml.YAMLError:
        raise UserError(f"{begin}'{_short(text)}' is not a value, such as 3, 0.1, text or [1, 2]") from None
    curriculum = raw.get("curriculum")
    tasks = curriculum.get("tasks") if isinstance(curriculum, dict) else None
    if isinstance(tasks, (dict, list)) and parts[0] in tasks and parts[0] not in Study.model_fields:
        parts = ["curriculum", "tasks", *parts]  # moco_v2.queue=512 for short
    if isinstance(tasks, list) and parts[:2] == ["curriculum", "tasks"] and len(parts) > 2:
        raw["curriculum"]["tasks"] = {str(task): {} for task in tasks}
    at: Any = raw
    for i, part in enumerate(parts[:-1]):
        if at.get(part) is None:
            at[part] = {}
        at = at[part]
        if not isinstance(at, dict):
            raise UserError(f"{begin}'{_short('.'.join(parts[: i + 1]), 150)}' is a value, not a section")
    at[parts[-1]] = value
    return ".".join(parts)


def _explain(error: ValidationError, told: Told) -> str:
    """All that pydantic found, as one message about the first mistake; a misspelt key explains a missing one."""
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    problems = [problem(dict(e)) for e in found]
    name, text = problems[0]
    others = sorted({f for f, _ in problems if not f"{name}.".startswith(f"{f}.")})
    if others:
        more = ", ".join(_short(f) for f in others[:4]) + ", ..." * (len(others) > 4)
        text += f" ({len(others)} more wrong: {more})"
    return told.place(name) + text


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
        return field, f"{say(value)} is not allowed: {_short(e['msg'], 200)}"
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
        return f"'{_short(value)}'"
    try:
        return _short(json.dumps(value, default=str))
    except ValueError:  # more digits than Python writes out
        return "a huge number"


def _short(text: str, length: int = 60) -> str:
    """One printable line of a text that a user gave."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    return line if len(line) <= length else line[: length - 3] + "..."
