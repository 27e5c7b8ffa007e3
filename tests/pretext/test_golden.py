"""Fifty steps of every task give the losses that they gave before; who changes them on purpose runs golden.py."""

import json

import numpy as np
import pytest
from pretext import golden, tiny

KNOWN = json.loads(golden.FILE.read_text())
EXACT = json.loads(golden.EXACT.read_text())


def test_every_task_has_its_losses():
    assert EXACT.keys() - {"machine"} == tiny.TASKS.keys()
    assert KNOWN.keys() == tiny.TASKS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.TASKS)
def test_losses_are_what_they_were(name, tmp_path):
    found = golden.losses(name, tmp_path)
    assert np.isfinite(found).all() and len(set(found)) > golden.STEPS // 2
    np.testing.assert_allclose(found, KNOWN[name], rtol=2e-3, atol=1e-5)
    if golden.machine() == EXACT["machine"]:
        assert found == EXACT[name]
