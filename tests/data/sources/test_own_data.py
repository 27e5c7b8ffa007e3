"""A hospital's own data: a folder of class folders, and a table whose columns the command names."""

from pathlib import Path
from typing import Any

import pytest
from data import releases
from data.releases import CSV, NONE, fields
from PIL import Image
from typer.main import get_command

from dermsearch.cli.data import data_app
from dermsearch.data.case import columns
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.sources.base import SOURCES, Columns, Release
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

OUTSIDE = "is no path inside the release's folder; --root names the folder that all images lie in"


def read(name: str, folder: Path, columns: Columns = NONE) -> Release:
    return SOURCES.find(name).read(Folder(folder), columns)


def hospital(folder: Path, *lines: str) -> Path:
    """A table and an image for each word of it that names one."""
    releases.table(folder / "t.csv", lines)
    for line in lines[1:]:
        releases.images(folder, *(cell for cell in line.split(",") if cell.endswith(".jpg")))
    return folder


# -- folder


def test_classes_are_folders(tmp_path: Path) -> None:
    release = read("folder", releases.folder(tmp_path), Columns(modality="clinic"))
    assert release.classes == {"diagnosis": ("mel", "nev")}
    assert [(r.case, r.images, r.labels, r.split) for r in release.records] == [
        ("mel__a.jpg", {"clinic": "mel/a.jpg"}, {"diagnosis": "mel"}, None),
        ("nev__a.jpg", {"clinic": "nev/a.jpg"}, {"diagnosis": "nev"}, None),
        ("nev__visit 2__B.PNG", {"clinic": "nev/visit 2/B.PNG"}, {"diagnosis": "nev"}, None),
    ]


@pytest.mark.parametrize("names", [("mel/1.jpg", "nev/2.jpg"), ("train/mel/1.jpg", "test/nev/2.jpg")])
def test_a_store_that_grows_in_the_folder_is_none_of_its_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    """Else the same command, continued, would read what it has written."""
    releases.images(tmp_path, *names)
    before = read("folder", tmp_path)
    wrote = ("preparing/plan.json", "preparing/head-00000.arrow", "preparing/a.part", "images-00000.arrow", "README.md")
    for name in wrote:
        (tmp_path / "store" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "store" / name).write_bytes(b"x")
    assert read("folder", tmp_path) == before and len(before.records) == 2 and not before.problems


def test_folders_named_after_splits(tmp_path: Path) -> None:
    releases.images(tmp_path, "train/mel/1.jpg", "train/nev/2.jpg", "valid/nev/1.jpg", "Test/mel/1.jpg", "train/3.jpg")
    release = read("folder", tmp_path)
    assert release.classes == {"diagnosis": ("mel", "nev")} and release.problems == []
    assert {r.case: (r.split, r.labels["diagnosis"]) for r in release.records} == {
        "Test__mel__1.jpg": ("test", "mel"),
        "train__3.jpg": ("train", None),
        "train__mel__1.jpg": ("train", "mel"),
        "train__nev__2.jpg": ("train", "nev"),
        "valid__nev__1.jpg": ("val", "nev"),
    }


def test_splits_beside_classes_are_a_mistake(tmp_path: Path) -> None:
    releases.images(tmp_path, "train/mel/1.jpg", "nev/2.jpg")
    with pytest.raises(UserError, match="'train' is a split and 'nev' a class; have folders of one kind there"):
        read("folder", tmp_path)


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    releases.images(tmp_path, "a.jpg", "b.png")
    release = read("folder", tmp_path)
    assert release.classes == {} and [r.labels for r in release.records] == [{}, {}]


def test_a_class_of_unknown_images(tmp_path: Path) -> None:
    releases.images(tmp_path, "mel/1.jpg", "unknown/2.jpg")
    release = read("folder", tmp_path)
    assert [r.labels["diagnosis"] for r in release.records] == ["mel", None]


def test_a_file_that_may_be_an_image_is_told(tmp_path: Path) -> None:
    releases.images(tmp_path, "mel/1.jpg")
    (tmp_path / "mel/2.heic").write_bytes(b"?")
    (tmp_path / "mel/notes.txt").write_text("seen twice")
    (tmp_path / ".DS_Store").write_bytes(b"?")
    release = read("folder", tmp_path)
    assert [(p.case, p.where, p.reason) for p in release.problems] == [
        ("mel__2.heic", "mel/2.heic", "is no image of a kind that is read")
    ]


@pytest.mark.parametrize("name, columns", [("folder", {"modality": "dermo"}), ("csv", {"images": {"dermo": "Photo"}})])
def test_a_modality_or_a_domain_that_is_none(name: str, columns: dict[str, Any], tmp_path: Path) -> None:
    release = getattr(releases, name)(tmp_path / "release")
    for more, message in (({}, "'dermo' is no modality of skin; did you mean 'derm'"), ({"domain": "skim"}, "'skin'")):
        order = Order(name, str(release), str(tmp_path / "s"), split=Split("image"), columns=Columns(**columns, **more))
        with pytest.raises(UserError, match=message):
            prepare(order, on_cores(1), Watcher())
    assert not (tmp_path / "s").exists()


# -- csv


def test_every_column_of_a_table(tmp_path: Path) -> None:
    release = read("csv", releases.csv(tmp_path), CSV)
    assert release.classes == {"Diagnosis": ("melanoma; in situ", "nevus"), "Grade": ("1", "2", "10")}
    first, second, third = release.records
    assert first.images == {"derm": "derm/a.jpg", "clinic": "photo/a.png"}
    assert (first.case, first.lesion, first.patient, first.mask) == ("c1", "l1", "p1", "masks/a.png")
    assert first.labels == {"Diagnosis": "nevus", "Grade": "2"}
    assert first.metadata == {"age": 51.0, "sex": "male", "ward": "B 4"}
    assert second.images == {"derm": "derm/b.jpg"} and second.mask is None  # the table says DERM/b.jpg
    assert second.labels == {"Diagnosis": "melanoma; in situ", "Grade": "10"}
    assert second.metadata == {"age": None, "sex": "female", "ward": "7"}  # wards are words: one is B 4
    assert third.labels["Diagnosis"] is None and third.metadata == {"age": None, "sex": None, "ward": None}
    assert [r.split for r in release.records] == ["train", "val", "test"]
    assert third.lesion == third.patient == ""


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_separates_columns_is_seen_in_the_header(separator: str, tmp_path: Path) -> None:
    releases.images(tmp_path, "a.jpg")
    releases.table(tmp_path / "t.csv", [separator.join(("image", "dx")), separator.join(("a.jpg", "x"))])
    release = read("csv", tmp_path, fields(labels=("dx",)))
    assert [(r.case, r.labels) for r in release.records] == [("a.jpg", {"dx": "x"})]


def test_the_table_is_named_where_there_are_several(tmp_path: Path) -> None:
    hospital(tmp_path, "image,dx", "a.jpg,x")
    (tmp_path / "old.csv").write_text("image,dx\n")
    with pytest.raises(UserError, match=r"has several tables, name one of them: old.csv, t.csv"):
        read("csv", tmp_path, fields())
    assert len(read("csv", tmp_path, fields(table="t.csv")).records) == 1
    with pytest.raises(UserError, match=r"has no u.csv"):
        read("csv", tmp_path, fields(table="u.csv"))


def test_an_id_is_the_path_where_no_column_is_named(tmp_path: Path) -> None:
    hospital(tmp_path, "image", "x/a.jpg", "y/a.jpg", "x/a.jpg")
    release = read("csv", tmp_path, fields())
    assert [r.case for r in release.records] == ["x__a.jpg", "y__a.jpg"]
    assert [(p.case, p.where, p.reason) for p in release.problems] == [
        ("x__a.jpg", "t.csv, line 4", "this case is already in t.csv, line 2")
    ]


def test_no_image_column(tmp_path: Path) -> None:
    hospital(tmp_path, "image,dx", "a.jpg,x")
    message = "say which column of t.csv names the images, for example --image derm=COLUMN; its columns are image, dx"
    with pytest.raises(UserError, match=message):
        read("csv", tmp_path, fields(images={}))


@pytest.mark.parametrize("role", ["case", "lesion", "patient", "split", "mask"])
def test_a_column_that_is_not_there(role: str, tmp_path: Path) -> None:
    hospital(tmp_path, "image,patient_no", "a.jpg,x")
    with pytest.raises(UserError, match=r"t.csv has no column 'patient_nr'; did you mean 'patient_no'\?"):
        read("csv", tmp_path, fields(**{role: "patient_nr"}))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    hospital(tmp_path, "image,dx,dx", "a.jpg,x,y")
    with pytest.raises(UserError, match=r"t.csv has 2 columns 'dx'; one is right"):
        read("csv", tmp_path, fields(labels=("dx",)))


def test_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"t.csv is empty"):
        read("csv", tmp_path, fields())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("c2,../a.jpg,train", f"'../a.jpg' {OUTSIDE}"),
        ("c2,/etc/a.jpg,train", f"'/etc/a.jpg' {OUTSIDE}"),
        ("c2,C:\\a.jpg,train", f"'C:/a.jpg' {OUTSIDE}"),
        ("c2,,train", "is missing: no image file of it is in the folder"),
        (
            "c2,b.jpg,holdout",
            "'holdout' is no split; choose from: train, training, val, valid, validation, test, testing",
        ),
        ("c2,b.jpg", "2 fields where the header has 3"),
        (",b.jpg,train", "it has no id"),
        ("c1,b.jpg,train", "this case is already in t.csv, line 2"),
    ],
)
def test_a_row_that_cannot_be_used(line: str, reason: str, tmp_path: Path) -> None:
    hospital(tmp_path, "id,image,part", "c1,a.jpg,train")
    releases.table(tmp_path / "t.csv", ["id,image,part", "c1,a.jpg,train", line])
    release = read("csv", tmp_path, fields(case="id", split="part"))
    assert [r.case for r in release.records] == ["c1"]
    assert [(p.case, p.where, p.reason) for p in release.problems] == [(line.split(",")[0], "t.csv, line 3", reason)]


def test_a_column_of_ids_is_no_label(tmp_path: Path) -> None:
    """Told before anything is decoded: their numbers would not fit into a store."""
    releases.table(tmp_path / "t.csv", ["image,id", *(f"a.jpg,w{i}" for i in range(2**15))])
    with pytest.raises(UserError, match=r"^--label id: has 32,768 different words, more than 32,767: it is no label"):
        read("csv", tmp_path, fields(labels=("id",)))


def test_missing_values_do_not_make_words_of_numbers(tmp_path: Path) -> None:
    hospital(tmp_path, "image,Age,tone", "a.jpg,50,-1", "b.jpg,,4", "c.jpg,NA,x")
    release = read("csv", tmp_path, fields(metadata=("Age", "tone")))
    assert [r.metadata for r in release.records] == [
        {"age": 50.0, "tone": None},
        {"age": None, "tone": "4"},
        {"age": None, "tone": "x"},
    ]


def test_columns_that_differ_by_case_alone_are_one(tmp_path: Path) -> None:
    hospital(tmp_path, "image,Age,age", "a.jpg,50,7")
    with pytest.raises(UserError, match=r"^--metadata: 'Age' and 'age' would be one column of the store; name one"):
        read("csv", tmp_path, fields(metadata=("Age", "age")))
    assert read("csv", tmp_path, fields(metadata=("Age", "Age:patient"))).records[0].metadata == {"age": 50.0}


def test_columns_that_a_user_names_are_inputs(tmp_path: Path) -> None:
    """Of the lesion, if nothing is said; age and sex are the patient's in every table."""
    hospital(tmp_path, "image,Age,Sex,site,tone,a:b", "a.jpg,50,1,back,2,x", "b.jpg,,f,arm,3,y")
    release = read("csv", tmp_path, fields(metadata=("Age", "Sex", "site:patient", "tone:patient", "a:b")))
    assert release.records[1].metadata == {"age": None, "sex": "female", "site": "arm", "tone": 3.0, "a:b": "y"}
    assert release.columns == (
        *columns("patient", ["age"], ["sex", "site"]),
        *columns("patient", ["tone"]),
        *columns("lesion", words=["a:b"]),
    )
    assert read("csv", tmp_path, fields(metadata=("Age:lesion",))).columns == columns("lesion", ["age"])


def test_whole_numbers_are_classes_by_size_and_other_words_sorted(tmp_path: Path) -> None:
    hospital(tmp_path, "image,grade,mixed", "a.jpg,10,10", "b.jpg,-1,9", "c.jpg,9,x", "d.jpg,0,")
    release = read("csv", tmp_path, fields(labels=("grade", "mixed")))
    assert release.classes == {"grade": ("0", "9", "10"), "mixed": ("10", "9", "x")}
    assert [r.labels["grade"] for r in release.records] == ["10", None, "9", "0"]


def test_a_path_may_begin_where_the_table_is(tmp_path: Path) -> None:
    hospital(tmp_path, "id,image", "1,x/a.jpg")
    releases.table(tmp_path / "t.csv", ["id,image", "1,./x/a.jpg"])
    assert read("csv", tmp_path, fields(case="id")).records[0].images == {"derm": "x/a.jpg"}


@pytest.mark.parametrize("path", ["scans/a.jpg", "{root}/scans/a.jpg", "../../photos/scans/a.jpg", "./scans/a.jpg"])
def test_images_may_lie_below_a_named_root(path: str, tmp_path: Path) -> None:
    """Relative to it, absolute, or climbing from the table's folder; what lies elsewhere stays a problem."""
    root, tables = tmp_path / "photos", tmp_path / "office" / "tables"
    releases.images(root, "scans/a.jpg")
    tables.mkdir(parents=True)
    rows = [path.format(root=root), "/etc/a.jpg", "../../a.jpg"]
    releases.table(tables / "t.csv", ["id,image", *(f"{i},{row}" for i, row in enumerate(rows))])
    release = read("csv", root, fields(case="id", tables=str(tables)))
    assert [r.images for r in release.records] == [{"derm": "scans/a.jpg"}]
    assert [p.reason for p in release.problems] == [
        f"'{path}' is no path inside the release's folder" for path in ("/etc/a.jpg", f"{tmp_path}/a.jpg")
    ]


def test_the_root_is_no_setting_of_a_store(tmp_path: Path) -> None:
    """A store is the same wherever table and images lay."""
    images, fingerprints = [Image.new("RGB", (40, 30), (60 * i, 99, 9)) for i in range(4)], []
    command = get_command(data_app)
    for name, table in (("one", "one"), ("two", "office")):
        (tmp_path / name).mkdir()
        (tmp_path / table).mkdir(exist_ok=True)
        for i, image in enumerate(images):
            image.save(tmp_path / name / f"{i}.png")
        path = tmp_path / table / "t.csv"
        releases.table(path, ["id,image,dx,who", *(f"{i},{i}.png,{'ab'[i % 2]},p{i}" for i in range(4))])
        words = ["csv", str(path), "-o", str(tmp_path / f"{name}-store"), "--workers=1", "--side=32", "--patient=who"]
        words += ["--image", "derm=image", "--label=dx", *([f"--root={tmp_path / name}"] if name != table else [])]
        command(["prepare", *words], standalone_mode=False)
        fingerprints.append(CaseStore(tmp_path / f"{name}-store").fingerprint)
    assert fingerprints[0] == fingerprints[1]
    with pytest.raises(UserError, match="--root: goes with csv only"):
        command(["prepare", "folder", str(tmp_path), "-o", str(tmp_path / "x"), "--root=/"], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("folder {} --patient=who", "^--patient: goes with csv only"),
        ("ham10000 {} --label dx", "^--label: goes with csv only"),
        ("isic2019 {} --split-column part", "^--split-column: goes with csv only"),
        ("ph2 {} --fold 2", "^--fold: goes with sd198 only"),
        ("csv {} --image derm=a --image derm=b", "^--image: derm has two columns, a and b; name one"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(words: str, said: str, tmp_path: Path) -> None:
    releases.images(tmp_path, "a/1.jpg")
    with pytest.raises(UserError, match=said):
        get_command(data_app)(
            ["prepare", *words.format(tmp_path).split(), "-o", str(tmp_path / "x")], standalone_mode=False
        )
    assert not (tmp_path / "x").exists()


def test_a_mask_outside_is_a_problem(tmp_path: Path) -> None:
    hospital(tmp_path, "image,mask", "a.jpg,../m.png")
    assert len(read("csv", tmp_path, fields(mask="mask")).problems) == 1


def test_classes_differ_by_case_where_the_user_writes_them_so(tmp_path: Path) -> None:
    hospital(tmp_path, "image,dx", "a.jpg,mel", "b.jpg,Mel")
    release = read("csv", tmp_path, fields(labels=("dx",)))
    assert release.classes == {"dx": ("Mel", "mel")}
    assert [r.labels["dx"] for r in release.records] == ["mel", "Mel"]
