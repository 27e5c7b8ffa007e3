"""Where a study lies: a path, or the name of one that travels with the package."""

from __future__ import annotations

from pathlib import Path

from dermsearch.errors import UserError, nearest
from dermsearch.study.wording import short


def shipped_folder() -> Path:
    """The studies that travel with the package: inside it in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parents[1]
    inside = here / "search_spaces"
    return inside if inside.is_dir() else here.parent / "search_spaces"


def find(study: str) -> Path:
    """A path if there is one, else the shipped study of that name."""
    if "\x00" in study or not study.strip():
        raise UserError("STUDY: must be the path of a file or the name of a shipped study")
    path, shown = Path(study), short(study, 300)
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UserError(f"{shown}: is a folder; name the study file in it")
        if path.exists():
            raise UserError(f"{shown}: is not a regular file")
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror}") from None
    shipped = {p.name: p for p in sorted(shipped_folder().glob("*.yaml"))}
    for name in (study, f"{study}.yaml"):
        if name in shipped:
            return shipped[name]
    meant = nearest(path.stem, (Path(name).stem for name in shipped))  # .yaml makes all of them alike
    raise UserError(f"{shown}: no such file, and no shipped study of that name; {meant}")
