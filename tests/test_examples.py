"""The examples run as they stand, one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the study of the examples was run."""
    folder = tmp_path_factory.mktemp("examples")
    said = run("own_study.py", "study", cwd=folder)
    assert all(
        f" {curriculum} " in said for curriculum in ("no pre-training", "rotation", "simclr", "rotation > simclr")
    )
    return folder


def test_tables_are_read_with_pandas(folder: Path) -> None:
    said = run("read_tables.py", "study", cwd=folder)
    assert "linear" in said and "rotation > simclr" in said and "embedding_std" in said


def test_the_best_encoder_is_a_model_of_timm(folder: Path) -> None:
    (folder / "images").mkdir()
    for i in range(3):
        colour = tuple(np.random.default_rng(i).integers(0, 256, 3).tolist())
        Image.new("RGB", (50 + 10 * i, 40), colour).save(folder / "images" / f"{i}.png")
    said = run("best_encoder.py", "study", "images", cwd=folder)
    features = np.load(folder / "features.npy")
    assert said.endswith(f": {features.shape[1]} features of 3 images in features.npy\n")
    assert np.isfinite(features).all() and len(np.unique(features, axis=0)) == 3


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_an_example_is_one_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40
