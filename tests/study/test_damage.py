"""Damaged studies: each ends with exit code 2 and one line that names the field, and nothing is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from study.damage import BAD_OVERRIDES, IMPOSSIBLE, TEXT, Damage, changed, damages, field, refused


@pytest.mark.slow
@settings(max_examples=200, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(damages)
def test_a_damaged_study_is_refused_in_one_line_that_names_the_field(damage: Damage) -> None:
    said = refused(damage.text, *damage.overrides)
    assert re.search(damage.named, said), (damage.named, said)


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=str)
def test_every_impossible_combination_is_refused(case: tuple[dict[str, Any], str]) -> None:
    damage = changed(case[0], field(case[1]))
    assert re.search(damage.named, refused(damage.text))


@pytest.mark.parametrize(("override", "named"), BAD_OVERRIDES, ids=[o[:40] for o, _ in BAD_OVERRIDES])
def test_every_bad_override_is_refused(override: str, named: str) -> None:
    said = refused(TEXT, override)
    assert said.startswith("command line: ") and re.search(named, said), said


@pytest.mark.slow
def test_a_refused_study_imports_no_ray(tmp_path: Path) -> None:
    code = "import sys; from dermsearch.cli.main import main\ntry: main()\nfinally: print('ray' in sys.modules)"
    words = ["run", "curriculum_three.yaml", "moco_v2.queue=300"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
    assert "moco_v2.queue: 300" in done.stderr and not os.listdir(tmp_path)
