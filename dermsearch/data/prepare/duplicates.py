"""The same image twice: the same file, or so nearly the same picture that only how it was saved differs.

A picture is compared by its look, a grey thumbnail of the whole original. Saved again, at another size or quality, a
little brighter or darker, cropped by a few hundredths, flipped or turned, it is known again. What no flip or turn
changes are a look's frequencies without their signs and order: these propose pairs. Of a pair the best of the eight
flips and turns is found, and a fit decides: one look must be the other, but for a little contrast, shift and zoom.
Dermoscopic images are all dark blobs on pale skin, so a hash would call many strangers twins.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from dermsearch.data.decode.look import EDGE, THUMB

WAVES = 8  # frequencies of each axis that propose pairs
FAINT = 24.0  # what stands for the noise of a look among its frequencies, so that flat pictures are alike
MAYBE, ALIKE = 0.93, 0.915  # how far pairs agree without signs and order, and in the best flip and turn
NOISE, SHARE = 0.2, 0.1  # of what a fit may leave of a soft look: levels of 255, and of its own contrast
CONTRAST, BRIGHTNESS = 0.2, 0.1  # the most that a copy may differ by
BLOCK = 1 << 23  # pairs compared at once
FITTED = 1 << 12  # and fitted
SOME = 1 << 12  # looks whose frequencies are found at once

_at = np.arange(EDGE)
_DCT = np.cos(np.pi / EDGE * (_at[None, :] + 0.5) * _at[:WAVES, None]).astype(np.float32) * (2 / EDGE) ** 0.5
_FREQUENCY = np.hypot(*np.meshgrid(np.arange(WAVES), np.arange(WAVES))).astype(np.float32)  # pictures fall off with it
_PAIRS = np.triu_indices(WAVES)
_TWICE = np.where(_PAIRS[0] == _PAIRS[1], 1, 2).astype(np.float32)
_SIGN = (1 - 2 * (np.arange(WAVES) % 2)).astype(np.float32)  # of every frequency, when an axis is flipped
_FLIPS = np.stack([np.multiply.outer(_SIGN**down, _SIGN**right).ravel() for down in (0, 1) for right in (0, 1)], 1)
_PLACE = ((_at + 0.5) / EDGE * 2 - 1).astype(np.float32)
_SOFT = np.exp(-((_at[:, None] - _at) ** 2) / 2).astype(np.float32)  # a blur by a pixel, so that small shifts are small
_SOFT /= _SOFT.sum(1, keepdims=True)


def identical(files: np.ndarray) -> list[tuple[int, int]]:
    """(first, again) for every row whose file's hash occurred before. `files` is uint8 (n, 16)."""
    first: dict[bytes, int] = {}
    found = [(first.setdefault(bytes(name), row), row) for row, name in enumerate(files)]
    return [(before, row) for before, row in found if before != row]


def near_identical(looks: np.ndarray) -> list[tuple[int, int]]:
    """(first, again) for every row that looks like an earlier one. `looks` is uint8 (n, THUMB)."""
    rows, which = _distinct(looks)
    first, own = np.arange(len(rows)), looks if len(rows) == len(looks) else looks[rows]
    for again, before in _alike(own, own, earlier=True):
        np.minimum.at(first, again, before)
    first = rows[first][which]
    return sorted((int(first[row]), row) for row in range(len(looks)) if first[row] != row)


def known_again(looks: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """(row, other) for every row that looks like one of the others: the first of them."""
    (rows, which), (known, _) = _distinct(looks), _distinct(others)
    first = np.full(len(rows), len(others))
    for again, before in _alike(looks[rows], others[known]):
        np.minimum.at(first, again, known[before])
    first = first[which]
    return [(row, int(first[row])) for row in range(len(looks)) if first[row] < len(others)]


def _distinct(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of each look, in order, and which of them every row is like."""
    seen: dict[bytes, int] = {}  # by hash: the looks of half a million pictures are half a gigabyte
    which = np.array([seen.setdefault(blake2b(row, digest_size=16).digest(), len(seen)) for row in looks], int)
    return np.unique(which, return_index=True)[1], which


def _alike(ones: np.ndarray, others: np.ndarray, earlier: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of both that are nearly the same picture; with `earlier`, other rows before it alone."""
    waves = _waves(ones)
    known = waves if others is ones else _waves(others)
    plain = _unsigned(waves)
    against = plain if others is ones else _unsigned(known)
    step = max(1, BLOCK // max(1, len(others)))
    for start in range(0, len(ones), step):
        end = min(start + step, len(ones)) if earlier else len(others)
        one, other = np.nonzero(plain[start : start + step] @ against[:end].T > MAYBE)
        one += start
        if earlier:
            one, other = one[other < one], other[other < one]
        for at in range(0, len(one), FITTED):
            i, j = one[at : at + FITTED], other[at : at + FITTED]
            turn, agreement = _turned(waves[i], known[j])
            near = agreement > ALIKE
            i, j, turn = i[near], j[near], turn[near]
            same = _explained(ones[i], others[j], turn)
            yield i[same], j[same]


def _waves(looks: np.ndarray) -> np.ndarray:
    """The low frequencies of looks, of about equal strength and of length 1; the mean gives way to the noise."""
    found = np.empty((len(looks), WAVES, WAVES), np.float32)
    for start in range(0, len(looks), SOME):
        x = looks[start : start + SOME].reshape(-1, EDGE, EDGE).astype(np.float32)
        waves = (_DCT @ x @ _DCT.T) * _FREQUENCY
        waves[:, 0, 0] = FAINT
        found[start : start + SOME] = waves / np.sqrt((waves**2).sum((1, 2), keepdims=True))
    return found


def _unsigned(waves: np.ndarray) -> np.ndarray:
    """What no flip or turn changes: two frequencies that a turn swaps count as one, without signs."""
    (u, v), found = _PAIRS, np.empty((len(waves), len(_TWICE)), np.float32)
    for start in range(0, len(waves), SOME):
        x = waves[start : start + SOME]
        found[start : start + SOME] = np.sqrt((x[:, u, v] ** 2 + x[:, v, u] ** 2) / 2 * _TWICE)
    return found


def _turned(ones: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the eight flips and turns of the other is most like the one, and how much."""
    turns = [(ones * other).reshape(-1, WAVES**2) @ _FLIPS for other in (others, others.transpose(0, 2, 1))]
    agreement = np.concatenate(turns, 1)
    return agreement.argmax(1), agreement.max(1, initial=0)


def _explained(ones: np.ndarray, others: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Whether each look is the other, so flipped and turned, but for a little contrast, brightness, shift and zoom."""
    one, other = (_SOFT @ x.reshape(-1, EDGE, EDGE).astype(np.float32) @ _SOFT.T for x in (ones, others))
    for bit, turned in ((4, (0, 2, 1)), (2, 1), (1, 2)):
        chosen = (turn & bit) > 0
        other[chosen] = other[chosen].transpose(turned) if isinstance(turned, tuple) else np.flip(other[chosen], turned)
    down, right = np.gradient(other, axis=(1, 2)) if len(other) else (other, other)
    terms = np.stack([other, down, down * _PLACE[:, None], right, right * _PLACE], 1).reshape(-1, 5, THUMB)
    terms -= terms.mean(2, keepdims=True)
    brightness = one.mean((1, 2)), other.mean((1, 2))
    rest = (one - other).reshape(-1, THUMB) - (brightness[0] - brightness[1])[:, None]
    # A little is added to what is solved, so that of a flat picture nothing is found, rather than anything.
    squares = terms @ terms.transpose(0, 2, 1) + THUMB * np.eye(5, dtype=np.float32) / 4
    found = np.linalg.solve(squares, terms @ rest[:, :, None])
    rest -= (found.transpose(0, 2, 1) @ terms)[:, 0]
    left, own = np.sqrt((rest**2).mean(1)), one.std((1, 2))
    return (
        (left <= NOISE + SHARE * own)
        & (np.abs(found[:, 0, 0]) <= CONTRAST)
        & (np.abs(brightness[0] - brightness[1]) <= BRIGHTNESS * brightness[1] + 2)
    )
