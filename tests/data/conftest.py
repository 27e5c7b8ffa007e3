"""A release that each test may damage, and its pixels while it is sound."""

from pathlib import Path

import numpy as np
import pytest
from data.damage import CASES, Copy, healthy, make, pixels, quarantine


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What is in a store of the healthy release."""
    store = make(healthy(tmp_path_factory.mktemp("sound") / "release").order())
    assert not quarantine(store) and len(store) == CASES
    return pixels(store)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return healthy(tmp_path / "release")
