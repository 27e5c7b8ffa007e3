"""What a stage hands on: named parts, each of a kind that its readers know. A reader ignores the kinds it does not.

encoders    always: the backbones by branch
heads       label projectors, relation and prototypes, see `models/relations.py`
tables      encoders of metadata, with their schema
predictor   a fitted network that gives probabilities
generator   what draws cases
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

ENCODERS, HEADS, TABLES, PREDICTOR, GENERATOR = "encoders", "heads", "tables", "predictor", "generator"


@dataclass(frozen=True)
class Part:
    """One part: what makes it, as plain numbers and words, and its weights."""

    config: dict[str, Any]
    state: dict[str, Tensor]  # empty where only its architecture is told

    @classmethod
    def of(cls, module: nn.Module, config: dict[str, Any]) -> Part:
        """A module as it is now, whatever becomes of it later."""
        return cls(config, {name: w.detach().cpu().contiguous().clone() for name, w in module.state_dict().items()})

    def fill(self, module: nn.Module) -> None:
        """Give the weights to a module that was made by this part's config."""
        if self.state:
            module.load_state_dict(self.state)


Artifact = Mapping[str, Part]  # by kind
