"""The same image is known again after a save or a change of size, and strangers are not taken for twins."""

import time
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from data.prepare.test_damage import encode, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermsearch.data.decode.image import Form, decode
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.duplicates import (
    DISTANCE,
    EDGE,
    THUMB,
    close,
    identical,
    near_identical,
    perceptual_hash,
    thumbnail,
)
from dermsearch.data.prepare.lookalikes import lookalikes

COUNT = 60


@cache
def pictures(kind: str) -> list[Image.Image]:
    if kind == "blots":
        return [picture(seed, 160, 120) for seed in range(COUNT)]
    return [Image.fromarray(case.images["derm"]) for case in synthetic(COUNT, 160, 0)]


def thumbs(files: list[bytes], side: int = 96) -> np.ndarray:
    return np.stack([np.frombuffer(thumbnail(decode(f, "x", Form(side)).pixels), np.uint8) for f in files])


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


CHANGES = {
    "quality 70": lambda image: encode(image, quality=70),
    "quality 40": lambda image: encode(image, quality=40),
    "twice as large": lambda image: encode(resized(image, 2), quality=85),
    "smaller": lambda image: encode(resized(image, 0.7), quality=85),
    "PNG": lambda image: encode(image, "PNG"),
}


@pytest.mark.parametrize("kind", ["blots", "lesions"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_saved_again_is_known(kind: str, change: str) -> None:
    files = [encode(image) for image in pictures(kind)]
    again = [CHANGES[change](image) for image in pictures(kind)]
    found = near_identical(thumbs(files + again))
    assert set(found) <= {(n, n + COUNT) for n in range(COUNT)}
    assert len(found) >= 0.97 * COUNT


@pytest.mark.parametrize("kind", ["blots", "lesions"])
def test_strangers_are_not_twins(kind: str) -> None:
    assert not near_identical(thumbs([encode(image) for image in pictures(kind)]))


def test_flat_pictures_are_told_apart_by_their_tone() -> None:
    tones = [50, 51, 90, 200, 91]
    flat = thumbs([encode(Image.new("RGB", (40, 30), (tone,) * 3), "PNG") for tone in tones])
    assert near_identical(flat) == [(0, 1), (2, 4)]


def apart(levels: float) -> np.ndarray:
    """Two thumbnails of one picture that differ by that much in the mean, and in no bit of their hashes."""
    steps = np.full(THUMB, 100, np.int64) + np.arange(THUMB) // EDGE * 4
    other = steps + (np.arange(THUMB) < levels % 1 * THUMB) + int(levels)
    both = np.stack([steps, other]).astype(np.uint8)
    assert len(set(perceptual_hash(both).tolist())) == 1 and np.abs(np.diff(both.astype(int), axis=0)).mean() == levels
    return both


@pytest.mark.parametrize(("levels", "twins"), [(0.0, True), (1.5, True), (1.5 + 1 / THUMB, False), (2.0, False)])
def test_one_and_a_half_levels_are_the_most_that_twins_differ_by(levels: float, twins: bool) -> None:
    """In one data set, and between two."""
    both = apart(levels)
    assert near_identical(both) == ([(0, 1)] if twins else [])
    one, two = (SimpleNamespace(looks=perceptual_hash(t), thumb=t.astype(np.int16).__getitem__) for t in both[:, None])
    assert list(lookalikes(one, two)) == ([(0, 0)] if twins else [])  # type: ignore[arg-type]


def test_a_turned_picture_is_another() -> None:
    image = pictures("lesions")[0]
    assert not near_identical(thumbs([encode(image), encode(image.transpose(Image.Transpose.ROTATE_90))]))


def test_the_first_of_three_stays() -> None:
    image, other = pictures("lesions")[:2]
    files = [encode(other), encode(image), encode(image, quality=80), encode(other, "PNG"), encode(image, quality=70)]
    assert near_identical(thumbs(files)) == [(0, 3), (1, 2), (1, 4)]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_identical_names_the_first(names: list[int]) -> None:
    files = np.array(names, np.uint8).reshape(-1, 1).repeat(16, 1)
    assert identical(files) == [(names.index(n), row) for row, n in enumerate(names) if names.index(n) != row]


def test_no_pictures() -> None:
    assert near_identical(np.empty((0, THUMB), np.uint8)) == [] and identical(np.empty((0, 16), np.uint8)) == []


def test_hashes_close_to_each_other_are_all_found() -> None:
    """Against every pair compared."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**64, 300, np.uint64)
    flips = [np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, n % 6 + 1).astype(np.uint64)) for n in range(300)]
    two = np.concatenate([one ^ np.array(flips), one[:50]])
    every = np.argwhere(np.bitwise_count(one[:, None] ^ two[None]) <= DISTANCE)
    assert (close(one, two) == every).all() and len(every) > 150


@pytest.mark.alone
def test_many_pictures_take_little_time() -> None:
    soft = np.random.default_rng(0).integers(0, 256, (20_000, 4, 4), np.uint8).repeat(4, 1).repeat(4, 2)
    start = time.perf_counter()
    assert not near_identical(soft.reshape(-1, THUMB))
    assert time.perf_counter() - start < 5
    assert len(np.unique(perceptual_hash(soft.reshape(-1, THUMB)))) > 19_000
