"""An encoder that leaves: what timm loads without us, its card, and what it says of pictures."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from conftest_search import make_study
from PIL import Image
from rich.console import Console

from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS
from dermsearch.models.encoders import Encoders
from dermsearch.results import load
from dermsearch.results.board.leaderboard import leaderboard
from dermsearch.run.embed import embed
from dermsearch.run.export import CARD, CONFIG, MODEL, export, rights
from dermsearch.run.formats import put_weights
from dermsearch.run.run import run_study
from dermsearch.storage.stages import StageStore
from dermsearch.study.data import Data
from dermsearch.work.features import extract

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study = make_study(
        description="A <study> of few epochs",
        data={"cases": 60, "size": 32, "border": 0.05},
        encoder={"name": "test_resnet"},
        curriculum={"tasks": {"rotation": {}, "relative_location": {}}, "length": [1, 2], "order": "listed"},
        train={"epochs": 1, "batch": 16, "precision": "fp32"},
        downstream={"knn": {"k": 5}, "linear": {"c": 0.1}},
        objective={"protocol": "knn", "metric": "auc", "label": "mean"},
        compute={"engine": "inline", "store": str(folder / "store")},
        logging=[],
    )
    assert not run_study(study, folder / "out", None, QUIET).failed
    export(folder / "out", folder / "model", None, None, None)
    return folder


def encoders(finished: Path, key: str) -> Encoders:
    part = StageStore(str(finished / "store")).artifact(key)[ENCODERS]
    return Encoders.empty(**part.config).load(part.state).eval()


@pytest.mark.parametrize("way", ["checkpoint", "folder", "state dict"])
def test_timm_loads_it_and_gives_the_same_features(finished: Path, way: str) -> None:
    best = next(row for row in leaderboard(load(finished / "out")) if row.length)
    model = finished / "model"
    if way == "checkpoint":
        network = timm.create_model("test_resnet", num_classes=0, checkpoint_path=str(model / MODEL))
    elif way == "folder":
        network = timm.create_model(f"local-dir:{model}", pretrained=True)
    else:
        from safetensors.torch import load_file

        network = timm.create_model("test_resnet", num_classes=0)
        network.load_state_dict(load_file(model / MODEL))
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), encoders(finished, best.keys[0])(x, "derm"), atol=1e-5, rtol=1e-5)


ALONE = """
import sys, numpy, timm, torch
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dermsearch":
            raise ImportError(f"{name}: is not here")
sys.meta_path.insert(0, Barred())
model = timm.create_model(sys.argv[1], pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
from PIL import Image
assert transform(Image.new("RGB", (50, 40))).shape == (3, 32, 32)
with torch.no_grad():
    numpy.save(sys.argv[3], model(torch.from_numpy(numpy.load(sys.argv[2]))).numpy())
"""


@pytest.mark.slow
def test_it_needs_no_dermsearch(finished: Path, tmp_path: Path) -> None:
    """In a process that cannot import it, timm alone gives the same features to 1e-5."""
    best = next(row for row in leaderboard(load(finished / "out")) if row.length)
    x = torch.randn(5, 3, 32, 32)
    np.save(tmp_path / "x.npy", x.numpy())
    told = [f"local-dir:{finished / 'model'}", str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *told], check=True, cwd="/")
    with torch.no_grad():
        wanted = encoders(finished, best.keys[0])(x, "derm").numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted, atol=1e-5, rtol=1e-5)


def test_the_card_tells_what_it_is(finished: Path) -> None:
    text, about = (finished / "model" / CARD).read_text(), json.loads((finished / "model" / CONFIG).read_text())
    best = next(row for row in leaderboard(load(finished / "out")) if row.length)
    assert about["dermsearch"]["curriculum"] == best.curriculum and about["dermsearch"]["stage"] == best.keys[0]
    told = [f"# test_resnet, {best.curriculum}", " training cases of 60", "et al.", "| knn | validation | auc |"]
    told += ["less 5% of its short side", f"| {100 * best.score:.1f} [", "Not for diagnosis", "built-in skin cases"]
    assert [words for words in told if words not in text] == []
    assert "nan" not in text and "None" not in text
    for task, settings in zip(best.tasks, about["dermsearch"]["settings"], strict=True):
        (line,) = [line for line in text.splitlines() if line.startswith(f"* `{task}`: ")]
        told = [f"{n} {v}" for n, v in settings["config"].items() if v is not None]
        assert told and all(each in line for each in told)


def test_it_tells_whom_to_cite(finished: Path) -> None:
    """Those who made the data, and what they allow."""
    (folder,) = (finished / "store" / "data").iterdir()
    cases = CaseStore(folder)
    ours, theirs = Data(), Data(source="store", path="x")
    assert rights(cases, ours) == "; licence: that of dermsearch"
    assert rights(cases, theirs) == rights(None, theirs) == "; licence: see the data set"
    cases.about |= {"licence": "CC BY 4.0", "citation": "Doe et al., 2023"}
    assert rights(cases, theirs) == "; licence: CC BY 4.0; cite: Doe et al., 2023"


def test_another_curriculum_and_a_stage_can_be_named(finished: Path, tmp_path: Path) -> None:
    rows = {row.name: row for row in leaderboard(load(finished / "out"))}
    export(finished / "out", tmp_path / "a", "rotation", None, None)
    export(finished / "out", tmp_path / "b", None, rows["relative_location"].keys[0][:8], None)
    export(finished / "out", tmp_path / "c", "no pre-training", None, None)
    named = [json.loads((tmp_path / n / CONFIG).read_text())["dermsearch"]["curriculum"] for n in "abc"]
    assert named == ["rotation", "relative_location", "no pre-training"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((None, None, "nowhere"), "is not a stage store: .*; `dermsearch run` trains what .*, and --store"),
        (("rotatoin", None, None), "did you mean 'rotation'"),
        ((None, "zz", None), "no finished stage"),
    ],
)
def test_what_is_not_there_is_said(asked: tuple, said: str, finished: Path, tmp_path: Path) -> None:
    curriculum, stage, store = asked
    with pytest.raises(UserError, match=said):
        export(finished / "out", tmp_path / "x", curriculum, stage, store and str(tmp_path / store))


def test_nothing_is_written_over(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="is there already"):
        export(finished / "out", tmp_path, None, None, None)


def embedded(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    return dict(zip(table["image"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32), strict=True))


def test_pictures_of_a_store_get_the_features_that_were_judged(finished: Path, tmp_path: Path) -> None:
    study = make_study(data={"cases": 60, "size": 32, "border": 0.05})
    cases = open_cases(study.main, finished / "store" / "data")
    count, bad, _ = embed(finished / "model", [str(cases.folder)], tmp_path / "x.parquet", 7, 2, QUIET)
    key = json.loads((finished / "model" / CONFIG).read_text())["dermsearch"]["stage"]
    rows = np.flatnonzero(cases.has("derm"))
    wanted = extract(encoders(finished, key), cases, study.main, rows, torch.device("cpu"), "fp32")
    found = embedded(tmp_path / "x.parquet")
    assert count == len(rows) == len(found) and not bad
    tolerance = 0.02 * np.abs(wanted).max()  # bf16 where the machine has it
    for row, feature in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(found[f"{cases.strings('case')[row]} (derm)"], feature, atol=tolerance)


def test_files_folders_and_globs(finished: Path, tmp_path: Path) -> None:
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for name, size in (("a.jpg", (60, 50)), ("b.png", (40, 40)), ("deep/c.jpg", (300, 200))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(photos / name)
    (photos / "broken.jpg").write_bytes(b"no image")
    count, bad, _ = embed(finished / "model", [str(photos)], tmp_path / "x.parquet", 2, 2, QUIET)
    assert count == 3 and [Path(name).name for name, _ in bad] == ["broken.jpg"] and "is no image" in bad[0][1]
    alone, _, _ = embed(finished / "model", [str(photos / "*.png")], tmp_path / "y.parquet", 2, 2, QUIET)
    name = str(photos / "b.png")
    assert alone == 1
    np.testing.assert_allclose(
        embedded(tmp_path / "x.parquet")[name], embedded(tmp_path / "y.parquet")[name], atol=0.05
    )


def test_several_threads_make_the_same_features(finished: Path, tmp_path: Path) -> None:
    """Views are then made by threads that torch's inference mode of this one does not reach."""
    cases = open_cases(make_study(data={"cases": 60, "size": 32}).main, finished / "store" / "data")
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            embed(finished / "model", [str(cases.folder)], tmp_path / f"{threads}.parquet", 16, 2, QUIET)
        finally:
            torch.set_num_threads(before)
    one, two = (embedded(tmp_path / f"{threads}.parquet") for threads in (1, 2))
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(one.values()), list(two.values()), atol=0.05)  # bf16 where the machine has it


@pytest.mark.parametrize(
    ("model", "images", "said"),
    [
        ("model", "nothing-*.jpg", "nothing matches it"),
        ("out", ".", "is no folder that `dermsearch export` wrote"),
        ("model", "bad.jpg", "none of 1 picture could be read"),
    ],
)
def test_embed_says_what_is_wrong(model: str, images: str, said: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=said):
        embed(finished / model, [str(tmp_path / images)], tmp_path / "x.parquet", 2, 1, QUIET)
    assert not list(tmp_path.glob("*.parquet"))
    with pytest.raises(UserError, match=r"^--output: '.*x\.csv' must end in \.parquet$"):
        embed(finished / "model", [str(tmp_path)], tmp_path / "x.csv", 2, 1, QUIET)


@pytest.mark.parametrize("place", ["dangling", "/proc/x", "file/x"])
def test_what_cannot_be_a_folder_is_a_sentence(place: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere/x")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"is there already|cannot be written to"):
        export(finished / "out", tmp_path / place, None, None, None)


def test_weights_for_which_there_is_no_room_are_a_sentence(tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            put_weights({"w": torch.ones(1000)}, tmp_path / "w")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert not any(tmp_path.iterdir())
    put_weights({"w": torch.ones(1000)}, tmp_path / "w")
