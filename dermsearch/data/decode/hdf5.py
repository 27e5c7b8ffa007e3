"""Images inside an HDF5 file, a data set of bytes for each: images.hdf5/NAME.jpg is the one called NAME."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dermsearch.errors import UserError, first_line

MARK = ".hdf5/"


def parted(name: str) -> tuple[str, str] | None:
    """The file, and what the image is called in it; None of a name that is of a file itself."""
    file, mark, inner = name.partition(MARK)
    return (file + mark[:-1], inner.rsplit(".", 1)[0]) if mark else None


def read(path: Path, key: str) -> bytes:
    """The bytes of an image; FileNotFoundError where the file, or the image in it, is not there."""
    held = opened(str(path), path.stat().st_mtime_ns)
    try:
        return np.asarray(held[key][()]).tobytes()
    except (KeyError, TypeError):  # there is none, or a group of them is called so
        raise FileNotFoundError(f"{path}/{key}") from None


@lru_cache(maxsize=2)
def opened(path: str, changed: int) -> Any:
    """The file as it was then, opened once in a process."""
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: HDF5 files need h5py: pip install h5py") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: is no readable HDF5 file: {first_line(error)}") from None
