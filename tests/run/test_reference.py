"""What is told of tasks, protocols, sources, samplers and domains is what they are."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from dermsearch.errors import UserError
from dermsearch.registry import Registry
from dermsearch.run.check import check
from dermsearch.run.reference import KINDS, comments, described, kind_of, listed, registry_of, settings, settings_of
from dermsearch.run.schema import study_schema
from dermsearch.study.load import load_study

EVERY = [(kind, name) for kind in KINDS for name in registry_of(kind).names()]


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_listed_with_a_line_each(kind: str) -> None:
    found = listed(kind)
    assert [name for name, _, _ in found] == registry_of(kind).names()
    assert all(len(text) > 8 and text != name for name, _, text in found)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_setting_is_told(kind: str, name: str) -> None:
    assert described(kind, name)
    config = getattr(registry_of(kind).find(name), "Config", None)
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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed beside ours: a task that is one, and three that are none."""
    info = tmp_path / "harbour-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: harbour-tasks\nVersion: 1.0\n")
    lines = ["good = good:Good", "raises = raises:Task", "lost = lost:Task", "empty = empty:Task"]
    (info / "entry_points.txt").write_text(
        "\n".join(["[dermsearch.tasks]", *lines, "[dermsearch.protocols]", "worse = raises:Protocol"]) + "\n"
    )
    ours = "from dermsearch.pretext.rotation import Rotation"
    (tmp_path / "good.py").write_text(f'{ours}\n\n\nclass Good(Rotation):\n    """Is this good?"""\n')
    (tmp_path / "raises.py").write_text('"""Which version?"""\n\nraise RuntimeError("wants another torch")\n')
    (tmp_path / "empty.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("good", "raises", "empty"):
        sys.modules.pop(name, None)
    Registry.find.cache_clear()


def test_what_others_bring_is_listed_with_its_package_and_what_is_broken_with_the_reason(package: None) -> None:
    ours = {name: (by, told) for name, by, told in listed("tasks") if name not in registry_of("tasks").shipped}
    fails = "task '{}' of package harbour-tasks cannot be loaded: {}"
    assert ours == {
        "good": ("harbour-tasks", "Is this good?"),
        "raises": (
            "harbour-tasks",
            fails.format("raises", "RuntimeError: wants another torch (raises.py, line 3)"),
        ),
        "lost": ("harbour-tasks", fails.format("lost", "ModuleNotFoundError: No module named 'lost'")),
        "empty": (
            "harbour-tasks",
            fails.format("empty", "AttributeError: module 'empty' has no attribute 'Task'"),
        ),
    }
    assert not [name for name, by, _ in listed("tasks") if by and name not in ours]


def test_a_broken_package_spoils_no_schema_and_no_study_that_does_without_it(package: None) -> None:
    tasks = study_schema()["$defs"]["Curricula"]["properties"]["tasks"]["anyOf"][0]["properties"]
    assert "cannot be loaded" in tasks["raises"]["description"] and "lr" in tasks["good"]["properties"]
    told = {"name": "x", "data": {"modalities": ["derm"]}, "encoder": {"name": "test_resnet"}}
    check(load_study({**told, "curriculum": {"tasks": ["good"], "length": [1, 1]}}))
    with pytest.raises(UserError, match=r"'raises' of package harbour-tasks cannot be loaded: RuntimeError: wants"):
        check(load_study({**told, "curriculum": {"tasks": ["raises"], "length": [1, 1]}}))


LIGHT = """
import sys
from dermsearch.run.reference import listed
assert listed("samplers") and listed("sources") and listed("domains")
assert not {"torch", "timm", "ray"} & sys.modules.keys()
"""


def test_what_needs_no_network_is_listed_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_domain_tells_its_labels_with_their_classes() -> None:
    said = described("domains", "chest")
    assert "pneumothorax: absent, present" in said and "a_marked" in said
