"""What is told of tasks, protocols, sources and samplers is what they are."""

import pytest
from pydantic import BaseModel, Field

from dermsearch.run.reference import KINDS, comments, described, kind_of, listed, settings, settings_of

EVERY = [(kind, name) for kind, registry in KINDS.items() for name in registry.names()]


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_listed_with_a_line_each(kind: str) -> None:
    found = listed(kind)
    assert [name for name, _, _ in found] == KINDS[kind].names()
    assert all(len(text) > 8 and text != name for name, _, text in found)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_setting_is_told(kind: str, name: str) -> None:
    assert described(kind, name)
    config = getattr(KINDS[kind].find(name), "Config", None)
    fields = list(config.model_fields) if config is not None else []
    found = settings_of(kind, name)
    assert [setting.name for setting in found] == fields
    assert all(setting.kind and setting.kind != "value" for setting in found)


class Base(BaseModel):
    first: int = Field(3, ge=1, le=9)  # how many


class Made(Base):
    second: float | None = None  # a rate; null: none
    third: tuple[str, ...] = ("a", "b")
    fourth: bool


def test_settings_of_a_model() -> None:
    found = {s.name: (s.kind, s.default, s.limits, s.about) for s in settings(Made)}
    assert found == {
        "first": ("whole number", "3", "at least 1 and at most 9", "how many"),
        "second": ("number or null", "null", "", "a rate; null: none"),
        "third": ("list of word", "[a, b]", "", ""),
        "fourth": ("true | false", "", "", ""),
    }
    assert comments(Made)["first"] == "how many"
    assert kind_of(bytes) == "bytes"
