"""The base of all settings that a task, a fit or a measure declares, and what several rooms know of a study's."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Pixels = Literal["auto", "device", "pinned"]  # where the images of a stage on a GPU lie


class Settings(BaseModel):
    """Base of a `Config`: frozen, exact types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
