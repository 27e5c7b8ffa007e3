"""How boxes out of many pictures are made on a CPU: in chunks that stay in the caches of a core.

Samples are sorted in each chunk by what is to be done to them, changed, normalised, and put back in order. Boxes of
whole pixels are resized as bytes, to whole levels, as torchvision resizes stored pictures; all others in floating point
by `resample`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dermsearch.data.views.arrays import Array, space
from dermsearch.data.views.parallel import each
from dermsearch.data.views.pictures import Pictures
from dermsearch.data.views.resample import crops, reach, resample, triangles

CACHE = 9 << 17  # numbers under way at once, per core
Change = Callable[[Tensor, np.ndarray], Tensor]


def along(
    box: Array, limits: Array, size: int, side: int | None = None, down: Array = False, across: Array = False
) -> Array:
    """(n, 8): both axes (see `triangles`) of boxes at `size`, and beside them as far as `side`, mirrored or not."""
    parts = []
    for i, mirrored in enumerate((down, across)):
        step = box[:, 2 + i] / size * (1 - 2 * mirrored)
        start = box[:, i] + box[:, 2 + i] / 2 - step * (side or size) / 2
        parts += [start, step, limits[:, i], limits[:, i] + limits[:, 2 + i]]
    return space(box).stack(parts, 1)


def on_cpu(pictures: Pictures) -> bool:
    """Whether they lie in the host's memory."""
    return pictures.pixels.device.type == "cpu"


def normalised(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Planes less the means of the colours, over their deviations; grey is one plane until here."""
    return (x.sub_(mean) if len(x) == 3 else x - mean).div_(std)


def unchanged(x: Tensor, _: object) -> Tensor:
    """The change that is none."""
    return x


def arrange(pictures: Pictures, numbers: int, key: np.ndarray | None) -> tuple[np.ndarray, int]:
    """The order in which samples are worked on, sorted by a key in each chunk, and how many make a chunk.

    `numbers` are those under way for each.
    """
    rows = np.arange(len(pictures))
    if not len(rows):
        return rows, 1
    most, threads = max(1, CACHE // numbers), torch.get_num_threads()
    rounds = -(-len(rows) // (most * threads))  # each thread does as many chunks as the others
    step = -(-len(rows) // (rounds * threads))
    return rows if key is None else np.lexsort((key, rows // step)), step


def sample_whole(
    pictures: Pictures,
    box: np.ndarray,
    mirrored: np.ndarray,
    size: int,
    key: np.ndarray | None = None,
    change: Change = unchanged,
) -> Tensor:
    """A box of whole pixels of each picture -> normalised float (n, 3, size, size).

    `mirrored` (n, 2) says which are down and across. `change` is given planes (3, b, size, size) and which pictures
    they are of.
    """
    order, step = arrange(pictures, 3 * size * size, key)
    jobs = np.column_stack([np.arange(len(order)), box, mirrored])[order].astype(np.int64)
    back = torch.from_numpy(np.argsort(order) % step)
    mean, std = (torch.tensor(s)[:, None, None, None] for s in (pictures.mean, pictures.std))
    out = torch.empty(len(order), 3, size, size)

    def work(start: int) -> None:
        part = slice(start, min(start + step, len(order)))
        x = crops(pictures.pixels, jobs[part].tolist(), size).transpose(0, 1)
        x = normalised(change(x, order[part]), mean, std)
        torch.index_select(x.transpose(0, 1), 0, back[part], out=out[part])

    each(work, range(0, len(order), step), pictures.pixels.device)
    return out


def sample(
    pictures: Pictures,
    axes: np.ndarray,
    sides: tuple[int, int],
    key: np.ndarray | None = None,
    change: Change = unchanged,
) -> Tensor:
    """(n, e, 8) axes of e boxes per picture -> normalised float (n, e, 3, side, side).

    `change` is as above; it sees all boxes of a picture side by side and lying, columns first, and may change their
    side from the first to the second.
    """
    pixels = pictures.pixels.permute(0, 2, 3, 1)
    n, boxes, _ = axes.shape
    order, step = arrange(pictures, 3 * max(boxes * sides[0] * sides[0], pixels[0, ..., 0].numel() if n else 1), key)
    ordered = torch.from_numpy(axes[order].reshape(-1, 8)).float()
    count = reach(axes[..., [1, 5]])
    source = torch.from_numpy(np.repeat(order % step, boxes))
    back = torch.from_numpy((np.argsort(order) % step)[:, None] * boxes + np.arange(boxes))  # (n, e)
    out = torch.empty(n * boxes, 3, sides[1], sides[1])
    mean, std = (torch.tensor(s)[:, None, None, None] for s in (pictures.mean, pictures.std))

    def work(start: int) -> None:
        part = slice(start, min(start + step, n))
        boxed = slice(start * boxes, part.stop * boxes)
        down, across = (triangles(a, sides[0], count) for a in ordered[boxed].split(4, 1))
        x = resample(pixels[part], source[boxed], down, across)
        x = change(x, order[part]).index_select(1, back[part].flatten())
        out[boxed] = normalised(x, mean, std).permute(1, 0, 3, 2)

    each(work, range(0, n, step), pixels.device)
    return out.unflatten(0, (n, boxes))


def runs(chosen: np.ndarray) -> list[slice]:
    """Where the chosen lie side by side."""
    edges = np.flatnonzero(chosen[1:] != chosen[:-1]) + 1
    cuts = [0, *edges.tolist(), len(chosen)]
    return [slice(a, b) for a, b in itertools.pairwise(cuts) if a < b and chosen[a]]
