"""Copies that are known again, strangers that are taken for copies, and the time that comparing takes.

    python benchmarks/duplicates.py [PATH ...] [--copies N]

Of built-in cases, and of every PATH: a case store, or the unpacked release of HAM10000. From so many pictures copies
are made in each of several ways, saved as files, decoded as `dermsearch data prepare` does at another side, and looked
for among all pictures. A false alarm is a picture that is taken for one of another lesion.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from dermsearch.data.decode.image import Form, decode
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.prepare.duplicates import known_again, near_identical
from dermsearch.data.sources.base import Columns
from dermsearch.data.sources.ham10000 import SOURCE
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MANIFEST
from dermsearch.storage.files import Folder

KEPT, COPIED = Form(128), Form(64)  # the sides of the two stores
DRAWN = 1000  # built-in cases
SHOWN = 10
Way = Callable[[Image.Image], bytes]


def saved(image: Image.Image, quality: int = 90) -> bytes:
    """As a JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Smaller or larger."""
    size = (max(16, round(image.width * factor)), max(16, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without these shares of its width and height."""
    w, h = image.size
    return image.crop((round(left * w), round(top * h), round(w - right * w), round(h - bottom * h)))


def bright(image: Image.Image, factor: float) -> Image.Image:
    """Brighter or darker."""
    return ImageEnhance.Brightness(image).enhance(factor)


def turned(turn: Image.Transpose) -> Way:
    """Flipped or turned."""
    return lambda image: saved(image.transpose(turn))


WAYS: dict[str, Way] = {
    "quality 40": lambda image: saved(image, 40),
    "0.7 of the size": lambda image: saved(resized(image, 0.7), 85),
    "half the size, quality 70": lambda image: saved(resized(image, 0.5), 70),
    "twice the size": lambda image: saved(resized(image, 2), 85),
    "brightness +2 %": lambda image: saved(bright(image, 1.02)),
    "brightness +5 %": lambda image: saved(bright(image, 1.05)),
    "brightness -5 %": lambda image: saved(bright(image, 0.95)),
    "1 % off every edge": lambda image: saved(cropped(image, *[0.01] * 4)),
    "2 % off every edge": lambda image: saved(cropped(image, *[0.02] * 4)),
    "2 % off the left edge": lambda image: saved(cropped(image, 0.02, 0, 0, 0)),
    "2 % off two edges": lambda image: saved(cropped(image, 0, 0.02, 0.02, 0)),
    **{turn.name.lower().replace("_", " "): turned(turn) for turn in Image.Transpose},
    "turned, -5 %, 2 % off": lambda image: saved(
        bright(cropped(image.transpose(Image.Transpose.ROTATE_90), *[0.02] * 4), 0.95), 80
    ),
}


def built_in(count: int) -> Iterator[tuple[str, Image.Image]]:
    """Lesions and pictures of drawn cases, larger than they are kept."""
    for case in synthetic(count, 192, 0):
        yield case.lesion, Image.fromarray(case.images["derm"])


def of_path(path: Path) -> Iterator[tuple[str, Image.Image]]:
    """Lesions and pictures of a case store, or of HAM10000's release."""
    if (path / MANIFEST).is_file():
        store = CaseStore(path)
        lesions = store.strings("lesion")
        for modality in store.modalities:
            for row in np.flatnonzero(store.has(modality)):
                yield lesions[row] or str(row), Image.fromarray(store.pictures(modality, np.array([row]))[0][0])
        return
    for record in SOURCE.read(Folder(path), Columns()).records:
        with Image.open(path / record.images["derm"]) as image:
            yield record.lesion, image.convert("RGB")


def look(data: bytes, form: Form) -> np.ndarray:
    """As preparing sees a file."""
    return np.frombuffer(decode(data, "", form).look, np.uint8)


def measure(name: str, pictures: Iterator[tuple[str, Image.Image]], copies: int) -> None:
    """Print what is found and what it costs."""
    lesions: list[str] = []
    looks: list[np.ndarray] = []
    chosen: list[Image.Image] = []
    for lesion, image in pictures:
        lesions.append(lesion)
        looks.append(look(saved(image, 95), KEPT))
        if len(chosen) < copies:
            chosen.append(image)
    known = np.stack(looks)
    print(f"{name}: {len(known):,} pictures, of {len(set(lesions)):,} lesions; {len(chosen):,} of them copied")
    for way, make in WAYS.items():
        again = np.stack([look(make(image), COPIED) for image in chosen])
        found = known_again(again, known)
        right = sum(lesions[i] == lesions[j] for i, j in found)
        wrong = len(found) - right
        print(
            f"  {way:<28}{100 * right / len(chosen):7.2f} % found" + (f", {wrong} as of another lesion" * (wrong > 0))
        )
    twins = near_identical(known)
    false = [(i, j) for i, j in twins if lesions[i] != lesions[j]]
    print(f"  nearly the same: {len(twins) - len(false)} of one lesion, {len(false)} of two; {false[:SHOWN]}")
    start = time.perf_counter()
    known_again(known, known[::-1])
    print(f"  {len(known):,} x {len(known):,} pictures compared in {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, help="case stores, or HAM10000's folder")
    parser.add_argument("--copies", type=int, default=500, help="pictures that are copied in each way")
    given = parser.parse_args()
    measure("built-in", built_in(DRAWN), given.copies)
    for path in given.paths:
        measure(str(path), of_path(path), given.copies)


if __name__ == "__main__":
    main()
