"""The examples run as they stand, one after the other."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm
from PIL import Image

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *words: str, cwd: Path, first: Path | None = None) -> str:
    """An example, with modules of `first` before those that are installed."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(first or ""), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, EXAMPLES / name, *words], cwd=cwd, capture_output=True, text=True, env=env)
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


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    """The encoder of that study, and pictures of two colours in folders by split and class."""
    done = warm.run(["export", "study", "-o", "model"], folder)
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for word, tone in (("pale", 200), ("red & dark", 60)):
            place = folder / "pictures" / split / word
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal((tone, 90, 90), 25, (40, 48, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{split}{i}.png")
    done = warm.run(["embed", "model", "pictures/*/*/*.png", "-o", "features.parquet"], folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_exported_encoder_is_fine_tuned_without_dermsearch(exported: Path) -> None:
    assert "dermsearch" not in (EXAMPLES / "fine_tune.py").read_text().partition('"""\n\n')[2]
    said = run("fine_tune.py", "model", "pictures", "1", cwd=exported)
    found = re.fullmatch(
        r"balanced accuracy (\S+), from random weights (\S+), of 16 pictures\n"
        r"difference ([+-]\S+) \[([+-]\S+), ([+-]\S+)\]\n",
        said,
    )
    assert found, said
    one, other, gap, low, high = map(float, found.groups())
    assert one > 0.9 and other > 0.9, "two colours are told apart"
    assert gap == pytest.approx(one - other, abs=2e-3) and low <= gap <= high


def test_photographs_are_sorted_by_what_is_alike(exported: Path) -> None:
    said = run("cluster_photographs.py", "features.parquet", "2", "-o", "groups", cwd=exported)
    assert said.count("\n") == 2
    for group in (exported / "groups").iterdir():
        classes = [picture.resolve().parent.name for picture in group.iterdir()]
        assert len(classes) >= 16 and max(map(classes.count, classes)) > 0.9 * len(classes)
    run("cluster_photographs.py", "features.parquet", "-o", "more", cwd=exported)  # how many it finds itself
    assert sum(1 for _ in (exported / "more").glob("*/*")) == 64


STAND_IN = """
import numpy as np

class UMAP:
    def __init__(self, n_neighbors=15, n_components=2, *, random_state=None, n_jobs=-1):
        self.given = random_state, n_jobs

    def fit_transform(self, X, y=None):
        assert self.given == (0, 1) and X.ndim == 2
        first = np.linalg.svd(X - X.mean(0), full_matrices=False)[0][:, :2]
        return first.astype(np.float32)
"""


@pytest.mark.parametrize("way", ["PCA", "UMAP"])
def test_a_map_shows_every_picture_where_its_features_are(way: str, exported: Path, tmp_path: Path) -> None:
    """UMAP stands in for itself where it is installed, and nothing for it where PCA is asked for."""
    if way == "PCA":
        (tmp_path / "umap.py").write_text("raise ImportError\n")
    elif importlib.util.find_spec("umap") is None:
        (tmp_path / "umap.py").write_text(STAND_IN)
    said = run("map.py", "features.parquet", "-o", "map.html", cwd=exported, first=tmp_path)
    page = (exported / "map.html").read_text()
    places = re.findall(r'title="[^"]*?/(pale|red &amp; dark)/[^"]*" style="left:([\d.]+)%;top:([\d.]+)%"', page)
    assert (
        said == f"map.html: 64 pictures, {way}\n"
        and f"64 pictures by {way} " in page
        and len(places) == 64 == page.count("data:image/jpeg;base64,")
    )
    assert "http" not in page
    left = {word: np.array([float(x) for name, x, _ in places if name == word]) for word in ("pale", "red &amp; dark")}
    one, other = left.values()
    assert abs(one.mean() - other.mean()) > 2 * max(one.std(), other.std()), "the first direction parts the colours"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_an_example_is_one_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
