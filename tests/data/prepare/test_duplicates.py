"""The same image is known again after a save, a change of size or a turn, and strangers are not taken for twins."""

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from data.prepare.test_damage import encode, picture
from hypothesis import given
from hypothesis import strategies as st
from pace import slowness
from PIL import Image, ImageEnhance

from dermsearch.data.decode.image import Form, decode
from dermsearch.data.decode.look import EDGE, THUMB, thumbnail
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.duplicates import identical, known_again, near_identical

COUNT = 60
KEPT = Form(96)


@cache
def pictures(kind: str) -> list[Image.Image]:
    if kind == "blots":
        return [picture(seed, 160, 120) for seed in range(COUNT)]
    return [Image.fromarray(case.images["derm"]) for case in synthetic(COUNT, 160, 0)]


def looks(files: list[bytes], form: Form = KEPT) -> np.ndarray:
    return np.stack([np.frombuffer(decode(f, "x", form).look, np.uint8) for f in files])


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round(w - right * w), round(h - bottom * h)))


def bright(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def turned(turn: Image.Transpose) -> Callable[[Image.Image], bytes]:
    return lambda image: encode(image.transpose(turn), quality=85)


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 70": lambda image: encode(image, quality=70),
    "quality 40": lambda image: encode(image, quality=40),
    "twice as large": lambda image: encode(resized(image, 2), quality=85),
    "smaller": lambda image: encode(resized(image, 0.7), quality=85),
    "PNG": lambda image: encode(image, "PNG"),
    "brighter": lambda image: encode(bright(image, 1.05), quality=85),
    "darker": lambda image: encode(bright(image, 0.95), quality=85),
    "2 % off every edge": lambda image: encode(cropped(image, *[0.02] * 4), quality=85),
    "2 % off one edge": lambda image: encode(cropped(image, 0.02, 0, 0, 0), quality=85),
    **{turn.name.lower(): turned(turn) for turn in Image.Transpose},
}


@pytest.mark.parametrize("kind", ["blots", "lesions"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_saved_again_is_known(kind: str, change: str) -> None:
    files = [encode(image) for image in pictures(kind)]
    again = [CHANGES[change](image) for image in pictures(kind)]
    found = near_identical(looks(files + again))
    assert set(found) <= {(n, n + COUNT) for n in range(COUNT)}
    exact = change not in ("brighter", "darker", "2 % off every edge", "2 % off one edge")
    assert len(found) >= (COUNT if exact else 0.97 * COUNT)


@pytest.mark.parametrize(
    "form", [Form(16), Form(64), Form(72), Form(100), Form(96, "crop"), Form(96, "squash", 5)], ids=str
)
def test_copies_are_known_whatever_is_kept_of_them(form: Form) -> None:
    files = looks([encode(image, quality=85) for image in pictures("lesions")])
    again = looks([CHANGES["smaller"](image) for image in pictures("lesions")], form)
    assert known_again(again, files) == [(n, n) for n in range(COUNT)]
    detailed = looks([CHANGES["smaller"](image) for image in pictures("lesions")], Form(140))
    assert np.abs(again.astype(int) - detailed).mean(1).max() < 1, "not made of what a small side leaves"


@pytest.mark.parametrize("kind", ["blots", "lesions"])
def test_strangers_are_not_twins(kind: str) -> None:
    assert not near_identical(looks([encode(image) for image in pictures(kind)]))


def test_flat_pictures_are_told_apart_by_their_tone() -> None:
    tones = [50, 51, 90, 200, 91]
    flat = looks([encode(Image.new("RGB", (40, 30), (tone,) * 3), "PNG") for tone in tones])
    assert near_identical(flat) == [(0, 1), (2, 4)]


def test_a_much_darker_flatter_cropped_or_tilted_picture_is_another() -> None:
    """What a fit may explain has an end."""
    image = pictures("lesions")[0]
    for other in (
        bright(image, 0.75),
        ImageEnhance.Contrast(image).enhance(0.6),
        cropped(image, *[0.08] * 4),
        image.rotate(8, expand=False, fillcolor=(200, 160, 140)),
    ):
        assert not near_identical(looks([encode(image), encode(other)]))


def test_the_first_of_three_stays() -> None:
    image, other = pictures("lesions")[:2]
    files = [encode(other), encode(image), encode(image, quality=80), encode(other, "PNG"), encode(image, quality=70)]
    assert near_identical(looks(files)) == [(0, 3), (1, 2), (1, 4)]


def test_of_many_equal_looks_the_first_is_told() -> None:
    one, two = looks([encode(image) for image in pictures("lesions")[:2]])
    assert near_identical(np.stack([one, two, two, one, one])) == [(0, 3), (0, 4), (1, 2)]
    assert known_again(np.stack([two, one]), np.stack([one, two, one])) == [(0, 1), (1, 0)]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_identical_names_the_first(names: list[int]) -> None:
    files = np.array(names, np.uint8).reshape(-1, 1).repeat(16, 1)
    assert identical(files) == [(names.index(n), row) for row, n in enumerate(names) if names.index(n) != row]


def test_no_pictures() -> None:
    none = np.empty((0, THUMB), np.uint8)
    some = looks([encode(image) for image in pictures("blots")[:2]])
    assert near_identical(none) == known_again(none, some) == known_again(some, none) == []
    assert identical(np.empty((0, 16), np.uint8)) == []


def test_blocks_of_any_size_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures("lesions")
    found = looks([encode(i) for i in images] + [turned(Image.Transpose.ROTATE_90)(i) for i in images])
    whole = near_identical(found)
    monkeypatch.setattr("dermsearch.data.prepare.duplicates.BLOCK", 500)
    assert near_identical(found) == whole == [(n, n + COUNT) for n in range(COUNT)]


def test_a_look_is_of_the_whole_original() -> None:
    image = pictures("lesions")[0]
    assert decode(encode(image, "PNG"), "x", Form(32, "crop", 20)).look == thumbnail(np.asarray(image))
    assert len(thumbnail(np.asarray(image))) == EDGE**2


@pytest.mark.alone
def test_many_pictures_take_little_time() -> None:
    soft = np.random.default_rng(0).integers(0, 256, (10_000, 4, 4), np.uint8)
    many = soft.repeat(EDGE // 4, 1).repeat(EDGE // 4, 2).reshape(-1, THUMB)
    start = time.process_time()
    assert not near_identical(many)
    assert time.process_time() - start < 8 * slowness()
