"""Write docs/reference.md from the models, so that it cannot be wrong: python docs/reference.py"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dermsearch.run.reference import Described, described, first_line, listed, registry_of, settings, settings_of
from dermsearch.study.config import Compute, Curricula, Limits, Objective, Search, Study, Train
from dermsearch.study.data import Camera, Data, People, Variant
from dermsearch.study.encoder import Encoder

PAGE = Path(__file__).with_name("reference.md")
SECTIONS: dict[str, type[BaseModel]] = {
    "the file": Study,
    "data": Data,
    "data.drawn": People,
    "data.variant": Variant,
    "data.variant.camera": Camera,
    "encoder": Encoder,
    "curriculum": Curricula,
    "train": Train,
    "objective": Objective,
    "search": Search,
    "search.budget": Limits,
    "compute": Compute,
}
MAY_BE = {  # where the type says less than a reader needs
    "data.weights": "size, equal, or names with weights",
    "data.variant": "a name, a section, or null",
    "data.variant.camera.cast": "[red, green, blue]",
    "data.variant.skin": "six weights, or null",
    "data.variant.classes": "names with weights, or null",
    "encoder.name": "a name, or {choice: [...]}",
    "encoder.weights": "null, a path or name, a mapping, or {choice: [...]}",
    "curriculum.tasks": "a list of names, or names with settings",
    "curriculum.length": "[shortest, longest]",
    "the file.downstream": "names with settings",
    "objective.mean": "a list of lines of downstream, or null",
}
WORDS = OWN, BOTH = "its own", "knn and linear"  # defaults that are no values
HEAD = """\
# Reference

Every field of a study file, and every setting of what it may name: made from the code by `python docs/reference.py`, so
it is what this version does. `dermsearch tasks NAME` and its sisters print the same, of other packages too, and
`dermsearch schema` is for editors. Where a number, word or truth stands in a task, it may be searched:
`{choice: [a, b]}`, `{log: [low, high]}` or `{range: [low, high]}`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *study(), *tasks(), *protocols(), *others()]) + "\n"


def study() -> Iterator[str]:
    """The sections of a study file."""
    yield "## The study file"
    for name, model in SECTIONS.items():
        yield from ("", f"### {name}" if model is Study else f"### `{name}`", "")
        if about := first_line(model.__doc__ or ""):
            yield from (about, "")
        yield from table(row(name, model, field) for field in settings(model))


def row(section: str, model: type[BaseModel], field: Described) -> Described:
    """A field of a section, in a reader's words."""
    default = model.model_fields[field.name].default
    place = f"{section}.{field.name}"
    if isinstance(default, BaseModel) or place in SECTIONS or field.name in SECTIONS:
        own = field.default if default is None else "" if default is PydanticUndefined else OWN
        return replace(field, kind=MAY_BE.get(place, "a section"), default=own)
    said = BOTH if isinstance(default, dict) else field.default
    return replace(field, kind=MAY_BE.get(place, field.kind), default=said)


def tasks() -> Iterator[str]:
    """Pretext tasks."""
    yield from ("", "## Tasks", "", "For `curriculum.tasks`. Each may also override any field of `train`.")
    for name in shipped("tasks"):
        task = registry_of("tasks").find(name)
        own = ", ".join(f"`{key}: {value}`" for key, value in task.train_defaults.items())
        yield from ("", f"### `{name}`", "", first_line(described("tasks", name)), "")
        if own:
            yield from (f"Unless the study says otherwise: {own}.", "")
        yield from table(settings_of("tasks", name))


def protocols() -> Iterator[str]:
    """Evaluators and fits."""
    yield from ("", "## Protocols", "", "For `downstream`. Each may also have `labelled` and `repeats`, as")
    yield "[protocols](protocols.md) tells."
    for name in shipped("protocols"):
        yield from ("", f"### `{name}`", "", first_line(described("protocols", name)), "")
        yield from table(settings_of("protocols", name))


def others() -> Iterator[str]:
    """Samplers and sources, which have no settings of their own."""
    for kind, what in (("samplers", "`search.sampler`"), ("sources", "`dermsearch data prepare`")):
        yield from ("", f"## {kind.capitalize()}", "", f"For {what}.", "", "| name | what it is |", "|---|---|")
        yield from (f"| `{name}` | {cell(text)} |" for name, package, text in listed(kind) if not package)


def shipped(kind: str) -> list[str]:
    """Names that do not depend on what else is installed."""
    registry = registry_of(kind)
    return [name for name in registry.names() if name in registry.shipped]


def table(rows: Iterable[Described]) -> list[str]:
    """A table of settings, or a word where there are none."""
    found = list(rows)
    if not found:
        return ["No settings."]
    lines = ["| setting | default | may be | what for |", "|---|---|---|---|"]
    for each in found:
        may = ", ".join(filter(None, [each.kind, each.limits]))
        default = each.default if each.default in WORDS else f"`{each.default}`" if each.default else "required"
        lines.append(f"| `{each.name}` | {default} | {cell(may)} | {cell(each.about)} |")
    return lines


def cell(text: str) -> str:
    """Text that may stand in a cell."""
    return text.replace("|", r"\|").replace("<", r"\<").replace("*", r"\*")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
