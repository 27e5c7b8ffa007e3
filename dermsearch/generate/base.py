"""The contract of a model that draws cases, and the registry that finds one by name.

A model is a module that learns a step at a time. It draws no random numbers of its own: it is given those of a step,
which depend on (seed, step, row) alone, so that any process can make any row's, and what was killed goes on to the
same bits. Images are (n, channels, side, side) between -1 and 1; a condition is a row of numbers, one for each class
of each label: 1 for the case's own, 0 for the others, and nothing but 0 where a label is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dermsearch.models.artifact import Part
from dermsearch.registry import Registry
from dermsearch.settings import Settings

Numbers = Callable[[str, int], np.ndarray]  # (use, count) -> uniforms (rows of this process, count)


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn."""

    modality: str
    size: int
    channels: int  # 1 where all training images are grey
    classes: Mapping[str, tuple[str, ...]]  # of every label, in the order of a condition

    @property
    def width(self) -> int:
        """Of a condition."""
        return sum(map(len, self.classes.values()))


class Model(nn.Module):
    """What learns to draw. One file shows one whole."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # part of its key: raise it when results change
    Config: ClassVar[type[Settings]]

    def __init__(self, config: Any, drawing: Drawing) -> None:
        super().__init__()
        self.config, self.drawing = config, drawing

    @classmethod
    def check(cls, config: Any, size: int) -> None:
        """Raise UserError where images of that side cannot be drawn."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Those of its networks, made once."""
        raise NotImplementedError(self.name)

    def step(self, real: Tensor, told: Tensor, numbers: Numbers, of: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
        """Learn from this process's rows of a batch and their conditions; returns what is worth a column."""
        raise NotImplementedError(self.name)

    def drawer(self) -> nn.Module:
        """The network that is kept, in evaluation mode: all that `draw` needs."""
        raise NotImplementedError(self.name)

    def noise(self) -> int:
        """How many random numbers an image takes."""
        raise NotImplementedError(self.name)

    def draw(self, uniforms: np.ndarray, told: Tensor) -> Tensor:
        """Images of these conditions."""
        raise NotImplementedError(self.name)

    def part(self, state: Mapping[str, Tensor]) -> Part:
        """The artifact: what makes this model again, to draw, with that state of its drawer."""
        classes = {label: list(names) for label, names in self.drawing.classes.items()}
        drawing = {**dataclasses.asdict(self.drawing), "classes": classes}
        config = {"model": self.name, "config": self.config.model_dump(mode="json"), "drawing": drawing}
        return Part(config, {name: w.detach().cpu().contiguous().clone() for name, w in state.items()})


MODELS = Registry("generator", "dermsearch.generators", {"gan": "dermsearch.generate.gan:GAN"})


def model_of(part: Part) -> Model:
    """The model that an artifact tells of, ready to draw."""
    kind: type[Model] = MODELS.find(part.config["model"])
    told = dict(part.config["drawing"])
    told["classes"] = {label: tuple(names) for label, names in told["classes"].items()}
    with torch.random.fork_rng(devices=[]):
        model = kind(kind.Config.model_validate(part.config["config"]), Drawing(**told))
    model.drawer().load_state_dict(part.state)
    return model.eval()


def gaussian(uniforms: np.ndarray, device: torch.device) -> Tensor:
    """Normal numbers of uniform ones, as float32."""
    from scipy.special import ndtri

    return torch.from_numpy(ndtri(np.clip(uniforms, 1e-12, 1 - 1e-12)).astype(np.float32)).to(device)


def conditions(truth: np.ndarray, classes: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """(n, labels) classes, -1 where unknown -> float32 (n, width)."""
    found = [truth[:, i, None] == np.arange(len(names)) for i, names in enumerate(classes.values())]
    return np.concatenate(found, 1).astype(np.float32)
