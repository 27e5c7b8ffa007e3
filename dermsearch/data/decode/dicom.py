"""A DICOM file's picture, as a radiologist's viewer would show it."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageOps

from dermsearch.data.decode.bounds import BadImage, check_size, in_8_bits
from dermsearch.errors import UserError

LACKS = "pydicom reads DICOM files: pip install pydicom"


def needs_pydicom() -> None:
    """Refuse a release of DICOM files where nothing can read them, before any work is done."""
    if find_spec("pydicom") is None:
        raise UserError(f"all images are DICOM files, and {LACKS}")


def read_dicom(data: bytes, notes: list[str]) -> Image.Image:
    """The first frame in 8 bits: window or full range, dark background whichever way it was stored."""
    if find_spec("pydicom") is None:
        raise BadImage(f"cannot be read without a package: {LACKS}")
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    file = pydicom.dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in file:
        raise BadImage("is a DICOM file without pixels" if data[128:132] == b"DICM" else "is no DICOM file")
    check_size(file.Columns, file.Rows)
    if int(file.get("NumberOfFrames") or 1) > 1:
        notes.append("has several frames: the first is used")
    values = pixel_array(file, index=0)
    if values.ndim == 3:
        return Image.fromarray(values) if values.dtype == np.uint8 else in_8_bits(values)
    picture = in_8_bits(apply_voi_lut(apply_modality_lut(values, file), file))
    if file.get("PhotometricInterpretation") == "MONOCHROME1":  # stored with white as zero
        picture = ImageOps.invert(picture)
    return picture.convert("RGB")
