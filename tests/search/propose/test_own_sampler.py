"""A sampler in a module of somebody else's, made by following docs/samplers.md to the letter."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from conftest_search import Bench, make_study

from dermsearch import registry
from dermsearch.engines.inline import run_inline
from dermsearch.errors import UserError
from dermsearch.run.check import check
from dermsearch.search.propose.replay import replay
from dermsearch.search.propose.sampler import SAMPLERS
from dermsearch.search.propose.tables import read_table
from dermsearch.study.config import Search, Study
from dermsearch.testing import check_sampler

PAGE = (Path(__file__).parents[3] / "docs" / "samplers.md").read_text()
FILES = dict(re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's module, where Python finds it, and its entry point, as an installed package would have it."""
    (tmp_path / "climber.py").write_text(FILES["climber.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    group, listed = next(iter(tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"].items()))
    entries = [EntryPoint(name, value, group) for name, value in listed.items()]

    def entry_points(**wanted: str) -> list[EntryPoint]:
        return [e for e in entries if all(getattr(e, field) == value for field, value in wanted.items())]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    yield
    registry.Registry.find.cache_clear()


def test_the_study_of_the_page_is_searched(installed: None, bench: Bench) -> None:
    assert set(FILES) == {"climber.py", "pyproject.toml", "study.yaml"}
    page = yaml.safe_load(FILES["study.yaml"])
    check(Study.model_validate(page))
    found = []
    for name in "ab":
        own = Bench(bench.folder / name, bench.score)
        driver = own.driver(make_study(curriculum=page["curriculum"], search=page["search"]))
        run_inline(driver, own.work(driver))
        assert type(driver.proposer.sampler).__name__ == "Climber"
        assert len(driver.window.trials) == 10 and {t["status"] for t in driver.window.trials} == {"done"}
        found.append([(t["curriculum"], t["settings"]) for t in driver.window.trials])
    assert found[0] == found[1] and len(set(found[0])) == 10


def test_it_keeps_what_a_sampler_promises(installed: None) -> None:
    check_sampler("climber")


def test_it_searches_a_table_to_its_end(installed: None) -> None:
    table = read_table("aiseeme_table2")
    run = replay(table, Search(sampler="climber", trials=100, lag=1), 0, to_the_end=True)
    assert run.spent == len(table) and run.scores[-1] == max(table.values())


def test_without_its_package_there_is_no_such_sampler() -> None:
    assert "climber" not in SAMPLERS
    with pytest.raises(UserError, match=r"^search\.sampler: 'climber' is not a sampler; "):
        check(make_study(search={"sampler": "climber", "trials": 3}))
    with pytest.raises(UserError, match=r"^search\.sampler: 'gird' is not a sampler; did you mean 'grid'\?"):
        check(make_study(search={"sampler": "gird", "trials": 3}))
