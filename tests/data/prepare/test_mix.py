"""A mix holds the images of its stores as they were kept, and none of a store that is judged on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from data.inspect.test_check import flip, make, noise, rows
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.domain import SEVEN_POINT
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.inspect.check import check
from dermsearch.data.mixed import left_out as lacking
from dermsearch.data.prepare.build import write_store
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.mix import mix
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import INDEX, MANIFEST, QUARANTINE, checksum, of_itself, to_bytes
from dermsearch.data.store.splits import Split
from dermsearch.data.store.unfinished import growing
from dermsearch.errors import UserError
from dermsearch.run.check import check as check_study
from dermsearch.run.check import check_cases
from dermsearch.study.config import Study


def clinic(n: int, start: int, side: int = 16) -> list[tuple[Any, Any]]:
    """Cases with a clinical image alone."""
    return [
        (replace(r, images={"clinic": r.images["derm"]}, metadata={"site": "back"}, patient=""), {"clinic": x["derm"]})
        for r, x in rows(n, start, side)
    ]


def left_out(folder: Path) -> dict[str, str]:
    notes = pa.ipc.open_file(folder / QUARANTINE).read_all().to_pylist()
    assert all(n["done"] == "left out" for n in notes)
    return {n["image"]: n["reason"] for n in notes}


def image(store: CaseStore, modality: str, case: str) -> np.ndarray:
    row = store.strings("case").tolist().index(case)
    return store.pictures(modality, np.array([row]))[0][0]


@pytest.mark.parametrize("encoded", [False, True])
def test_two_stores_become_one(tmp_path, encoded):
    a = make(tmp_path / "a", rows(20), encoded=encoded)
    b = make(tmp_path / "b", clinic(30, 100), encoded=encoded)
    manifest = mix([a, b], tmp_path / "deep" / "m")
    store = CaseStore(tmp_path / "deep" / "m")
    assert manifest["cases"] == len(store) == 50 and store.modalities == ("derm", "clinic")
    assert store.classes == {"origin": ("a", "b"), "diagnosis": ("NEV", "MEL")}
    assert store.label("origin").tolist() == [0] * 20 + [1] * 30
    assert store.label("diagnosis").tolist() == [0, 1] * 25
    assert store.has("derm").tolist() == [True] * 20 + [False] * 30
    assert store.has("clinic").tolist() == [False] * 20 + [True] * 30
    assert store.strings("case")[[0, 20]].tolist() == ["a:c0", "b:c100"]
    assert store.strings("lesion")[[0, 20]].tolist() == ["a:l0", "b:l50"]
    assert store.strings("patient")[[0, 20]].tolist() == ["a:p0", ""]
    assert store.metadata("age")[19:21] == [19.0, None] and store.metadata("site")[19:21] == [None, "back"]
    for number in range(20):
        one = CaseStore(a).pictures("derm", np.array([number]))[0][0]
        assert np.array_equal(image(store, "derm", f"a:c{number}"), one)
    for kept, source, first in (("derm", a, 0), ("clinic", b, 20)):
        for kind in ("pixel", "file", "look", "original_height"):
            of_mix = store.index[f"{kind}_{kept}"].to_pylist()[first:]
            of_source = CaseStore(source).index[f"{kind}_{kept}"].to_pylist()
            assert of_mix[: len(of_source)] == of_source
    assert len(store.split("test")) == 0 and 0 < len(store.split("val")) < 10
    assert not check(tmp_path / "deep" / "m").failed
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m"]


def test_a_mix_is_the_same_every_time(tmp_path):
    a, b = make(tmp_path / "a", rows(20)), make(tmp_path / "b", clinic(10, 100))
    found = [mix([a, b], tmp_path / name)["fingerprint"] for name in "mn"]
    assert found[0] == found[1] != mix([b, a], tmp_path / "o")["fingerprint"]


def test_images_of_a_store_that_is_judged_on_are_left_out(tmp_path):
    judged = rows(4, 500)
    near = judged[3][1]["derm"].copy()
    near[0, 0] ^= 1
    cases = rows(12)
    cases[1] = (replace(cases[1][0], images={"derm": "c500.jpg"}), cases[1][1])  # the file; never mind the pixels
    cases[4] = (cases[4][0], judged[1][1])
    cases[7] = (cases[7][0], {"derm": near})
    a, j = make(tmp_path / "a", cases), make(tmp_path / "j", judged)
    mix([a], tmp_path / "m", [j])
    assert left_out(tmp_path / "m") == {
        "a:c1 (derm)": "is the same file as j:c500 (derm)",
        "a:c4 (derm)": "has the same pixels as j:c501 (derm)",
        "a:c7 (derm)": "is nearly the same picture as j:c503 (derm)",
    }
    store = CaseStore(tmp_path / "m")
    assert store.strings("case").tolist() == [f"a:c{i}" for i in range(12) if i not in (1, 4, 7)]
    assert np.array_equal(image(store, "derm", "a:c11"), cases[11][1]["derm"])
    assert store.about["settings"]["without"] == [f"j {CaseStore(j).fingerprint}"]


def test_the_other_image_of_a_case_stays(tmp_path):
    cases = [
        (replace(r, images={"derm": f"{i}d", "clinic": f"{i}c"}), {**x, "clinic": noise(900 + i)})
        for i, (r, x) in enumerate(rows(6))
    ]
    j = make(tmp_path / "j", [(replace(r, images={"derm": "2c"}), x) for r, x in rows(1, 300)])
    mix([make(tmp_path / "a", cases)], tmp_path / "m", [j])
    store = CaseStore(tmp_path / "m")
    assert left_out(tmp_path / "m") == {"a:c2 (clinic)": "is the same file as j:c300 (derm)"}
    assert len(store) == 6 and store.has("clinic").tolist() == [True, True, False, True, True, True]
    assert np.array_equal(image(store, "derm", "a:c2"), cases[2][1]["derm"])
    frames = store.pictures("clinic", np.arange(6))[1]
    assert frames is not None and frames[2].tolist() == [0, 0, 0, 0]


def test_what_the_mixed_stores_share_is_kept_once(tmp_path):
    again = rows(6, 100)
    again[2] = (replace(again[2][0], images={"derm": "c3.jpg"}), rows(6)[3][1])
    mix([make(tmp_path / "a", rows(6)), make(tmp_path / "b", again)], tmp_path / "m")
    assert left_out(tmp_path / "m") == {"b:c102 (derm)": "is the same file as a:c3 (derm), but its diagnosis differs"}
    assert len(CaseStore(tmp_path / "m")) == 11


def test_copies_within_a_store_do_not_count_as_those_of_one_that_is_judged_on(tmp_path):
    cases, again = rows(12), rows(12)[3]
    cases[1] = (replace(cases[1][0], images={"derm": "c500.jpg"}), cases[1][1])
    cases[5] = (replace(cases[5][0], images={"derm": "c3.jpg"}), again[1])
    mix([make(tmp_path / "a", cases)], tmp_path / "m", [make(tmp_path / "j", rows(4, 500))])
    assert set(left_out(tmp_path / "m")) == {"a:c1 (derm)", "a:c5 (derm)"}
    assert lacking(CaseStore(tmp_path / "m")) == 1


def test_drawn_lesions_are_known_again_by_their_pixels(tmp_path):
    for name, count in (("a", 12), ("b", 20)):
        write_store(tmp_path / name, synthetic(count, 32, 0), Split("patient"), SEVEN_POINT, {"source": name})
    mix([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    store = CaseStore(tmp_path / "m")
    assert len(store) == 20 and (store.label("origin") == 1).sum() == 8
    assert np.array_equal(store.masks(np.arange(12))[0], CaseStore(tmp_path / "a").masks(np.arange(12))[0])
    mix([tmp_path / "b"], tmp_path / "n", [tmp_path / "a"])
    assert len(CaseStore(tmp_path / "n")) == 8
    with pytest.raises(UserError, match="nothing is left to mix"):
        mix([tmp_path / "a"], tmp_path / "o", [tmp_path / "b"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "m", "n"]


def refused(tmp_path: Path, *stores: Path, without: tuple[Path, ...] = ()) -> str:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as error:
        mix(stores, tmp_path / "m", without)
    assert sorted(tmp_path.iterdir()) == before
    return str(error.value)


def test_stores_that_do_not_fit_together(tmp_path):
    a = make(tmp_path / "a", rows(4))
    large = make(tmp_path / "large", rows(4, 50, side=24))
    assert refused(tmp_path, a, large) == f"{a} has side 16, {large} has side 24; prepare {large} again with --side 16"
    crop = make(tmp_path / "crop", rows(4, 50), settings={"fit": "crop"})
    assert refused(tmp_path, a, crop).endswith(
        "has fit keep, " + f"{crop} has fit crop; prepare {crop} again with --fit keep"
    )
    jpeg = make(tmp_path / "jpeg", rows(4, 50), encoded=True)
    assert refused(tmp_path, a, jpeg).endswith(f"prepare {jpeg} again without --encoded")
    assert refused(tmp_path, jpeg, a).endswith(f"prepare {a} again with --encoded")


def test_what_cannot_be_mixed(tmp_path):
    a = make(tmp_path / "a", rows(4))
    assert "at least one" in refused(tmp_path)
    assert "have one name" in refused(tmp_path, a, make(tmp_path / "deep" / "a", rows(4, 50)))
    assert "named in --without" in refused(tmp_path, a, without=(a,))
    assert "is not a case store" in refused(tmp_path, a, tmp_path / "nothing")
    make(tmp_path / "m", rows(4))
    assert "is there already" in refused(tmp_path, a)
    with pytest.raises(UserError, match="this machine"):
        mix([a], "s3://bucket/m")


@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_a_damaged_store_is_not_mixed(tmp_path, how):
    a = make(tmp_path / "a", rows(12))
    shard = a / "images-00001.arrow"
    if how == "flipped":
        flip(shard, shard.read_bytes().index(rows(12)[9][1]["derm"].tobytes()))
        assert "images-00001.arrow is missing or damaged" in refused(tmp_path, a)
    else:
        shard.unlink()
        assert "images-00001.arrow is missing" in refused(tmp_path, a)


def test_progress_is_told(tmp_path):
    told: list[Any] = []

    class Watcher:
        def start(self, cases: int, done: int) -> None:
            told.append((cases, done))

        def advance(self, cases: int) -> None:
            told.append(cases)

        def say(self, text: str) -> None:
            told.append(text)

    a = make(tmp_path / "a", rows(12))
    mix([a], tmp_path / "m", [make(tmp_path / "j", rows(2))], Watcher())
    assert told[0] == (12, 0) and told[1] == "a: left out as in a store of --without: 2 images." and sum(told[2:]) == 10


def test_labels_stay_and_are_unknown_elsewhere(tmp_path):
    """Those of which two stores have other classes get their store's name; an origin gets the mix's."""
    a = make(tmp_path / "a", rows(6), classes={"diagnosis": ("NEV", "MEL"), "grade": ("1", "2")})
    b = make(tmp_path / "b", rows(6, 100), classes={"diagnosis": ("MEL", "NEV")})
    mix([a, b], tmp_path / "m")
    store = CaseStore(tmp_path / "m")
    two = {"a_diagnosis": ("NEV", "MEL"), "grade": ("1", "2"), "b_diagnosis": ("MEL", "NEV")}
    assert store.classes == {"origin": ("a", "b"), **two}
    assert store.label("a_diagnosis").tolist() == [0, 1] * 3 + [-1] * 6
    assert store.label("b_diagnosis").tolist() == [-1] * 6 + [1, 0] * 3
    assert store.label("grade").tolist() == [-1] * 12
    mix([tmp_path / "m", make(tmp_path / "c", rows(6, 200))], tmp_path / "n")
    again = CaseStore(tmp_path / "n")
    assert again.classes["origin"] == ("m", "c") and again.classes["m_origin"] == ("a", "b")
    assert again.label("m_origin").tolist() == [0] * 6 + [1] * 6 + [-1] * 6
    assert not check(tmp_path / "n").failed


def test_labels_that_would_share_a_name_are_refused(tmp_path):
    a = make(tmp_path / "a", rows(4), classes={"diagnosis": ("NEV", "MEL"), "b_diagnosis": ("x",)})
    b = make(tmp_path / "b", rows(4, 50), classes={"diagnosis": ("MEL", "NEV")})
    assert "its label diagnosis would be called b_diagnosis, as another is" in refused(tmp_path, a, b)


def prepared(folder: Path, images: list[Image.Image], form: Form, **how: Any) -> Path:
    """A store of images that were saved as files."""
    for i, image in enumerate(images):
        path = folder.with_name(f"{folder.name}-release") / "nev" / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=88)
    order = Order("folder", str(path.parents[1]), str(folder), form, split=Split("image"))
    prepare(order, on_cores(1), Watcher())
    return folder


@pytest.mark.parametrize("side", [64, 72, 96, 100])
def test_copies_are_left_out_whatever_sides_the_stores_have(tmp_path, side):
    """Of twenty at 0.7 of the size none used to be found at sides 72 and 100."""
    images = [Image.fromarray(case.images["derm"]) for case in synthetic(26, 200, 0)]
    small = [image.resize((140, 140), Image.Resampling.BICUBIC) for image in images[:20]]
    turned = [image.transpose(Image.Transpose(i)) for i, image in enumerate(small[:7])]
    a = prepared(tmp_path / "a", [*images, *turned], Form(96))
    j = prepared(tmp_path / "j", small, Form(side))
    mix([a], tmp_path / "m", [j])
    assert len(CaseStore(tmp_path / "m")) == 6


def test_a_store_of_an_earlier_version_is_compared_by_what_it_keeps_and_that_is_said(tmp_path):
    """It has no looks of its originals, but hashes of sixteen by sixteen levels under their name."""
    said: list[str] = []

    class Told(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    images = [Image.fromarray(case.images["derm"]) for case in synthetic(10, 200, 0)]
    a, j = prepared(tmp_path / "a", images, Form(96)), prepared(tmp_path / "old", images[:6], Form(64))
    about = {k: v for k, v in json.loads((j / MANIFEST).read_text()).items() if k not in ("looks", "checksum")}
    index = pa.ipc.open_file(j / INDEX).read_all()
    at = index.column_names.index("look_derm")
    (j / INDEX).write_bytes(to_bytes(index.set_column(at, "look_derm", pa.array(range(6), pa.uint64()))))
    about["files"][INDEX] = checksum(pa.py_buffer((j / INDEX).read_bytes()))
    (j / MANIFEST).write_text(json.dumps({**about, "checksum": of_itself(about)}))
    assert not check(j).failed
    assert mix([a], tmp_path / "m", [j], Told())["cases"] == 4
    assert said[0].startswith("old: was prepared by an earlier version") and len(said) == 2
    manifest = mix([j], tmp_path / "n")
    assert manifest["looks"] == 0 and manifest["cases"] == 6


def test_a_mix_whose_cases_share_no_modality_is_trained_on_and_not_judged_on(tmp_path):
    """Every check used to pass, and every judgement failed when the encoders were trained."""
    data = {"source": "store", "size": 32, "modalities": ["derm", "clinic"]}
    both = [
        (replace(r, images={"derm": f"{i}d", "clinic": f"{i}c"}), {**x, "clinic": noise(900 + i, 32)})
        for i, (r, x) in enumerate(rows(48, 300, side=32))
    ]
    one, other = make(tmp_path / "a", rows(48, side=32)), make(tmp_path / "b", clinic(48, 100, side=32))
    mix([one, other], tmp_path / "m")
    judged = make(tmp_path / "j", both)

    def study(data: dict[str, Any], **more: Any) -> Study:
        tasks = {"tasks": {"rotation": {}}, "length": [1, 1]}
        return Study.model_validate({"name": "s", "data": data, "curriculum": tasks, "train": {"batch": 16}, **more})

    alone = study({**data, "path": str(tmp_path / "m")})
    with pytest.raises(
        UserError, match=r"data\.modalities: no train case of the store at .* has images of derm and clin"
    ):
        check_cases(alone, check_study(alone), {"data": CaseStore(tmp_path / "m")})
    sets = {"mix": {**data, "path": str(tmp_path / "m")}, "j": {**data, "path": str(judged)}}
    objective = {"protocol": "linear@j", "metric": "balanced_accuracy", "label": "mean"}
    two = study(sets, downstream={"linear@j": {}}, objective=objective)
    check_cases(two, check_study(two), {"mix": CaseStore(tmp_path / "m"), "j": CaseStore(judged)})


def test_what_a_killed_mix_left_is_taken_away_by_the_next(tmp_path: Path) -> None:
    """Not what another command works at, nor what others hide beside it."""
    a, b = make(tmp_path / "a", rows(4)), make(tmp_path / "b", rows(4, 100))
    left, other = tmp_path / "out" / ".m.abcd1234", tmp_path / "out" / ".other.abcd1234"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "images-0.arrow").write_bytes(b"half")
    with growing(tmp_path / "out" / "m") as busy:
        mix([a, b], tmp_path / "out" / "m")
        assert busy.is_dir() and other.is_dir() and not left.exists()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".other.abcd1234", "m"]
