"""A generator in one file that tells what it is, to be drawn with anywhere: weights, and what makes the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from dermsearch.errors import UserError, first_line
from dermsearch.generate.base import Model, conditions, model_of
from dermsearch.generate.train import drawn
from dermsearch.models.artifact import GENERATOR, Part


def export_generator(part: Part, path: Path) -> None:
    """Write a .safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(part.state, path, {GENERATOR: json.dumps(part.config)})
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"--export: '{path}' cannot be written: {why}") from None


def load_generator(path: Path) -> Model:
    """The model of such a file, ready to draw."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {})[GENERATOR])
            part = Part(config, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118  it is no dict
        return model_of(part)
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path}: is no generator that `dermsearch data make --export` wrote: {first_line(error)}"
        ) from None


def draw(model: Model, labels: dict[str, str], count: int, seed: int = 0) -> np.ndarray:
    """`count` images as uint8 (n, side, side, 3) of cases with these classes; labels that are not named are unknown."""
    classes = model.drawing.classes
    for label, name in labels.items():
        if name not in classes.get(label, ()):
            raise UserError(f"{label}: the generator knows no '{name}' of it")
    row = [classes[label].index(labels[label]) if label in labels else -1 for label in classes]
    told = conditions(np.tile(row, (count, 1)), classes)
    return drawn(model, told, seed, "made", torch.device("cpu"))
