"""Pictures and tables of made-up releases."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from csv import DictWriter
from pathlib import Path

from PIL import Image


def image(path: Path, tone: int = 120) -> None:
    """A picture that can be opened, of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (tone % 256, 90, 70)).save(path)


def images(folder: Path, *names: str) -> None:
    """Pictures of different tones."""
    for number, name in enumerate(names):
        image(folder / name, 40 + 17 * number)


def table(path: Path, lines: Iterable[str], end: str = "\n") -> None:
    """A text file with these line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def csv_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """A table of rows that have the same columns."""
    text = io.StringIO()
    writer = DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table(path, text.getvalue().splitlines())
