"""What views are made from: pictures of any sizes on canvases of one, on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.domain import IMAGENET


@dataclass(frozen=True)
class Pictures:
    """What views are made from: pictures of any sizes on canvases of one, and the statistics that normalise them."""

    # uint8 (n, 3, H, W) on the device, fastest with the colours of a pixel side by side in memory; (n, 1, H, W) if grey
    pixels: Tensor
    frame: np.ndarray | None = None  # int64 (n, 4): top, left, height, width in the canvas; None: all of it
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def frames(self) -> np.ndarray:
        """(n, 4): top, left, height, width of each picture."""
        if self.frame is None:
            return np.tile([0, 0, *self.pixels.shape[2:]], (len(self), 1))
        return self.frame

    @cached_property
    def frames_there(self) -> Tensor:
        """The same beside the pixels, float64: torch multiplies whole numbers in single precision."""
        told = torch.from_numpy(self.frames[: 1 if self.frame is None else None]).double()
        return told.to(self.pixels.device, non_blocking=True).expand(len(self), 4)

    def cut(self, border: float) -> Pictures:
        """Without a border, the same on all edges, that is so large a share of the short side."""
        frames = self.frames
        off = np.rint(border * frames[:, 2:].min(1, keepdims=True)).astype(np.int64)
        off = np.minimum(off, (frames[:, 2:].min(1, keepdims=True) - 1) // 2)  # a pixel is left
        return replace(self, frame=frames + off * np.array([1, 1, -2, -2]))

    def take(self, rows: np.ndarray) -> Pictures:
        """Some of the pictures, in this order."""
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(self.pixels.device, non_blocking=True)
        pixels = self.pixels.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
        return replace(self, pixels=pixels, frame=self.frames[rows])
