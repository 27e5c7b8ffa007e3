"""Starting weights from a file on this machine, for the root of every curriculum.

Read are .safetensors, and .pth, .pt, .bin, .tar or .ckpt of torch without anything but tensors in them. A file may
hold a model or a whole checkpoint: what wraps the weights, what their names begin with, and classifiers are taken off.
Names of another layout that timm knows, such as DINOv2's, become timm's. Then every tensor of the backbone has to be
there, and no other. Position embeddings of another grid are resampled. Every branch of the encoders starts with the
same weights.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from dermsearch.errors import UserError, first_line
from dermsearch.models.encoders import Encoders, backbone
from dermsearch.models.hub import ENDINGS

WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model")  # of these, the first that is there
DEEPEST = 10  # wrappers in one another
# What names begin with, from the outside in; of a teacher and its student the teacher is taken.
PREFIXES = (
    *("module.", "_orig_mod.", "teacher.", "teacher_backbone.", "student_backbone.", "encoder_q.", "backbones.shared."),
    *("teacher_embedding_model.", "student_embedding_model.", "embedding_model.", "wrapped_model.", "_model."),
    *("backbone.", "encoder.", "model.", "vit."),
)
CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")  # DINOv2's blocks in chunks, each with its number in the whole
HEADS = ("fc.", "head.", "heads.", "head_dist.", "classifier.")
SHOWN, LONGEST = 3, 80  # names of each kind in a message, and letters of a name
MOST = 16 * 2**30  # bytes of a file: the largest backbones have 8 GB, and a checkpoint may hold a copy


def read_weights(
    path: str, name: str, given: str = "", fields: tuple[str, str] = ("encoder.weights", "encoder.name")
) -> dict[str, Tensor]:
    """The state dict of the backbone `name` that a file holds; UserError, which tells what was `given`, if none.

    `fields` are what a study calls the file and the name.
    """
    said = f"{fields[0]}: '{given or path}'"
    found = unwrap(_open(Path(path).expanduser(), said))
    if not found or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in found.items()):
        raise UserError(f"{said} holds no weights by name")
    odd = [n for n, v in found.items() if not plain(v)]
    if odd:
        raise UserError(f"{said} holds tensors that are not plain numbers (sparse, quantised or complex): {some(odd)}")
    with torch.device("meta"):
        model = backbone(name)
    wanted = model.state_dict()
    found = without_heads(native(rename(found, wanted), model, name), model)
    for n, v in wanted.items():  # files older than these counters lack them
        if n.endswith("num_batches_tracked"):
            found.setdefault(n, torch.zeros((), dtype=v.dtype))
    if "pos_embed" in wanted and "pos_embed" in found:
        grid: Any = model.patch_embed.grid_size  # type: ignore[union-attr]
        found["pos_embed"] = fit_positions(found["pos_embed"], wanted["pos_embed"], grid)
    told = misfit(found, wanted, exact=False)
    if told:
        raise UserError(f"{said} does not fit {fields[1]}, '{name}': {told}")
    return {n: found[n].to(v.dtype).contiguous() for n, v in wanted.items()}


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], exact: bool = True) -> str:
    """How weights are not what a network wants, in words; empty where they are. `exact`: of its own types too."""
    both = [n for n in wanted if n in found]
    alike = [n for n in both if found[n].shape == wanted[n].shape]
    wrong = {
        "it lacks": [n for n in wanted if n not in found],
        "it has besides": [n for n in found if n not in wanted],
        "it has in other shapes": [
            f"{n} {tuple(found[n].shape)} for {tuple(wanted[n].shape)}" for n in both if n not in alike
        ],
        "it has in other types": [n for n in alike if exact and found[n].dtype != wanted[n].dtype],
        "not all numbers are finite in": [n for n in alike if not finite(found[n])],
    }
    return "; ".join(f"{what} {some(names)}" for what, names in wrong.items() if names)


def plain(tensor: Tensor) -> bool:
    """Is it dense, of real numbers, and in memory?"""
    real = not (tensor.is_quantized or tensor.is_complex())
    return real and tensor.layout is torch.strided and tensor.device.type == "cpu"


def finite(tensor: Tensor) -> bool:
    """Are all of its numbers finite?"""
    if not tensor.is_floating_point():
        return True
    return bool((tensor if tensor.element_size() > 1 else tensor.float()).isfinite().all())


def some(names: list[str]) -> str:
    """The first names, as far as they can be printed, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = ("".join(c if c.isprintable() else "?" for c in name[:LONGEST]) for name in names[:SHOWN])
    return ", ".join(shown) + more


def fingerprint(path: str, given: str = "") -> str:
    """A hash of the file's content."""
    said = f"encoder.weights: '{given or path}'"
    check_file(Path(path).expanduser(), said)
    try:
        with Path(path).expanduser().open("rb") as f:
            return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{said} cannot be read: {error.strerror}") from None


def check_file(path: Path, said: str) -> None:
    """Refuse what is no file, such as a pipe that nobody writes to, and what is larger than weights are."""
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{said} cannot be read: {first_line(error)}") from None
    if size is None:
        raise UserError(f"{said} is no file")
    if size > MOST:
        raise UserError(f"{said} has {size / 2**30:.0f} GiB, and weights may have {MOST // 2**30}")


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
    if path.suffix not in ENDINGS:
        raise UserError(f"{said} must be a .safetensors, .pth or .pt file on this machine")
    check_file(path, said)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise UserError(f"{said} does not fit into memory") from None
    except pickle.UnpicklingError:  # what torch says of it is how to run whatever the file says
        raise UserError(
            f"{said} cannot be read as weights: it is damaged, or holds more than tensors (perhaps a whole model); "
            "have torch.save write the model's state_dict()"
        ) from None
    except Exception as error:  # of many kinds: a damaged file
        raise UserError(f"{said} cannot be read as weights: {first_line(error)}") from None


def unwrap(found: Any) -> dict[str, Any]:
    """The innermost mapping of a checkpoint that holds the weights."""
    for _ in range(DEEPEST):  # one may hold itself
        if not isinstance(found, dict):
            break
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


def without_heads(found: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The weights without classifiers, by whatever name timm has them."""
    own = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = tuple(f"{head}." for head in ([own] if isinstance(own, str) else own))
    wanted = model.state_dict()
    return {n: v for n, v in found.items() if n in wanted or not n.startswith((*HEADS, *heads))}


def native(found: dict[str, Tensor], model: Any, name: str) -> dict[str, Tensor]:
    """Weights of another layout by the names that timm gives them, as its own loader does; others as they are."""
    kept = without_heads(found, model)
    if not misnamed(kept, model.state_dict()) or any(hollow(v) for v in found.values()):
        return found
    chunked = {CHUNK.sub("blocks.", n): v for n, v in found.items()}
    timms = getattr(sys.modules[timm.models.model_entrypoint(name).__module__], "checkpoint_filter_fn", None)
    if timms is None:
        return chunked
    try:
        return dict(timms(dict(chunked), model))
    except Exception:  # it meets layouts that nobody knows: these are told by their own names
        return chunked


def misnamed(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Are other names there than those that are wanted? Counters that older files lack do not count."""
    return any(not n.endswith("num_batches_tracked") for n in found.keys() ^ wanted.keys())


def hollow(tensor: Tensor) -> bool:
    """Is it of a few numbers that are told to be many?"""
    return tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()


def fit_positions(found: Tensor, wanted: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings for the backbone's own grid, if theirs is another square one."""
    if found.shape == wanted.shape or found.ndim != 3 or found.shape[2] != wanted.shape[2] or hollow(found):
        return found
    kept = wanted.shape[1] - grid[0] * grid[1]  # tokens before the patches that have a position
    if math.isqrt(found.shape[1] - kept) ** 2 != found.shape[1] - kept:
        return found
    return resample_abs_pos_embed(found.float(), grid, num_prefix_tokens=kept)
