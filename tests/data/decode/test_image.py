"""Pixels come out right whatever the file was, and bytes that were damaged at random raise nothing but `BadImage`."""

import io
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import simplejpeg
from data.prepare.test_damage import DEEP, FILES, GOOD, dicom, encode, lying_png, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pace import slowness
from PIL import Image

from dermsearch.data.decode.bounds import BadImage
from dermsearch.data.decode.image import Fit, Form, decode, decode_mask

WHOLE = Form(30)  # the side that the pictures have: nothing is resized


def most_memory() -> float:
    """MB that this process held at its worst."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def pixels(data: bytes, name: str = "x", form: Form = WHOLE) -> np.ndarray:
    return decode(data, name, form).pixels.astype(int)


GREY = np.asarray(GOOD.convert("L")).astype(int)[..., None].repeat(3, 2)
STRETCHED = np.round((GREY - GREY.min()) * (255 / (GREY.max() - GREY.min())))


@pytest.mark.parametrize(
    ("kind", "expected", "tolerance"),
    [
        ("CMYK", GOOD, 4),
        ("grey", GREY, 4),
        ("palette", GOOD, 25),  # of few colours
        ("YCbCr", GOOD, 2),
        ("LAB", GOOD, 2),
        ("16-bit PNG", STRETCHED, 0),
        ("float TIFF", STRETCHED, 0),
        ("PNG named .jpg", GOOD, 0),
        ("JPEG with more behind", GOOD, 4),
        ("WebP named .jpg", GOOD, 8),
        ("JPEG 2000 named .jpg", GOOD, 0),
        ("moving GIF", GOOD, 25),
        ("TIFF of several pages", GOOD, 0),
        ("16 bits of one value", np.zeros((30, 40, 3)), 0),
    ],
)
def test_an_odd_file_shows_the_same_picture(kind: str, expected: np.ndarray, tolerance: float) -> None:
    name, data, _, _ = FILES[kind]
    assert np.abs(pixels(data(), name) - np.asarray(expected)).mean() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_every_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    """The inverse of what EXIF says was done, with the size that the upright picture has."""
    turns = (None, 0, 3, 1, 5, 2, 6, 4)  # what stores a picture so; Image.Transpose
    turn = turns[orientation - 1]
    stored = GOOD if turn is None else GOOD.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encode(stored, kind, exif=exif), f"x.{kind.lower()}", WHOLE)
    assert found.original == (30, 40) and found.pixels.shape == (30, 40, 3)
    assert np.abs(found.pixels.astype(int) - np.asarray(GOOD)).mean() < 4
    assert found.notes == (["was turned upright, as its EXIF says"] if orientation > 1 else [])


@pytest.mark.parametrize(("orientation", "original"), [(1, (1000, 999)), (6, (999, 1000))])
def test_the_size_of_an_original_that_is_nearly_square(orientation: int, original: tuple[int, int]) -> None:
    """At an eighth of its size it is square."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encode(picture(1, 999, 1000), exif=exif), "x.jpg", Form(32)).original == original


def test_what_is_clear_becomes_white() -> None:
    name, data, _, _ = FILES["alpha"]
    found = pixels(data(), name)
    assert (found[:, :20] == 255).all() and (found[:, 20:] == np.asarray(GOOD)[:, 20:]).all()


def test_an_alpha_channel_that_hides_nothing_is_not_odd() -> None:
    found = decode(encode(GOOD.convert("RGBA"), "PNG"), "x.png", WHOLE)
    assert not found.notes and (found.pixels == np.asarray(GOOD)).all()


@pytest.mark.parametrize(("fit", "size"), [("keep", (43, 32)), ("crop", (32, 32)), ("squash", (32, 32))])
@pytest.mark.parametrize("border", [0, 4])
def test_a_large_jpeg_decoded_at_a_smaller_scale_is_the_picture(fit: Fit, size: tuple[int, int], border: int) -> None:
    large = picture(5, 640, 480)
    form = Form(32, fit, border)
    found, exact = pixels(encode(large), "x.jpg", form), pixels(encode(large, "PNG"), "x.png", form)
    assert found.shape[1::-1] == size and decode(encode(large), "x.jpg", form).original == (480, 640)
    assert np.abs(found - exact).mean() < 4  # the shift of a pixel makes it more than 7


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}])
def test_a_jpeg_of_any_kind_has_the_pixels_that_pillow_reads(settings: dict[str, Any]) -> None:
    data = encode(GOOD, "JPEG", **settings)
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


def test_a_jpeg_that_the_strict_decoder_refuses_is_left_to_pillow() -> None:
    data = encode(GOOD, "JPEG", restart_marker_blocks=1)
    at = data.index(b"\xff\xd1")
    odd = data[:at] + b"\xff\xd5" + data[at + 2 :]  # a restart out of turn
    with pytest.raises(ValueError):
        simplejpeg.decode_jpeg(odd, strict=True)
    assert np.array_equal(pixels(odd), np.asarray(Image.open(io.BytesIO(odd))))


def test_a_border_that_leaves_nothing() -> None:
    with pytest.raises(BadImage, match="too small to cut 10 from every edge"):
        decode(encode(GOOD), "x.jpg", Form(30, border=10))


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(np.uint8(DEEP > 25_000) * 255),
        Image.fromarray(np.uint8(DEEP > 25_000)),  # 0 and 1
        Image.fromarray(np.uint16(DEEP > 25_000) * 65_535),
        Image.fromarray(np.uint8(DEEP > 25_000) * 255).convert("1"),
        Image.fromarray(np.uint8(DEEP > 25_000) * 255).convert("RGB"),
    ],
    ids=["255", "1", "16 bits", "1 bit", "RGB"],
)
def test_masks_of_every_kind_say_the_same(mask: Image.Image) -> None:
    found = np.asarray(decode_mask(encode(mask, "PNG"), (30, 40), WHOLE))
    assert (found == np.uint8(DEEP > 25_000) * 255).all()


@pytest.mark.parametrize("turn", [3, 6])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_mask_is_turned_upright_as_its_image_is(turn: int, kind: str) -> None:
    levels = np.zeros((30, 40), np.uint8)
    levels[:10] = 255
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    Image.fromarray(levels).save(out, kind, exif=exif)
    image = decode(out.getvalue(), "x", WHOLE)
    mask = decode_mask(out.getvalue(), image.original, WHOLE)
    assert np.array_equal(mask, image.pixels[..., 0]) and mask.any() and not mask[0, 0]


def test_an_empty_mask_stays_empty() -> None:
    assert not np.asarray(decode_mask(encode(Image.new("L", (40, 30)), "PNG"), (30, 40), WHOLE)).any()


def test_a_radiograph_is_shown_as_a_viewer_would() -> None:
    plain = pixels(dicom(), "x.dcm")
    assert np.abs(plain - STRETCHED).max() <= 1
    assert (pixels(dicom(), "without an extension") == plain).all()
    inverted = pixels(dicom(PhotometricInterpretation="MONOCHROME1"), "x.dcm")
    assert (inverted == 255 - plain).all()
    middle, width = 25_000, 10_000
    window = pixels(dicom(WindowCenter=middle, WindowWidth=width), "x.dcm")
    apart = DEEP.astype(int) - middle
    assert (window[apart < -width] == 0).all() and (window[apart > width] == 255).all()
    assert 0 < np.median(window[np.abs(apart) < 2000]) < 255


def test_the_first_frame_of_a_moving_scan() -> None:
    found = decode(dicom(NumberOfFrames=2, PixelData=DEEP.tobytes() + DEEP[::-1].tobytes()), "x.dcm", WHOLE)
    assert found.notes == ["has several frames: the first is used"]
    assert np.abs(found.pixels.astype(int) - STRETCHED).max() <= 1


def test_a_photograph_in_a_dicom_file() -> None:
    eight = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    eight |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": GOOD.tobytes()}
    assert (pixels(dicom(**eight), "x.dcm") == np.asarray(GOOD)).all()


MEASURED = """
import resource, sys, time
from dermsearch.data.decode.bounds import BadImage
from dermsearch.data.decode.image import Form, decode

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000

data, before, start = sys.stdin.buffer.read(), most(), time.process_time()
try:
    decode(data, "x.png", Form(30))
except BadImage:
    print(time.process_time() - start, most() - before)
"""


@pytest.mark.parametrize("data", [lying_png(20_000, 20_000), lying_png(10_000, 9_999)], ids=["refused", "decoded"])
@pytest.mark.alone
def test_a_bomb_takes_neither_time_nor_memory(data: bytes) -> None:
    """In a process of its own: what older ones have given back is filled with zeros before it is given out again."""
    done = subprocess.run([sys.executable, "-c", MEASURED], input=data, capture_output=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < slowness() and megabytes < 100


@contextmanager
def no_time() -> Iterator[None]:
    """Three seconds of the processor, on a slow machine more: others may have it meanwhile."""
    began = time.process_time()
    try:
        yield
    finally:
        assert time.process_time() - began < 3 * PACE()


PACE = cache(slowness)
SEEDS = {kind: encode(GOOD, kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM")}
SEEDS["progressive"] = encode(GOOD, progressive=True)
SEEDS["EXIF"] = FILES["EXIF rotation"][1]()
SEEDS["packed TIFF"] = encode(GOOD, "TIFF", compression="tiff_lzw")
SEEDS["moving GIF"] = FILES["moving GIF"][1]()
SEEDS["palette BMP"] = encode(GOOD.convert("P"), "BMP")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An image file with some of its bytes changed, cut out or put in; often near the start, where its header is."""
    data = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 4))):
        end = max(1, len(data))
        at = draw(st.integers(0, min(end, 200)) | st.integers(0, end))
        what = draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if what == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif what == "end":
            del data[at:]
    return bytes(data)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=damaged(), name=st.sampled_from(["x.jpg", "x.png", "x"]), border=st.sampled_from([0, 2]))
def decode_damaged(data: bytes, name: str, border: int) -> None:
    form = Form(32, border=border)
    try:
        with no_time():
            found = decode(data, name, form)
    except BadImage as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert found.pixels.dtype == np.uint8 and min(found.pixels.shape[:2]) == 32


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata
def test_bytes_damaged_at_random() -> None:
    before = most_memory()
    decode_damaged()
    assert most_memory() - before < 500


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400), name=st.sampled_from(["x.jpg", "x.dcm"]))
@pytest.mark.filterwarnings("ignore")
def test_bytes_that_never_were_an_image(data: bytes, name: str) -> None:
    with pytest.raises(BadImage), no_time():
        decode(data, name, WHOLE)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 3000), length=st.integers(0, 40), put=st.binary(max_size=20))
@pytest.mark.filterwarnings("ignore")
def test_damaged_radiographs(at: int, length: int, put: bytes) -> None:
    data = dicom()
    try:
        with no_time():
            found = decode(data[:at] + put + data[at + length :], "x.dcm", WHOLE)
    except BadImage as error:
        assert "\n" not in str(error)
    else:
        assert found.pixels.dtype == np.uint8 and min(found.pixels.shape[:2]) == 30
