"""YAML as plain data, with the line of every field; what a study does not need of YAML is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dermsearch.errors import UserError
from dermsearch.regular import without_waiting
from dermsearch.study.config import Study
from dermsearch.study.wording import say, short

LARGEST = 1_000_000  # bytes; a study is a page of text
DEEPEST = 20  # levels of nesting
STANDARD = "tag:yaml.org,2002:"  # how YAML's own tags begin


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
            tag = short(event.tag.replace(STANDARD, "!!"))
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
                given = f"'{short(key)}'" if isinstance(key, str) else "a list or mapping"
                raise _Refused(mark, f"{given} cannot be a key; a key is a plain word")
            if key in seen:
                raise _Refused(mark, f"'{short(key)}' stands twice in the same section")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, yaml.constructor.ConstructorError):  # 2020-13-45, a million digits
            text = f"'{short(str(node.value))}' cannot be read as a value; text goes in quotes"
            raise _Refused(node.start_mark, text) from None


_Loader.add_implicit_resolver(
    f"{STANDARD}float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_value(text: str) -> Any:
    """One value as it may stand in a study, such as 3, 0.1, text or [1, 2]; ValueError says what is wrong with it."""
    try:
        return yaml.load(text, Loader=_Loader)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except yaml.YAMLError:
        raise ValueError(f"'{short(text)}' is not a value, such as 3, 0.1, text or [1, 2]") from None


def text_of(path: Path) -> str:
    """What a study's file says, which is no more than a page."""
    shown = short(str(path), 300)
    try:
        with open(path, "rb", opener=without_waiting) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UserError(f"{shown}: is larger than {LARGEST // 1000} kB; a study is a page of text")
        return data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}:{line}: is not text in UTF-8") from None


def read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The file as plain data, and the line of every field."""
    shown, text = short(str(path), 300), text_of(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        raw = None if node is None else loader.construct_document(node)
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
    text = f"{mark.line + 1 if mark else 1}: not valid YAML: {short(why, 100)}"
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
