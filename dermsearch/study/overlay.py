"""A study as its file, its section `quick` and the command line have it, and which of them said what."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dermsearch.errors import UserError
from dermsearch.study.config import Study
from dermsearch.study.finding import find
from dermsearch.study.reading import read, read_value
from dermsearch.study.wording import QUICK, SEARCHED, say, short


@dataclass
class Told:
    """A study as plain data, and who said each of its fields: the file, its section `quick` or the command line."""

    origin: str  # what messages call it
    raw: dict[str, Any]
    lines: dict[str, int]  # of the file, by field
    has_quick: bool = False  # is there such a section, asked for or not?
    quick: set[str] = field(default_factory=set)  # fields that `quick` says
    given: set[str] = field(default_factory=set)  # fields that the command line says

    def by_quick(self, name: str) -> bool:
        """Does the section `quick` say this field?"""
        return _says(self.quick, name, self.lines)

    def place(self, name: str) -> str:
        """'file:line: field: ', or 'command line: field: ' when an override said it."""
        if _says(self.given, name, self.lines):
            return f"command line: {short(name, 150)}: "
        name = f"{QUICK}.{name}" if self.by_quick(name) else name
        known = name
        while known and known not in self.lines:
            known = known.rpartition(".")[0]
        line = f":{self.lines[known]}" if known else ""
        return f"{self.origin}{line}: " + (f"{short(name, 150)}: " if name else "")


def _says(fields: set[str], name: str, lines: dict[str, int]) -> bool:
    """Is it one of the fields, or within one; or, where the file does not have it, around one?"""
    if not fields:
        return False
    parts = name.split(".")
    if any(".".join(parts[:end]) in fields for end in range(len(parts), 0, -1)):
        return True
    return name not in lines and any(f.startswith(f"{name}.") for f in fields)


def tell(study: str | Mapping[str, Any], overrides: Sequence[str], quick: bool) -> Told:
    """The study as its file, its section `quick` where that is asked for, and the command line have it."""
    told = _told(study)
    raw, there = told.raw, told.has_quick
    section = raw.pop(QUICK, None)
    if quick and not there:
        raise UserError(f"--quick: {told.origin} has no section '{QUICK}' with smaller settings")
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


def _told(study: str | Mapping[str, Any]) -> Told:
    if isinstance(study, str):
        path = find(study)
        raw, lines = read(path)
        return Told(short(str(path), 300), raw, lines, QUICK in raw)
    return Told("study", copy.deepcopy(dict(study)), {}, QUICK in study)


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


def _override(raw: dict[str, Any], override: str) -> str:
    """Apply `section.key=value` in place; the value is YAML. Returns the field's whole path."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"command line: '{short(override)}': an override reads section.key=value, e.g. train.epochs=20")
    begin = f"command line: {short(name.strip(), 150)}: "
    if parts[0] == QUICK:
        raise UserError(f"{begin}say {short('.'.join(parts[1:]), 150) or 'section.key'}=... beside --quick instead")
    try:
        value = read_value(text)
    except ValueError as error:
        raise UserError(f"{begin}{error}") from None
    curriculum = raw.get("curriculum")
    tasks = curriculum.get("tasks") if isinstance(curriculum, dict) else None
    for home, names in {"curriculum.tasks": tasks, "downstream": raw.get("downstream")}.items():
        if isinstance(names, dict | list) and parts[0] in names and parts[0] not in Study.model_fields:
            parts = [*home.split("."), *parts]  # moco_v2.queue=512 or knn.k=5 for short
    if isinstance(tasks, list) and parts[:2] == ["curriculum", "tasks"] and len(parts) > 2:
        raw["curriculum"]["tasks"] = {str(task): {} for task in tasks}
    at: Any = raw
    for i, part in enumerate(parts[:-1]):
        if at.get(part) is None:
            at[part] = {}
        at = at[part]
        if not isinstance(at, dict):
            raise UserError(f"{begin}'{short('.'.join(parts[: i + 1]), 150)}' is a value, not a section")
    at[parts[-1]] = value
    return ".".join(parts)
