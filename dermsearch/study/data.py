"""The data sets of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from dermsearch.study.fields import Labelled, Name, Path, Section, Seed


class People(Section):
    """Built-in patients with several lesions, and tables that follow the drawing."""

    lesions: int = Field(default=12, ge=1, le=1000)  # of one patient at most
    # What decides whether a value is missing: chance, by lesion and by patient; or the class, so that holes tell it.
    missing: Literal["chance", "class"] = "chance"


Factor = Annotated[float, Field(gt=0, le=4)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
StoreWeight = Annotated[float, Field(gt=0, le=1e6)]


class Camera(Section):
    """What another camera makes of built-in pictures."""

    # What it multiplies red, green and blue by.
    cast: Annotated[tuple[Factor, Factor, Factor], Field(strict=False)] = (1.0, 1.0, 1.0)
    vignette: float = Field(default=0.0, ge=0, le=1)  # how much darker corners are than the middle, as a share
    blur: float = Field(default=0.0, ge=0, le=0.1)  # beside that of the drawing, as a share of the side
    pixels: int | None = Field(default=None, ge=8, le=512)  # of a side that it tells apart; null: all


class Variant(Section):
    """Built-in cases as another hospital sees them: its camera, its patients' skin, its share of each diagnosis."""

    camera: Camera = Camera()  # by which their pictures are taken
    # The weight of each skin type, I to VI; null: as usual.
    skin: Annotated[tuple[Weight, ...] | None, Field(strict=False, min_length=6, max_length=6)] = None
    classes: dict[Name, Weight] | None = None  # the weight of each diagnosis; one that is not named does not occur

    @model_validator(mode="after")
    def _of_some_weight(self) -> Variant:
        if self.skin is not None and not sum(self.skin):
            raise ValueError("skin: must give some skin type a weight above 0")
        if self.classes is not None and sum(weight > 0 for weight in self.classes.values()) < 2:
            raise ValueError("classes: must give two diagnoses or more a weight above 0")
        return self


def _named_or_told(value: Any) -> str:
    return "[variant]" if isinstance(value, Mapping | Variant) else "[one]"


class Data(Section):
    """A data set: which cases, at which size, seen through which modalities."""

    domain: Name = "skin"  # what the images are of: decides modalities, labels and what built-in cases look like
    source: Literal["synthetic", "store", "mix"] = "synthetic"  # cases drawn here, a case store, or a mixture of others
    path: Path | None = None  # source: store, a folder or URI that `dermsearch data prepare` made
    mix: Annotated[tuple[Name, ...], Field(strict=False)] = ()  # source: mix, the study's data sets that are in it
    without: Annotated[tuple[Name, ...], Field(strict=False)] = ()  # and those none of whose images may be in it
    # source: mix, the share of each store in an epoch of training: by its size, equal, or by weights (if not given, 1).
    weights: Annotated[
        Annotated[Literal["size", "equal"], Tag("[one]")] | Annotated[dict[Name, StoreWeight], Tag("[weights]")],
        Discriminator(lambda value: "[weights]" if isinstance(value, Mapping) else "[one]"),
    ] = "size"
    cases: int = Field(default=600, ge=40, le=1_000_000)  # store: the number expected, for `plan`
    drawn: People | None = None  # synthetic: patients with several lesions and tables in the place of the usual ones
    # synthetic: another of the domain's ways to draw, such as hospital b of chest; or, of skin, settings of its own
    variant: Annotated[
        Annotated[Name | None, Tag("[one]")] | Annotated[Variant, Tag("[variant]")], Discriminator(_named_or_told)
    ] = None
    size: int = Field(default=64, ge=32, le=1024)  # side of a view in pixels; a store may hold larger images
    border: float = Field(default=0.0, ge=0, le=0.4)  # cut from every edge, as a share of the short side
    normalise: Name = "imagenet"  # the statistics that pixels are normalised by
    labelled: Labelled = "all"  # the training cases that protocols learn from: all, N of every class, or N%
    seed: Seed = 0  # of built-in cases: which are drawn
    # What is looked at, each a picture of a case.
    modalities: Annotated[tuple[Name, ...], Field(strict=False)] = ("derm",)
    metadata: Annotated[tuple[Name, ...], Field(strict=False)] = ()  # columns that tasks, fits and evaluators may read
    # A file of rows that `dermsearch data borrow` made for these cases, in the place of their own metadata.
    table: Path | None = None
    transductive: bool = False  # pre-train on validation and test images too; recorded in the tables

    @field_validator("modalities", "metadata")
    @classmethod
    def _each_once(cls, value: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if len(set(value)) != len(value) or (not value and info.field_name == "modalities"):
            raise ValueError(f"must name one or more {info.field_name}, each once, not [{', '.join(value)}]")
        return value

    @model_validator(mode="after")
    def _goes_with_source(self) -> Data:
        if self.source == "store" and self.path is None:
            raise ValueError("path: is missing: source 'store' reads the case store in that folder")
        if self.source != "store" and self.path is not None:
            raise ValueError(f"path: goes with source 'store' only, not with '{self.source}'")
        if (self.source == "mix") != bool(self.mix):
            raise ValueError("mix: goes with source 'mix', and names the data sets of this study that are in it")
        if self.without and not self.mix:
            raise ValueError("without: goes with source 'mix'")
        if self.weights != "size" and not self.mix:
            raise ValueError("weights: goes with source 'mix'")
        if isinstance(self.weights, dict) and (others := [name for name in self.weights if name not in self.mix]):
            raise ValueError(f"weights: must name stores of the mixture ({', '.join(self.mix)}), not '{others[0]}'")
        if self.source != "synthetic" and self.drawn is not None:
            raise ValueError(f"drawn: goes with source 'synthetic' only, not with '{self.source}'")
        if self.variant is not None and (self.source != "synthetic" or self.drawn is not None):
            raise ValueError("variant: goes with source 'synthetic' only, and not with 'drawn'")
        if self.source == "synthetic" and self.size > 512:
            raise ValueError(f"size: must be at most 512 for source 'synthetic', not {self.size}")
        return self

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The weight of each store of a mixture in training; None where their sizes decide."""
        if self.weights == "size":
            return None
        given = self.weights if isinstance(self.weights, dict) else {}
        return tuple(given.get(name, 1.0) for name in self.mix)


def _one_or_several(value: Any) -> str:
    named = isinstance(value, Mapping) and value and all(isinstance(each, Mapping | Data) for each in value.values())
    return "[several]" if named else "[one]"


DataSets = Annotated[
    Annotated[Data, Tag("[one]")] | Annotated[dict[Name, Data], Tag("[several]")], Discriminator(_one_or_several)
]
