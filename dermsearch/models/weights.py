"""Starting weights from a local file, for the root of every curriculum: `encoder.weights: PATH`.

Read are .safetensors, and .pth, .pt, .bin or .tar of torch without anything but tensors in them. A file may hold a
model or a whole checkpoint: what wraps the weights, what their names begin with, and classifiers are taken off. Then
every tensor of the backbone has to be there, and no other. Position embeddings of another grid are resampled.
Every branch of the encoders starts with the same weights.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from dermsearch.errors import UserError, first_line
from dermsearch.models.encoders import Encoders, backbone

WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model")  # of these, the first that is there
PREFIXES = ("module.", "_orig_mod.", "teacher.", "encoder_q.", "backbones.shared.", "backbone.", "encoder.", "model.")
HEADS = ("fc.", "head.", "heads.", "head_dist.", "classifier.")
SHOWN = 3  # names of each kind in a message


def read_weights(path: str, name: str) -> dict[str, Tensor]:
    """The state dict of the backbone `name` that a file holds; UserError where it holds none."""
    said = f"encoder.weights: '{path}'"
    found = unwrap(_open(Path(path).expanduser(), said))
    if not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{said} holds no weights by name")
    with torch.device("meta"):
        model = backbone(name)
    wanted = model.state_dict()
    found = {n: v for n, v in rename(found, wanted).items() if n in wanted or not n.startswith(HEADS)}
    for n, v in wanted.items():  # files older than these counters lack them
        if n.endswith("num_batches_tracked"):
            found.setdefault(n, torch.zeros((), dtype=v.dtype))
    if "pos_embed" in wanted and "pos_embed" in found:
        grid: Any = model.patch_embed.grid_size  # type: ignore[union-attr]
        found["pos_embed"] = fit_positions(found["pos_embed"], wanted["pos_embed"], grid)
    shapes = {n: f"{n} {tuple(found[n].shape)} for {tuple(v.shape)}" for n, v in wanted.items() if n in found}
    wrong = {
        "it lacks": [n for n in wanted if n not in found],
        "it has besides": [n for n in found if n not in wanted],
        "it has in other shapes": [text for n, text in shapes.items() if found[n].shape != wanted[n].shape],
        "not all numbers are finite in": [n for n, v in found.items() if not bool(v.isfinite().all())],
    }
    told = [f"{what} {some(names)}" for what, names in wrong.items() if names]
    if told:
        raise UserError(f"{said} does not fit encoder.name, '{name}': {'; '.join(told)}")
    return {n: found[n].to(v.dtype).contiguous() for n, v in wanted.items()}


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def fingerprint(path: str) -> str:
    """A hash of the file's content."""
    try:
        with Path(path).expanduser().open("rb") as f:
            return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"encoder.weights: '{path}' cannot be read: {error.strerror}") from None


def spread(weights: dict[str, Tensor], encoders: Encoders) -> Encoders:
    """Every branch of the encoders begins with a backbone's weights; or each with its own, from other encoders."""
    branches = {name.split(".")[1] for name in weights if name.startswith("backbones.")}
    if len(branches) == 1:
        (only,) = branches
        weights = {name.removeprefix(f"backbones.{only}."): tensor for name, tensor in weights.items()}
    elif branches:
        return encoders.load({name: tensor.clone() for name, tensor in weights.items()})
    return encoders.load({f"backbones.{b}.{n}": v.clone() for b in encoders.branches for n, v in weights.items()})


def _open(path: Path, said: str) -> Any:
    """Whatever is in the file; nothing in it is executed."""
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin", ".tar"):
        raise UserError(f"{said} must be a .safetensors, .pth or .pt file on this machine")
    if not path.is_file():
        raise UserError(f"{said} is no file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: a damaged file, or one with more than tensors in it
        raise UserError(f"{said} cannot be read as weights: {first_line(error)}") from None


def unwrap(found: Any) -> dict[str, Any]:
    """The innermost mapping of a checkpoint that holds the weights."""
    while isinstance(found, dict):
        inner = next((w for w in WRAPPERS if isinstance(found.get(w), dict)), None)
        if inner is None:
            return found
        found = found[inner]
    return {}


def rename(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as the backbone has them. Where some begin with a prefix that it has not, the rest are heads and copies."""
    again = True
    while again:
        again = False
        for prefix in PREFIXES:
            inside = {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(prefix)}
            if inside and not any(n.startswith(prefix) for n in wanted):
                found, again = inside, True
    return found


def fit_positions(found: Tensor, wanted: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings for the backbone's own grid, if theirs is another square one."""
    if found.shape == wanted.shape or found.ndim != 3 or found.shape[2] != wanted.shape[2]:
        return found
    kept = wanted.shape[1] - grid[0] * grid[1]  # tokens before the patches that have a position
    if math.isqrt(found.shape[1] - kept) ** 2 != found.shape[1] - kept:
        return found
    return resample_abs_pos_embed(found.float(), grid, num_prefix_tokens=kept)
