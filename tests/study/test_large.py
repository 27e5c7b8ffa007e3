"""Studies that are large and wrong are refused in time that grows with their size, not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from pace import slowness

from dermsearch.errors import UserError
from dermsearch.study.load import load_study
from dermsearch.study.reading import read_value


def seconds(do: Callable[[], object]) -> float:
    """The shortest of three times: others share the machine."""
    took = []
    for _ in range(3):
        began = time.process_time()
        with suppress(UserError, ValueError):
            do()
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize("form", ["{}", "{}e", "1.{}e", ".{}e", "-{}.", "0.{}"])
def test_a_long_number_is_read_in_linear_time(form: str) -> None:
    assert seconds(lambda: read_value(form.format("1" * 20_000))) < 0.5 * slowness()


def test_a_number_in_powers_of_ten_is_one() -> None:
    assert [read_value(text) for text in ("1e-3", "1.e3", ".5e1", "1.25e+2", "-3E2")] == [0.001, 1000, 5, 125, -300]


@pytest.mark.parametrize("section", ["train", "quick"])
def test_thousands_of_unknown_keys_are_told_in_linear_time(section: str) -> None:
    small, large = ({"name": "x", section: {f"key{i}": 1 for i in range(n)}} for n in (500, 4000))
    few = seconds(lambda: load_study(small, quick=section == "quick"))
    assert seconds(lambda: load_study(large, quick=section == "quick")) < 16 * few + 0.2 * slowness()
    with pytest.raises(UserError, match=r"key0: unknown field.*\(3999|\(4000"):
        load_study(large, quick=section == "quick")
