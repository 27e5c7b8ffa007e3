"""What is wrong with an image or a case ends in the quarantine table; the rest of a release is unharmed."""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data import releases
from data.damage import (
    CASES,
    CONVERTED,
    GOOD,
    JPEG,
    KEPT,
    LEFT_OUT,
    MASK_OUT,
    PNG,
    VICTIM,
    Copy,
    encode,
    make,
    picture,
    pixels,
    quarantine,
)
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.prepare import Order
from dermsearch.errors import UserError

# What lies where an image should be, by kind: its name, its bytes, and what becomes of it.

DEEP = np.asarray(GOOD.convert("L")).astype(np.uint16) * 200
TURNED = Image.Exif()
TURNED[0x0112] = 6
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [GOOD.rotate(90), GOOD.rotate(180)]}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def lying_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be that large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def half_clear() -> Image.Image:
    clear = GOOD.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 20, 30))
    return clear


def dicom(**fields: Any) -> bytes:
    """A small radiograph; fields of None are left out."""
    import pydicom

    scan = pydicom.Dataset()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    scan.SOPClassUID, scan.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    given = {"Rows": 30, "Columns": 40, "SamplesPerPixel": 1, "PixelRepresentation": 0, "BitsAllocated": 16}
    given |= {"BitsStored": 16, "HighBit": 15, "PhotometricInterpretation": "MONOCHROME2", "PixelData": DEEP.tobytes()}
    for name, value in (given | fields).items():
        if value is not None:
            setattr(scan, name, value)
    out = io.BytesIO()
    scan.save_as(out, enforce_file_format=True)
    return out.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "nothing in it": ("x.jpg", lambda: b"", LEFT_OUT, "is empty"),
    "zero bytes": ("x.jpg", lambda: bytes(5000), LEFT_OUT, "is no image"),
    "JPEG cut": ("x.jpg", lambda: JPEG[: len(JPEG) // 2], LEFT_OUT, "is truncated"),
    "JPEG cut in its header": ("x.jpg", lambda: JPEG[:100], LEFT_OUT, "is truncated"),
    "JPEG without its last bytes": ("x.jpg", lambda: JPEG[:-2], LEFT_OUT, "is truncated"),
    "JPEG padded with zeros": ("x.jpg", lambda: JPEG[: len(JPEG) // 2] + bytes(9999), LEFT_OUT, "is truncated"),
    "progressive JPEG cut": ("x.jpg", lambda: encode(GOOD, progressive=True)[:-200], LEFT_OUT, "is truncated"),
    "JPEG with more behind": ("x.jpg", lambda: JPEG + b"more" * 50, CONVERTED, "has 200 bytes after its end"),
    "HTML": ("x.jpg", lambda: b"<!DOCTYPE html><html>404</html>" * 9, LEFT_OUT, "it starts with b'<!DOCTYPE"),
    "a program's page, EPS": ("x.jpg", lambda: encode(GOOD, "EPS"), LEFT_OUT, "is no image that can be read"),
    "CMYK": ("x.jpg", lambda: encode(GOOD.convert("CMYK")), CONVERTED, "was converted from CMYK"),
    "grey": ("x.jpg", lambda: encode(GOOD.convert("L")), CONVERTED, "was converted from grey"),
    "black and white": ("x.png", lambda: encode(GOOD.convert("1"), "PNG"), CONVERTED, "from black and white"),
    "palette": ("x.png", lambda: encode(GOOD.convert("P"), "PNG"), CONVERTED, "was converted from a palette"),
    "YCbCr": ("x.tif", lambda: encode(GOOD.convert("YCbCr"), "TIFF"), CONVERTED, "was converted from YCbCr"),
    "LAB": ("x.tif", lambda: encode(GOOD.convert("LAB"), "TIFF"), CONVERTED, "was converted from LAB"),
    "alpha": ("x.png", lambda: encode(half_clear(), "PNG"), CONVERTED, "was transparent in part"),
    "EXIF rotation": ("x.jpg", lambda: encode(GOOD, exif=TURNED), CONVERTED, "was turned upright"),
    "16-bit PNG": ("x.png", lambda: encode(Image.fromarray(DEEP), "PNG"), CONVERTED, "was scaled to 8 bits"),
    "16 bits of one value": (
        "x.png",
        lambda: encode(Image.fromarray(np.full_like(DEEP, 777)), "PNG"),
        CONVERTED,
        "was scaled to 8 bits",
    ),
    "float TIFF": (
        "x.tif",
        lambda: encode(Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
        CONVERTED,
        "was scaled to 8 bits",
    ),
    "float TIFF of no numbers": (
        "x.tif",
        lambda: encode(Image.fromarray(np.full((30, 40), np.nan, np.float32)), "TIFF"),
        LEFT_OUT,
        "holds values that are no numbers",
    ),
    "PNG named .jpg": ("x.jpg", lambda: PNG, CONVERTED, "is a PNG file, not the JPEG that its name says"),
    "JPEG named .png": ("x.png", lambda: JPEG, CONVERTED, "is a JPEG file, not the PNG"),
    "WebP named .jpg": ("x.jpg", lambda: encode(GOOD, "WEBP"), CONVERTED, "is a WEBP file"),
    "JPEG 2000 named .jpg": ("x.jpg", lambda: encode(GOOD, "JPEG2000"), CONVERTED, "is a JPEG2000 file"),
    "PNG with a flipped bit": ("x.png", lambda: flipped(PNG, PNG.index(b"IDAT") + 300), LEFT_OUT, "is damaged"),
    "PNG with a wrong checksum": ("x.png", lambda: flipped(PNG, PNG.index(b"IEND") - 6), LEFT_OUT, "is damaged"),
    "PNG cut in its data": ("x.png", lambda: PNG[: PNG.index(b"IDAT") + 300], LEFT_OUT, "is truncated"),
    "PNG that says less than it holds": ("x.png", lambda: lying_png(99, 99), LEFT_OUT, "is truncated"),
    "bomb": ("x.png", lambda: lying_png(20_000, 20_000), LEFT_OUT, "is 20000 x 20000 pixels, more than 100 million"),
    "1 x 1": ("x.png", lambda: encode(picture(1, 1, 1), "PNG"), LEFT_OUT, "is 1 x 1 pixels, less than 16"),
    "strip": ("x.png", lambda: encode(picture(1, 2000, 17), "PNG"), LEFT_OUT, "is 2000 x 17 pixels: a strip"),
    "moving GIF": ("x.gif", lambda: encode(GOOD, "GIF", **FRAMES), CONVERTED, "has several frames"),
    "TIFF of several pages": ("x.tif", lambda: encode(GOOD, "TIFF", **FRAMES), CONVERTED, "has several frames"),
    "BMP cut": ("x.bmp", lambda: encode(GOOD, "BMP")[:999], LEFT_OUT, "is truncated"),
    "DICOM that is none": ("x.dcm", lambda: b"hello " * 100, LEFT_OUT, "is no DICOM file"),
    "DICOM without pixels": ("x.dcm", lambda: dicom(PixelData=None), LEFT_OUT, "is a DICOM file without pixels"),
    "DICOM cut": ("x.dcm", lambda: dicom()[:-900], LEFT_OUT, "cannot be decoded"),
    "DICOM of 1 x 1": ("x.dcm", lambda: dicom(Rows=1, Columns=1), LEFT_OUT, "is 1 x 1 pixels"),
}


def check(copy: Copy, sound: dict[str, np.ndarray], done: str, reason: str, case: str = VICTIM) -> None:
    """The damaged case is listed so, no other is, and all others have the pixels that they would have."""
    store = make(copy.order())
    rows = quarantine(store)
    assert rows and {row["case"] for row in rows} == {case}
    assert any(row["done"] == done and reason in row["reason"] for row in rows), rows
    assert all("\n" not in row["reason"] and str(copy.root) not in row["reason"] for row in rows)
    found = pixels(store)
    assert found.keys() - {VICTIM} == sound.keys() - {VICTIM}
    assert (VICTIM in found) == (done != LEFT_OUT)
    for name in found.keys() - {VICTIM}:
        np.testing.assert_array_equal(found[name], sound[name])


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_healthy_picture(kind: str, copy: Copy, sound: dict[str, np.ndarray]) -> None:
    name, data, done, reason = FILES[kind]
    copy.image(name, data())
    copy.save()
    check(copy, sound, done, reason)


# Damage of other sorts: what is done, what becomes of the case, why, and the name that it is listed under.

DAMAGE: list[Any] = []


def damage(done: str, reason: str, case: str = VICTIM) -> Callable[[Callable[[Copy], None]], Callable[[Copy], None]]:
    def add(do: Callable[[Copy], None]) -> Callable[[Copy], None]:
        DAMAGE.append(pytest.param(do, done, reason, case, id=do.__name__))
        return do

    return add


@damage(LEFT_OUT, "is missing")
def missing(copy: Copy) -> None:
    (copy.root / copy.victim["image"]).unlink()


@damage(LEFT_OUT, "is missing")
def below_a_file(copy: Copy) -> None:
    copy.victim["image"] = "c0.jpg/c3.jpg"


@damage(LEFT_OUT, "no image file of it")
def no_image_named(copy: Copy) -> None:
    copy.victim["image"] = "NA"


@damage(LEFT_OUT, "cannot be read: Is a directory")
def directory(copy: Copy) -> None:
    (copy.root / "x.jpg").mkdir()
    copy.victim["image"] = "x.jpg"


@damage(LEFT_OUT, "cannot be read: Permission denied")
def not_permitted(copy: Copy) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (copy.root / copy.victim["image"]).chmod(0)


@damage(LEFT_OUT, "is missing")
def link_to_nowhere(copy: Copy) -> None:
    (copy.root / "x.jpg").symlink_to("nowhere.jpg")
    copy.victim["image"] = "x.jpg"


@damage(LEFT_OUT, "cannot be read: Too many levels of symbolic links")
def link_to_itself(copy: Copy) -> None:
    (copy.root / "x.jpg").symlink_to("x.jpg")
    copy.victim["image"] = "x.jpg"


@damage(LEFT_OUT, "is a file of 3,221,225,472 bytes, more than 1,000,000,000")
def file_of_three_gigabytes(copy: Copy) -> None:
    """Sparse: it takes no space on the disk, and would take all of the memory."""
    with (copy.root / "x.jpg").open("wb") as file:
        file.truncate(3 << 30)
    copy.victim["image"] = "x.jpg"


@damage(LEFT_OUT, "is no regular file")
def link_to_a_device_without_end(copy: Copy) -> None:
    (copy.root / "x.jpg").symlink_to("/dev/zero")
    copy.victim["image"] = "x.jpg"


@damage(LEFT_OUT, "is no regular file")
def named_pipe(copy: Copy) -> None:
    os.mkfifo(copy.root / "x.jpg")
    copy.victim["image"] = "x.jpg"


@damage(MASK_OUT, "is no regular file")
def mask_that_is_a_device_without_end(copy: Copy) -> None:
    (copy.root / "m.png").symlink_to("/dev/zero")
    copy.victim["mask"] = "m.png"


@damage(LEFT_OUT, "cannot be read: File name too long")
def long_name(copy: Copy) -> None:
    copy.victim["image"] = "x" * 300 + ".jpg"


@damage(MASK_OUT, "is 30 x 30 pixels, its image 40 x 30")
def mask_of_another_size(copy: Copy) -> None:
    copy.image("m.png", encode(Image.new("L", (30, 30)), "PNG"), "mask")


@damage(MASK_OUT, "is no image")
def mask_of_text(copy: Copy) -> None:
    copy.image("m.png", b"no mask", "mask")


@damage(MASK_OUT, "is truncated")
def mask_cut(copy: Copy) -> None:
    copy.image("m.png", encode(picture(1).convert("L"), "PNG")[:200], "mask")


@damage(MASK_OUT, "is missing")
def mask_missing(copy: Copy) -> None:
    copy.victim["mask"] = "m.png"


@damage(LEFT_OUT, "is the same file as c1.jpg")
def same_file_of_another_lesion(copy: Copy) -> None:
    copy.image("x.jpg", encode(picture(1)))


@damage(LEFT_OUT, "is nearly the same picture as c1.jpg")
def saved_again_at_another_quality(copy: Copy) -> None:
    copy.image("x.jpg", encode(picture(1), quality=70))


@damage(LEFT_OUT, "is nearly the same picture as c1.jpg")
def saved_again_at_another_size(copy: Copy) -> None:
    copy.image("x.jpg", encode(picture(1).resize((80, 60), Image.Resampling.BICUBIC)))


@damage(KEPT, "is the same file as c3.jpg")
def one_file_for_both_modalities(copy: Copy) -> None:
    copy.victim["photo"] = copy.victim["image"]


@damage(LEFT_OUT, "is no safe id", "../../c3")
def id_that_climbs(copy: Copy) -> None:
    copy.victim["id"] = "../../c3"


@damage(LEFT_OUT, "is no safe id", "c3 c4")
def id_of_two_lines(copy: Copy) -> None:
    copy.victim["id"] = "c3\nc4"


@damage(LEFT_OUT, "is no safe id", "c3 [31m")
def id_that_colours_a_terminal(copy: Copy) -> None:
    copy.victim["id"] = "c3\x1b[31m"


@damage(LEFT_OUT, "is no safe id", "c 3")
def id_with_a_zero(copy: Copy) -> None:
    copy.victim["id"] = "c\x003"


@damage(LEFT_OUT, "its id has 300 bytes; 200 is the most", "é" * 100)
def long_id(copy: Copy) -> None:
    copy.victim["id"] = "é" * 150


@damage(LEFT_OUT, "it has no id", "")
def no_id(copy: Copy) -> None:
    copy.victim["id"] = " "


@damage(LEFT_OUT, "this case is already in cases.csv, line 3", "c1")
def id_of_another(copy: Copy) -> None:
    copy.victim["id"] = "c1"


@damage(LEFT_OUT, "is no path inside the release's folder")
def path_that_climbs(copy: Copy) -> None:
    copy.victim["image"] = "../release/c3.jpg"


@damage(LEFT_OUT, "is no path inside the release's folder")
def path_from_the_root(copy: Copy) -> None:
    copy.victim["image"] = "/etc/hostname"


@damage(LEFT_OUT, "is no path inside the release's folder")
def mask_that_climbs(copy: Copy) -> None:
    copy.victim["mask"] = "../m.png"


@damage(LEFT_OUT, "'trian' is no split; did you mean 'train'?")
def word_that_is_no_split(copy: Copy) -> None:
    copy.parts("train", "train", "val", "trian", "train", "train", "test", "test")


@pytest.mark.parametrize(("do", "done", "reason", "case"), DAMAGE)
def test_a_damaged_case(
    do: Callable[[Copy], None], done: str, reason: str, case: str, copy: Copy, sound: dict[str, np.ndarray]
) -> None:
    do(copy)
    copy.save()
    check(copy, sound, done, reason, case)


@pytest.mark.parametrize(("change", "reason"), [(",more", "9 fields where the header has 8"), ("", "1 field where")])
def test_a_row_of_another_length(change: str, reason: str, copy: Copy, sound: dict[str, np.ndarray]) -> None:
    lines = copy.table.read_text().splitlines()
    lines[4] = lines[4] + change if change else VICTIM
    copy.table.write_text("\n".join(lines))
    check(copy, sound, LEFT_OUT, reason)


def test_dicom_without_a_reader_is_listed_with_what_is_missing(
    copy: Copy, sound: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all images are DICOM files, that is told before any work."""
    data = dicom()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    copy.image("x.dcm", data)
    copy.save()
    check(copy, sound, LEFT_OUT, "pydicom reads DICOM files: pip install pydicom")
    for row in copy.rows:
        row["image"] = "x.dcm"
    copy.save()
    with pytest.raises(UserError, match=r"all images are DICOM files, and pydicom reads DICOM files"):
        make(replace(copy.order(), store=str(copy.root.parent / "other")))


def test_a_word_that_is_no_class(tmp_path: Path) -> None:
    """HAM10000 has seven classes; the table names an eighth for one image."""
    release = releases.ham10000(tmp_path / "ham10000")
    table = release / "HAM10000_metadata.csv"
    lines = table.read_text().splitlines()
    for n, line in enumerate(lines[1:]):
        path = next(release.rglob(f"{line.split(',')[1]}.jpg"))
        path.write_bytes(encode(picture(n)))
    for path in release.rglob("*_segmentation.png"):
        path.write_bytes(encode(Image.new("L", (40, 30), 255), "PNG"))
    order = Order("ham10000", str(release), str(tmp_path / "good"), Form(32), max_bad=0.5)
    good = make(order)
    assert not quarantine(good)
    fields = lines[1].split(",")
    fields[2] = "melanoma"
    table.write_text("\n".join([lines[0], ",".join(fields), *lines[2:]]))
    store = make(replace(order, store=str(tmp_path / "store")))
    (row,) = quarantine(store)
    assert (row["case"], row["done"], row["where"]) == (fields[1], LEFT_OUT, "HAM10000_metadata.csv, line 2")
    assert row["reason"].startswith("'melanoma' is no class of diagnosis")
    assert set(store.strings("case")) == set(good.strings("case")) - {fields[1]}


def test_a_lesion_in_two_published_splits(tmp_path: Path) -> None:
    """derm7pt's index files name one row twice: its case is left out."""
    release = releases.derm7pt(tmp_path)
    for n, path in enumerate(sorted((release / "images").rglob("*.[jJ]*"))):
        path.write_bytes(encode(picture(n)))
    with (release / "meta/test_indexes.csv").open("a") as file:
        file.write("0\n")
    store = make(Order("derm7pt", str(release), str(tmp_path / "store"), Form(32), max_bad=0.5))
    (row,) = quarantine(store)
    assert (row["case"], row["done"]) == ("1", LEFT_OUT)
    assert "is in both train_indexes.csv and test_indexes.csv" in row["reason"]
    assert sorted(store.strings("case")) == ["2", "3", "4", "5"]


def test_a_patient_in_two_published_splits(copy: Copy) -> None:
    copy.parts("train", "train", "train", "test", "val", "val", "test", "test")
    copy.save()
    store = make(copy.order())
    assert len(store) == CASES
    (row,) = quarantine(store)
    assert (row["done"], row["reason"]) == (KEPT, "patient p1 is in train and test of the published split")


def test_one_bad_image_of_two_leaves_the_case_its_other(tmp_path: Path) -> None:
    release = releases.derm7pt(tmp_path)
    for n, path in enumerate(sorted((release / "images").rglob("*.[jJ]*"))):
        path.write_bytes(encode(picture(n)))
    (release / "images/NEL/Nel002.JPG").write_bytes(JPEG[:300])
    store = make(Order("derm7pt", str(release), str(tmp_path / "store"), Form(32), max_bad=0.5))
    (row,) = quarantine(store)
    assert row["case"] == "1" and row["image"].endswith("images/NEL/Nel002.JPG")
    assert (row["done"], row["reason"]) == (LEFT_OUT, "is truncated")
    assert store.has("derm").tolist() == [False, True, True, True, True] and store.has("clinic").all()


@pytest.mark.parametrize(("asked", "done"), [(None, KEPT), ("keep", KEPT), ("out", LEFT_OUT)])
def test_a_duplicate_in_a_published_split_is_kept_unless_asked(asked: str | None, done: str, copy: Copy) -> None:
    copy.parts("train", "train", "val", "val", "train", "train", "test", "test")
    copy.image("x.jpg", encode(picture(2)))
    copy.save()
    store = make(copy.order(duplicates=asked))
    (row,) = quarantine(store)
    assert (row["case"], row["done"], row["reason"]) == (VICTIM, done, "is the same file as c2.jpg, but its dx differs")
    assert len(store) == CASES - (done == LEFT_OUT)
