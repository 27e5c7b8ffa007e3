"""docs/reference.md is what the code says: every section, task and protocol, every field with what it is for."""

from __future__ import annotations

import importlib.util
import inspect
import re
import types
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dermsearch.run.reference import registry_of, settings, settings_of
from dermsearch.study.config import Study
from dermsearch.study.encoder import Choice, Finished, Foreign

DOCS = Path(__file__).parents[1] / "docs"
FORMS = {Finished, Foreign}  # of one field, told beside it


@pytest.fixture(scope="module")
def made() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("reference_page", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def models(annotation: Any) -> set[type[BaseModel]]:
    """Every model within a type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        inner = [models(field.annotation) for field in annotation.model_fields.values()]
        return {annotation}.union(*inner)
    return set().union(*(models(each) for each in get_args(annotation)))


def rows(text: str, heading: str) -> dict[str, str]:
    """The settings that stand below a heading, and what each is for."""
    part = text.partition(f"\n### {heading}\n")[2].partition("\n##")[0]
    return dict(re.findall(r"^\| `(\w+)` \| .*? \|(?: .* )?\| (.*) \|$", part, re.MULTILINE))


def test_the_page_is_what_the_code_says(made: types.ModuleType) -> None:
    assert (DOCS / "reference.md").read_text() == made.page(), "`python docs/reference.py` writes it again"


def test_every_model_of_a_study_is_a_section(made: types.ModuleType) -> None:
    left = models(Study) - set(made.SECTIONS.values()) - FORMS
    assert not {m.__name__ for m in left if not issubclass(m, Choice)}


def test_every_field_is_told_with_what_it_is_for(made: types.ModuleType) -> None:
    text = made.page()
    wanted = {("the file" if m is Study else f"`{name}`"): list(settings(m)) for name, m in made.SECTIONS.items()}
    for kind in ("tasks", "protocols"):
        wanted |= {f"`{name}`": settings_of(kind, name) for name in made.shipped(kind)}
    assert len(wanted) >= len(made.SECTIONS) + sum(len(registry_of(kind).shipped) for kind in ("tasks", "protocols"))
    for heading, fields in wanted.items():
        told = rows(text, heading)
        assert list(told) == [field.name for field in fields], heading
        assert not [name for name, about in told.items() if len(about) < 4], heading


def test_a_default_that_is_empty_is_not_called_required(made: types.ModuleType) -> None:
    text = made.page()
    assert '| `description` | `""` |' in text and "| `name` | required |" in text
