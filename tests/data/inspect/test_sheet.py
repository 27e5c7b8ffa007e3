from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermsearch.data.inspect.sheet import contact_sheet
from dermsearch.errors import UserError


def stacks(cases: int, side: int) -> dict[str, np.ndarray]:
    shape = (cases, side, side, 3)
    return {"derm": np.full(shape, (200, 10, 10), np.uint8), "clinic": np.full(shape, (10, 10, 200), np.uint8)}


def test_every_image_is_on_the_sheet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    contact_sheet(stacks(5, 96), [f"NEV {k}" for k in range(5)], path, columns=3)
    sheet = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for colour in ((200, 10, 10), (10, 10, 200)):
        assert (sheet == colour).all(1).sum() == 5 * 96 * 96


def test_small_images_are_enlarged_and_long_captions_wrapped(tmp_path: Path) -> None:
    contact_sheet(stacks(1, 32), ["NEV"], tmp_path / "short.png")
    contact_sheet(stacks(1, 32), ["MEL: " + "PN-aty " * 12], tmp_path / "long.png")
    short, long = Image.open(tmp_path / "short.png"), Image.open(tmp_path / "long.png")
    assert short.width == long.width >= 2 * 96
    assert long.height > short.height


def test_captions_are_drawn(tmp_path: Path) -> None:
    for name, caption in (("without", ""), ("with", "NEV")):
        contact_sheet(stacks(2, 96), [caption] * 2, tmp_path / f"{name}.png")
    without, with_ = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("without", "with"))
    assert without.shape == with_.shape
    assert (without != with_).any()


@pytest.mark.parametrize(
    ("images", "captions", "columns"),
    [({}, ["a"], 6), (stacks(2, 32), ["a"], 6), (stacks(1, 32), [], 6), (stacks(1, 32), ["a"], 0)],
)
def test_a_sheet_that_makes_no_sense_is_refused(
    tmp_path: Path, images: dict[str, np.ndarray], captions: list[str], columns: int
) -> None:
    with pytest.raises(UserError):
        contact_sheet(images, captions, tmp_path / "sheet.png", columns=columns)
