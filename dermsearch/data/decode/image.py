"""From the bytes of an image file to pixels of the asked side, or the reason why not.

What can be read rightly is read, and what was odd about it is told; what cannot raises `BadImage` with a reason
for the quarantine table. JPEGs are decoded at a reduced scale where that suffices, which doubles the speed.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dermsearch.data.decode.bounds import SMALLEST, STRIP, BadImage, check_size, in_8_bits
from dermsearch.data.decode.dicom import read_dicom
from dermsearch.data.decode.look import thumbnail
from dermsearch.words import many

Fit = Literal["keep", "crop", "squash"]
Box = tuple[int, int, int, int]  # left, top, right, bottom

Image.MAX_IMAGE_PIXELS = None  # `open_image` looks at the size itself, before anything is decoded
cv2.setNumThreads(1)  # there is a process for every core
ImageFile.LOAD_TRUNCATED_IMAGES = False
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000", "AVIF", "PPM")  # no others: EPS runs a program
BY_EXTENSION = {
    **{"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF"},
    **{"gif": "GIF", "webp": "WEBP"},
}
DETAIL = 64  # pixels on the short side that a look is made of, where the file has them
ORIENTATION = 0x0112  # the EXIF tag
MODES = {"P": "a palette", "L": "grey", "LA": "grey", "1": "black and white"}


@dataclass(frozen=True)
class Form:
    """How images are kept: the short side, what becomes of the aspect, and what is cut off the edges before.

    `keep` keeps the aspect; `crop` takes the central square; `squash` makes a square of all of it.
    """

    side: int
    fit: Fit = "keep"
    border: int = 0  # pixels of the original, from every edge


@dataclass
class Picture:
    """Decoded pixels, the size that the file had, what was odd, and a thumbnail of the whole original."""

    pixels: np.ndarray  # uint8 (height, width, 3)
    original: tuple[int, int]  # height, width
    notes: list[str]
    look: bytes


def decode(data: bytes, name: str, form: Form, grey: bool = False) -> Picture:
    """The image in `data`; `name` tells what its extension claims, `grey` that it is of a kind without colours."""
    if not data:
        raise BadImage("is empty")
    notes: list[str] = []
    try:
        image = open_image(data, name, notes)
        original, stored = upright_size(image), image.size
        if image.format == "JPEG" and not form.border:
            reduce(image, form)
        reduced = image.size != stored
        image = in_colour(upright(image, notes), notes, grey)
        pixels = pixels_of(image, data if image.size == stored else b"")
        if reduced and min(image.size) < DETAIL:
            look = decode(data, name, replace(form, side=DETAIL)).look
        else:
            look = thumbnail(pixels)
        if grey and (pixels != pixels[..., :1]).any():
            notes.append("has colours: is kept in grey")
        pixels = resize(pixels, form)
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the damage led them into
        raise BadImage(reason(error)) from None
    return Picture(pixels, original, notes, look)


def decode_mask(data: bytes, original: tuple[int, int], form: Form) -> np.ndarray:
    """A lesion mask, 0 or 255, in the form of the image of that original size."""
    try:
        mask = upright(open_image(data, "", []), [])
        if (mask.height, mask.width) != original:
            raise BadImage(f"is {mask.width} x {mask.height} pixels, its image {original[1]} x {original[0]}")
        if mask.mode.startswith(("I", "F")):
            mask = in_8_bits(np.asarray(mask))
        box, size = laid_out(mask.size, form)
        grey = mask.resize(size, Image.Resampling.NEAREST, box).convert("L")
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(reason(error)) from None
    levels = np.asarray(grey)
    level = min(128, max(int(levels.max()), 1))  # some masks say 1 where others say 255
    return cv2.threshold(levels, level - 1, 255, cv2.THRESH_BINARY)[1]


def open_image(data: bytes, name: str, notes: list[str]) -> Image.Image:
    """The image, not decoded yet; refused where its header alone shows that it is of no use."""
    extension = name.rsplit(".", 1)[-1].lower()
    if extension in ("dcm", "dicom") or data[128:132] == b"DICM":
        return read_dicom(data, notes)
    file = io.BytesIO(data)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImage(f"is no image that can be read: it starts with {data[:12]!r}") from None
    claimed = BY_EXTENSION.get(extension)
    if claimed and image.format not in (claimed, "MPO"):
        notes.append(f"is a {image.format} file, not the {claimed} that its name says")
    check_size(image.width, image.height)
    if image.format == "JPEG":
        check_end(data, file.tell(), notes)
    elif image.format == "PNG":
        check_chunks(data)
        if data[24] > 8 and image.mode.startswith(("RGB", "LA")):
            notes.append("was scaled to 8 bits")  # by Pillow
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.append("has several frames: the first is used")
    return image


def check_chunks(data: bytes) -> None:
    """A PNG's parts must be what their checksums say: decoding does not look at them."""
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            raise BadImage("is truncated")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise BadImage("is damaged: a part of it is not what its checksum says")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4
    raise BadImage("is truncated")


def check_end(data: bytes, pixels: int, notes: list[str]) -> None:
    """A JPEG has an end mark after its pixels; one padded with zeros has none, and would decode to grey."""
    end = data.rfind(b"\xff\xd9", pixels)
    if end < 0:
        raise BadImage("is truncated")
    if end + 2 < len(data):
        notes.append(f"has {many(len(data) - end - 2, 'byte')} after its end")


def reduce(image: Image.Image, form: Form) -> None:
    """Let a JPEG's decoder skip detail: to no less than the size that is asked for."""
    scale = form.side / min(image.size)
    whole = (round(image.width * scale), round(image.height * scale))
    image.draft("RGB", (form.side, form.side) if form.fit == "squash" else whole)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width as they will be. Pillow swaps those of a TIFF by itself."""
    if image.format != "TIFF" and image.getexif().get(ORIENTATION) in (5, 6, 7, 8):
        return image.width, image.height
    return image.height, image.width


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turned as its EXIF orientation says."""
    if image.getexif().get(ORIENTATION) in range(2, 9):
        notes.append("was turned upright, as its EXIF says")
        return ImageOps.exif_transpose(image)
    return image


def in_colour(image: Image.Image, notes: list[str], grey: bool) -> Image.Image:
    """RGB, whatever it was; that it was grey is odd where it is not to be."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        notes.append("was scaled to 8 bits")
        return in_8_bits(np.asarray(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        whole = image.convert("RGBA")
        if np.asarray(whole)[..., 3].min() < 255:
            notes.append("was transparent in part: laid on white")
            return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    if image.mode != "RGBA" and not (grey and image.mode in ("L", "LA")):
        notes.append(f"was converted from {MODES.get(image.mode, image.mode)}")
    return image.convert("RGB")


def pixels_of(image: Image.Image, jpeg: bytes) -> np.ndarray:
    """The image as an array: of a flawless JPEG that is as it was opened without Pillow's copies, the same pixels."""
    if jpeg and image.format == "JPEG":  # Pillow forgets the format with the first change
        try:
            return simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)
        except ValueError:  # some oddity, that Pillow may know to read
            pass
    return np.asarray(image)


def resize(pixels: np.ndarray, form: Form) -> np.ndarray:
    """The image in its form, uint8 (height, width, 3).

    Reduced by averages to less than twice the size, then by OpenCV's bilinear filter, so that next to nothing aliases:
    the pixels are Pillow's to a third of a level on average, in a fifth of the time.
    """
    box, size = laid_out((pixels.shape[1], pixels.shape[0]), form)
    left, top, right, bottom = box
    factor = min((right - left) // size[0], (bottom - top) // size[1])
    reduced = Image.fromarray(pixels).reduce(factor, box) if factor > 1 else pixels[top:bottom, left:right]
    return cv2.resize(np.asarray(reduced), size, interpolation=cv2.INTER_LINEAR)


def laid_out(whole: tuple[int, int], form: Form) -> tuple[Box, tuple[int, int]]:
    """Which box of an image of that width and height is kept, and its width and height in the form."""
    border = form.border
    if border and min(whole) - 2 * border < SMALLEST:
        raise BadImage(f"is {whole[0]} x {whole[1]} pixels: too small to cut {border} from every edge")
    width, height = (side - 2 * border for side in whole)
    short, size = min(width, height), (form.side, form.side)
    if form.fit == "crop":
        left, top = border + (width - short) // 2, border + (height - short) // 2
        return (left, top, left + short, top + short), size
    if form.fit == "keep":
        scale = form.side / short
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if max(size) > STRIP * form.side:
            raise BadImage(f"is {width} x {height} pixels: a strip, not a photograph")
    return (border, border, border + width, border + height), size


def reason(error: Exception) -> str:
    """What a decoder's exception means, in words."""
    text = str(error).lower()
    if "truncated" in text or "unexpected end" in text or "eof" in text:
        return "is truncated"
    if "broken" in text:
        return "is damaged"
    return f"cannot be decoded: {(str(error) or type(error).__name__).splitlines()[0][:120]}"
