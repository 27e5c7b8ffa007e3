"""From a file and the command line to a Study: reading, overriding, and saying exactly what is wrong where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from dermsearch.config import Study
from dermsearch.errors import UserError, nearest

LARGEST = 1_000_000  # bytes; a study is a page of text


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, a key may stand once, and aliases cannot explode."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not used in studies")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: '{_short(key)}' stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def shipped_folder() -> Path:
    """The studies that travel with the package: inside it in a wheel, beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "search_spaces"
    return inside if inside.is_dir() else here.parent / "search_spaces"


def find(study: str) -> Path:
    """A path if there is one, else the shipped study of that name."""
    if "\x00" in study or not study.strip() or len(study) > 4000:
        raise UserError("the name of a study must be a file's path or the name of a shipped study")
    path = Path(study)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UserError(f"{study}: is a folder; name the study file in it")
        if path.exists():
            raise UserError(f"{study}: is not a regular file")
    except OSError as error:
        raise UserError(f"{_short(study)}: cannot be read: {error.strerror}") from None
    shipped = {p.name: p for p in sorted(shipped_folder().glob("*.yaml"))}
    for name in (study, f"{study}.yaml"):
        if name in shipped:
            return shipped[name]
    raise UserError(
        f"{_short(study)}: no such file, and no shipped study of that name; {nearest(study, shipped)}"
    )


def load_study(study: str, overrides: Sequence[str] = ()) -> Study:
    """Read, override, check. Raises UserError with one message; starts nothing."""
    path = find(study)
    raw, lines = _read(path)
    given = set()
    for override in overrides:
        given.add(_override(raw, override))
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise UserError(_explain(error, path, lines, given)) from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for a study") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file as plain data, and the line of every field."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: is larger than {LARGEST // 1000} kB; a study is a page of text")
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        raw = yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: not valid YAML: {_short(error.problem or error.context or '')}"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {_short(str(error), 200)}") from None
    except (RecursionError, ValueError, OverflowError) as error:  # absurd nesting, dates or integers
        raise UserError(f"{path}: not valid YAML: {_short(str(error) or 'nested too deeply', 200)}") from None
    if not isinstance(raw, dict):
        sections = ", ".join(Study.model_fields)
        raise UserError(f"{path}: a study is a mapping of sections ({sections}), not {_kind(raw)}")
    lines: dict[str, int] = {}
    _mark(node, "", lines)
    return raw, lines


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
    """Apply `section.key=value` in place; the value is YAML."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"{_short(override)}: an override reads section.key=value, e.g. train.epochs=20")
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError):
        raise UserError(
            f"{name}: '{_short(text)}' is not a value (as in YAML: 3, 0.1, text, [1, 2])"
        ) from None
    curriculum = raw.get("curriculum")
    tasks = curriculum.get("tasks") if isinstance(curriculum, dict) else None
    if isinstance(tasks, (dict, list)) and parts[0] in tasks and parts[0] not in Study.model_fields:
        parts = ["curriculum", "tasks", *parts]  # moco_v2.queue=512 for short
    at: Any = raw
    for i, part in enumerate(parts[:-1]):
        if isinstance(at, dict) and isinstance(at.get(part), list):  # a list of task names
            at[part] = {str(item): {} for item in at[part]}
        if isinstance(at, dict) and at.get(part) is None:
            at[part] = {}
        at = at[part] if isinstance(at, dict) else None
        if not isinstance(at, dict):
            raise UserError(f"{name}: '{'.'.join(parts[: i + 1])}' is a value, not a section")
    at[parts[-1]] = value
    return ".".join(parts)


def _explain(error: ValidationError, path: Path, lines: dict[str, int], given: set[str]) -> str:
    """All that pydantic found, as one message about the first mistake."""
    problems = [problem(dict(e)) for e in error.errors()]
    fields = [field for field, _ in problems]
    message = place(path, problems[0][0], lines, given) + problems[0][1]
    others = sorted({f for f in fields[1:] if f != fields[0]})
    if others:
        message += f" ({len(others)} more wrong: {', '.join(_short(f) for f in others[:4])})"
    return message


def place(path: Path, field: str, lines: dict[str, int], given: set[str]) -> str:
    """'file:line: field: ', or 'command line: field: ' when an override said it."""
    if any(field == g or field.startswith(g + ".") for g in given):
        return f"command line: {_short(field)}: "
    known = field
    while known and known not in lines:
        known = known.rpartition(".")[0]
    line = f":{lines[known]}" if known else ""
    return f"{path}{line}: {_short(field)}: " if field else f"{path}: "


def problem(e: dict[str, Any]) -> tuple[str, str]:
    """(field, what is wrong with it) of one pydantic error."""
    loc = tuple(str(part) for part in e["loc"])
    field, kind, value = ".".join(loc), e["type"], e.get("input")
    if kind == "extra_forbidden":
        return field, f"unknown field; {nearest(loc[-1], _siblings(loc))}"
    if kind == "missing":
        return field, "is missing"
    if kind == "value_error":  # our own sentence; it may name the field within the section
        text = str(e["ctx"]["error"])
        within = re.match(r"([a-z_.]+): ", text)
        if within:
            prefix = "" if "." in within[1] else ".".join((*loc, ""))
            return prefix + within[1], text[within.end() :]
        return field, text
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", e["ctx"]["expected"])
        return field, f"{_say(value)} is not one of {', '.join(allowed)}; {nearest(value, allowed)}"
    if kind == "string_pattern_mismatch":
        return field, f"{_say(value)} must be letters, digits, '.', '_' or '-', at most 64 of them"
    text = e["msg"].replace("Input should be", "must be").replace("Input should have", "must have")
    text = text.replace("a valid dictionary", "a mapping (key: value)").replace("valid ", "")
    return field, f"{_say(value)} is not allowed: {text[:1].lower()}{text[1:]}"


def _siblings(loc: tuple[str, ...]) -> list[str]:
    """The field names that are valid where an unknown one stood."""
    model: type[BaseModel] = Study
    for part in loc[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [
            a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _kind(value: Any) -> str:
    kinds = {
        "NoneType": "nothing",
        "str": "text",
        "int": "a number",
        "float": "a number",
        "bool": "true or false",
    }
    return kinds.get(
        type(value).__name__, {"list": "a list", "dict": "a mapping"}.get(type(value).__name__, "that")
    )


def _say(value: Any) -> str:
    return "nothing" if value is None else f"'{_short(str(value))}'"


def _short(text: str, length: int = 60) -> str:
    """One printable line of a text that a user gave."""
    line = "".join(c if c.isprintable() else "?" for c in str(text))
    return line if len(line) <= length else line[: length - 3] + "..."
