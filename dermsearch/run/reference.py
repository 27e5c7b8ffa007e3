"""What a study may name, as those who wrote it say: tasks, protocols, sources, samplers, domains, and their settings.

Nothing is written twice: words come from docstrings, settings and their limits from the models, what a setting is for
from its description or the comment beside it. So this cannot be wrong where the code is right.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dermsearch.data.domain import Domain
from dermsearch.errors import UserError
from dermsearch.registry import Registry, attribute
from dermsearch.settings import Settings

KINDS = {  # where the registry of each is
    "tasks": "dermsearch.pretext.base:TASKS",
    "protocols": "dermsearch.evaluate.base:PROTOCOLS",
    "sources": "dermsearch.data.sources.base:SOURCES",
    "samplers": "dermsearch.search.propose.sampler:SAMPLERS",
    "domains": "dermsearch.data.domain:DOMAINS",
}


def registry_of(kind: str) -> Registry:
    """Imported when it is asked for: to list samplers takes no torch."""
    found: Registry = attribute(KINDS[kind])
    return found


@dataclass(frozen=True)
class Described:
    """One setting of a task or protocol."""

    name: str
    kind: str  # number, one of its values, ...
    default: str  # empty where it must be given
    limits: str
    about: str


def listed(kind: str) -> list[tuple[str, str, str]]:
    """Every name of a kind, which package brings it where that is another, and a line: what it is, or why it is not."""
    registry = registry_of(kind)
    found = []
    for name in registry.names():
        try:
            told = first_line(words(registry.find(name), name))
        except UserError as error:
            told = str(error)
        found.append((name, registry.package(name), told))
    return found


def described(kind: str, name: str) -> str:
    """All that one says of itself."""
    return words(registry_of(kind).find(name), name)


def words(thing: Any, name: str) -> str:
    """A docstring: of the file where one file is one thing, else of the class; or a data set's or domain's words."""
    if hasattr(thing, "citation"):
        notes = "".join(f"\n{note}" for note in thing.notes)
        return f"{thing.title}\n{thing.home}\nlicence: {thing.licence}\n{thing.citation}{notes}"
    if isinstance(thing, Domain):
        labels = "\n".join(f"{label}: {', '.join(classes)}" for label, classes in thing.labels.items())
        drawn = f"\ndrawn as: {', '.join(thing.variants)}" if thing.variants else ""
        return f"images: {', '.join(thing.modalities)}; labels: {', '.join(thing.labels)}\n\n{labels}{drawn}"
    module = sys.modules.get(thing.__module__)
    own, whole = inspect.cleandoc(thing.__doc__ or ""), inspect.cleandoc((module and module.__doc__) or "")
    alone = module is not None and len(classes_of(module, thing)) == 1
    text = whole if alone and whole else own or whole
    return text or name


def classes_of(module: types.ModuleType, thing: Any) -> list[Any]:
    """The classes of a module that are of the same kind as this one."""
    kind = next((base for base in thing.__mro__[1:] if base.__module__ != module.__name__), object)
    of = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return [c for c in of if kind is object or issubclass(c, kind)] if hasattr(thing, "__mro__") else [thing]


def settings_of(kind: str, name: str) -> list[Described]:
    """The settings of a task or protocol, in their order; nothing of what has none."""
    config = getattr(registry_of(kind).find(name), "Config", None)
    return list(settings(config)) if inspect.isclass(config) and issubclass(config, BaseModel) else []


def settings(model: type[BaseModel]) -> Iterator[Described]:
    """The fields of a model."""
    beside = comments(model)
    for name, field in model.model_fields.items():
        default = "" if field.default is PydanticUndefined else shown(field.default)
        limits = " and ".join(filter(None, (limit(each) for each in field.metadata)))
        about = field.description or beside.get(name, "")
        yield Described(name, kind_of(field.annotation), default, limits, about)


def kind_of(annotation: Any) -> str:
    """A type, in a reader's words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if each is type(None) else kind_of(each) for each in inner)
    if origin in (tuple, list):
        return f"list of {kind_of(inner[0])}" if inner else "list"
    if hasattr(annotation, "__metadata__"):
        return kind_of(inner[0])
    if inspect.isclass(annotation) and issubclass(annotation, Settings):  # another form of the same setting
        return f"{{{', '.join(f'{n}: {kind_of(f.annotation)}' for n, f in annotation.model_fields.items())}}}"
    name = getattr(annotation, "__name__", "value")
    return {"int": "whole number", "float": "number", "bool": "true | false", "str": "word"}.get(name, name)


def limit(rule: Any) -> str:
    """One bound of a number."""
    for name, sign in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if hasattr(rule, name):
            return f"{sign} {getattr(rule, name):,}"
    return ""


def shown(value: Any) -> str:
    """A default as a study would write it."""
    if value is None or isinstance(value, bool) or value == "":
        return {None: "null", True: "true", False: "false", "": '""'}[value]
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, tuple | list) else str(value)


def comments(model: type[BaseModel]) -> dict[str, str]:
    """What stands beside or above each field in the source, of its own class and of those that it is built on."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        try:
            source = inspect.getsource(cls)
        except (OSError, TypeError):
            continue
        above: list[str] = []
        for line in source.splitlines():
            alone = re.match(r"\s+#\s(?!type:|noqa|fmt)(.+)$", line)
            field = re.match(r"\s+(\w+)\s*:(?:.*?\s#\s(?!type:|noqa|fmt)(.+))?", line)
            if field and field[1] in cls.model_fields and (field[2] or above):
                found[field[1]] = (field[2] or " ".join(above)).strip()
            above = [*above, alone[1].strip()] if alone else []
    return found


def first_line(text: str) -> str:
    """The first line of a docstring, without the name that it may begin with."""
    return text.strip().splitlines()[0] if text.strip() else ""
