"""What stands beside the code for strangers: citation, changes, how to contribute."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from dermsearch import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert told["version"] == __version__ and told["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors", "date-released"} <= told.keys()


def test_what_a_contributor_installs_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for extras in re.findall(r"-e \"\.\[([\w,]+)\]\"", text):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    for script in re.findall(r"python ((?:docs|tests)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("page", ["CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target


def test_changes_are_dated_and_the_latest_come_first() -> None:
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased" and heads[1:] == sorted(heads[1:], reverse=True)
