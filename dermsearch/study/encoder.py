"""What curricula begin with: an architecture and its weights, or several of either, each of them a root."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from dermsearch.curriculum import NO_WEIGHTS
from dermsearch.study.fields import Key, Name, Path, Section

T = TypeVar("T")


class Choice(Section, Generic[T]):
    """Several values of a field, each to be tried."""

    choice: Annotated[tuple[T, ...], Field(strict=False, min_length=1, max_length=100)]

    @field_validator("choice")
    @classmethod
    def _each_once(cls, value: tuple[T, ...]) -> tuple[T, ...]:
        twice = [each for each in value if value.count(each) > 1]
        if twice:
            raise ValueError(f"names '{twice[0]}' twice")
        return value


class Finished(Section):
    """A stage of another study that is in a stage store, with all that it hands on."""

    store: Path
    key: Key


class Foreign(Section):
    """Weights with the architecture that they are of, whatever `encoder.name` is."""

    name: Name
    weights: Path


def _kind(value: Any) -> str:
    """Which form of a field a value has; what stands in brackets is not part of the field's name in a message."""
    if isinstance(value, Choice) or (isinstance(value, dict) and "choice" in value):
        return "[choice]"
    if isinstance(value, Foreign) or (isinstance(value, dict) and "name" in value):
        return "[network]"
    return "[stage]" if isinstance(value, dict | Finished) else "[one]"


One = Annotated[Path | None, Tag("[one]")] | Annotated[Finished, Tag("[stage]")] | Annotated[Foreign, Tag("[network]")]
Weights = Annotated[One, Discriminator(_kind)]


@dataclass(frozen=True)
class Root:
    """What curricula begin with: an architecture, and its weights."""

    name: str  # of the root where a study has several; else empty
    encoder: str
    weights: str | Finished | None  # a file or a name, a finished stage, or random by seed


class Encoder(Section):
    """The backbone, by its timm name, and whether the modalities share it. Of several, each is a root of its own."""

    # A network of timm, or several as {choice: [...]}.
    name: Annotated[Annotated[Name, Tag("[one]")] | Annotated[Choice[Name], Tag("[choice]")], Discriminator(_kind)] = (
        "resnet18"
    )
    # separate: every modality has a network of its own; shared: one is for all.
    branches: Literal["shared", "separate"] = "shared"
    # What every curriculum starts with: imagenet, a tag of timm, hf-hub:ORG/NAME, a file, a finished stage, or random.
    weights: Annotated[One | Annotated[Choice[Weights], Tag("[choice]")], Discriminator(_kind)] = None

    @property
    def names(self) -> tuple[str, ...]:
        """The architectures."""
        return tuple(dict.fromkeys(name for name, _ in self._pairs))

    @property
    def starts(self) -> tuple[str | Finished | Foreign | None, ...]:
        """The weights."""
        return self.weights.choice if isinstance(self.weights, Choice) else (self.weights,)

    @property
    def roots(self) -> tuple[Root, ...]:
        """Every architecture with all weights; those that say what they are of with that one alone."""
        found = []
        for name, weights in self._pairs:
            told = [name] * (len(self.names) > 1) + [_word(weights, name)] * (len(self.starts) > 1)
            found.append(Root(" ".join(told), name, weights))
        return tuple(found)

    @property
    def _pairs(self) -> list[tuple[str, str | Finished | None]]:
        names = self.name.choice if isinstance(self.name, Choice) else (self.name,)
        every = [(name, w) for name, w in itertools.product(names, self.starts) if not isinstance(w, Foreign)]
        return [*every, *((w.name, w.weights) for w in self.starts if isinstance(w, Foreign))]

    @model_validator(mode="after")
    def _told_apart(self) -> Encoder:
        words = [root.name for root in self.roots]
        twice = [word for word in words if words.count(word) > 1]
        if twice:
            raise ValueError(f"weights: two files are called '{twice[0].split()[-1]}'; name them differently")
        return self


def _word(weights: str | Finished | None, name: str) -> str:
    """Weights in a word, without the name of their architecture."""
    if isinstance(weights, Finished):
        return weights.key[:8]
    return NO_WEIGHTS if weights is None else weights.rstrip("/").rsplit("/", 1)[-1].removeprefix(f"{name}.")
