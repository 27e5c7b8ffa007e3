"""A folder that `dermsearch export` wrote, read back: its configuration, looked at closely, and its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from dermsearch.data.decode.image import Fit
from dermsearch.errors import UserError, first_line
from dermsearch.models.hub import CONFIG
from dermsearch.regular import bytes_of
from dermsearch.results.tables.file import replacing
from dermsearch.storage.stages import unpacked

Side = Annotated[int, Field(strict=True, ge=1, le=4096)]
Numbers = tuple[float, float, float]  # of the colours


class Input(BaseModel):
    """How the network sees a picture, in timm's words."""

    input_size: tuple[Side, Side, Side]
    mean: Numbers
    std: Numbers


class Learnt(BaseModel):
    """What dermsearch adds of the pictures that it learnt from."""

    modalities: Annotated[list[str], Field(min_length=1)]
    border: Annotated[float, Field(ge=0, lt=0.5)]
    side: Side | None
    fit: Fit | None
    cut: Annotated[int, Field(ge=0)] | None
    normalise: str = ""


class Configuration(BaseModel):
    """What is read of the configuration."""

    architecture: str
    num_features: Side
    pretrained_cfg: Input
    dermsearch: Learnt
    classes: dict[str, Annotated[list[str], Field(min_length=1)]] = {}


def configuration(model: Path) -> dict[str, Any]:
    """FileNotFoundError where there is none, UserError where it is damaged."""
    try:
        about: dict[str, Any] = json.loads(bytes_of(model / CONFIG))
        Configuration.model_validate(about)
        return about
    except FileNotFoundError:
        raise
    except ValidationError as error:
        wrong = error.errors()[0]
        raise spoilt(model, f"{CONFIG}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
    except (ValueError, RecursionError, OSError) as error:
        raise spoilt(model, first_line(error)) from None


def weights(model: Path, file: str) -> dict[str, Tensor]:
    """FileNotFoundError where there are none, UserError where they are damaged."""
    try:
        return unpacked(bytes_of(model / file))
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise spoilt(model, first_line(error)) from None


def spoilt(model: Path, why: str) -> UserError:
    """What is said of a folder that cannot be used."""
    return UserError(f"{model}: cannot be loaded ({why}); export it again")


@contextmanager
def placed(out: Path) -> Iterator[BinaryIO]:
    """A file to write to, which stands at that place when it is whole."""
    try:
        with replacing(out) as part, part.open("wb") as file:
            yield file
    except OSError as error:
        raise UserError(f"--output: '{out}' cannot be written: {error.strerror or first_line(error)}") from None
