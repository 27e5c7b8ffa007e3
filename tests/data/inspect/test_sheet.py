from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermsearch.data.domain import SKIN
from dermsearch.data.drawn.skin import synthetic
from dermsearch.data.inspect.sheet import contact_sheet, save_png
from dermsearch.data.inspect.show import show_store
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError


def stacks(cases: int, side: int) -> dict[str, np.ndarray]:
    shape = (cases, side, side, 3)
    return {"derm": np.full(shape, (200, 10, 10), np.uint8), "clinic": np.full(shape, (10, 10, 200), np.uint8)}


def test_every_image_is_on_the_sheet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    contact_sheet(stacks(7, 96), [f"NEV {k}" for k in range(7)], path)  # two rows
    sheet = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for colour in ((200, 10, 10), (10, 10, 200)):
        assert (sheet == colour).all(1).sum() == 7 * 96 * 96


def test_small_images_are_enlarged_and_long_captions_wrapped(tmp_path: Path) -> None:
    contact_sheet(stacks(1, 32), ["NEV"], tmp_path / "short.png")
    contact_sheet(stacks(1, 32), ["MEL: " + "PN-aty " * 12], tmp_path / "long.png")
    short, long = Image.open(tmp_path / "short.png"), Image.open(tmp_path / "long.png")
    assert short.width == long.width >= 2 * 96
    assert long.height > short.height


def test_why_a_picture_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own errors carry no number, and so none of the system's words."""
    sheet = Image.new("RGB", (8, 8))
    monkeypatch.setattr(sheet, "save", lambda *_: (_ for _ in ()).throw(OSError("encoder error -2")))
    with pytest.raises(UserError, match=r"^--output: '.*x.png' cannot be written: encoder error -2"):
        save_png(sheet, tmp_path / "x.png")


def test_captions_are_drawn(tmp_path: Path) -> None:
    for name, caption in (("without", ""), ("with", "NEV")):
        contact_sheet(stacks(2, 96), [caption] * 2, tmp_path / f"{name}.png")
    without, with_ = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("without", "with"))
    assert without.shape == with_.shape
    assert (without != with_).any()


def test_cases_that_were_made_say_so_above_the_sheet(tmp_path: Path) -> None:
    """In a line of its own, which real cases lack: what stands below is the same."""
    settings = {"source": "synthetic", "cases": 6}
    told = "images made by a generator of the training cases of store 0123abcd"
    sheets = []
    for name, more in (("real", {}), ("made", {"made": told})):
        cases = synthetic(6, 96, 0)
        store = write_store(tmp_path / name, cases, Split(), SKIN.labels, {**settings, **more}, SKIN.columns)
        sheets.append(np.asarray(Image.open(show_store(store, tmp_path / f"{name}.png", 4, 0)).convert("RGB")))
    real, made = sheets
    line = len(made) - len(real)
    assert line in (16, 32) and made.shape[1] == real.shape[1]
    assert np.array_equal(made[52 + line :], real[52:])
    loud = [(head[..., 0] > head[..., 2].astype(int) + 60).sum() for head in (real[:52], made[: 52 + line])]
    assert loud[0] == 0 and loud[1] > 100
