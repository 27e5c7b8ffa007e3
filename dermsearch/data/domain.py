"""A domain: what images are of. It decides modalities and statistics, and what built-in cases are.

Other packages bring domains by the entry point group `dermsearch.domains`; docs/domains.md shows a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dermsearch.data.case import METADATA, Case, Column, columns
from dermsearch.registry import Registry, attribute

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and deviation of red, green and blue
Drawer = Callable[[int, int | None, int], Iterator[Case]]  # cases, their size in pixels, seed

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Tabled:
    """Another way to draw built-in cases: patients with several lesions, and tables that follow the drawing."""

    drawer: str  # "module:function", of (cases, size, seed, most lesions of a patient, whether values lack by class)
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Domain:
    """What images are of, and how built-in cases of it are drawn.

    The drawer yields cases one by one, the same for the same seed, and case i whatever their number. A size of None
    asks for the cases without their images, so that a study is checked before one is drawn.
    """

    name: str
    modalities: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]  # of built-in cases: their order is that of tables and heads
    drawer: Drawer | str  # or where it stands, as "module:function"
    named: Mapping[str, str] = field(default_factory=dict)  # the class of a label that papers report
    statistics: Mapping[str, Statistics] = field(default_factory=lambda: {"imagenet": IMAGENET})
    columns: tuple[Column, ...] = ()  # metadata of built-in cases that may be inputs
    grey: tuple[str, ...] = ()  # modalities whose pictures have no colour: a store keeps one channel of them
    version: int = 1  # raise it when the pictures change
    tabled: Tabled | None = None  # what `data.drawn` of a study asks for
    variants: Mapping[str, str] = field(default_factory=dict)  # other drawers, which `data.variant` of a study asks for
    varied: str | None = None  # or, by settings of `data.variant`: "module:function" of (domain, settings) to a domain

    @cached_property
    def draw(self) -> Drawer:
        """Draws so many cases."""
        return attribute(self.drawer) if isinstance(self.drawer, str) else self.drawer


# The seven-point checklist and the diagnosis, with the infrequent classes grouped as derm7pt's
# authors do. The order of labels and classes is the order of every table and every head.
SEVEN_POINT: dict[str, tuple[str, ...]] = {
    "diagnosis": ("BCC", "NEV", "MEL", "MISC", "SK"),
    "pigment_network": ("absent", "typical", "atypical"),
    "blue_whitish_veil": ("absent", "present"),
    "vascular_structures": ("absent", "regular", "irregular"),
    "pigmentation": ("absent", "regular", "irregular"),
    "streaks": ("absent", "regular", "irregular"),
    "dots_and_globules": ("absent", "regular", "irregular"),
    "regression_structures": ("absent", "present"),
}

SKIN = Domain(
    "skin",
    ("derm", "clinic", "xray"),
    SEVEN_POINT,
    "dermsearch.data.drawn.skin:synthetic",
    named={
        "diagnosis": "MEL",
        "pigment_network": "atypical",
        "blue_whitish_veil": "present",
        "vascular_structures": "irregular",
        "pigmentation": "irregular",
        "streaks": "irregular",
        "dots_and_globules": "irregular",
        "regression_structures": "present",
    },
    statistics={"imagenet": IMAGENET, "derm7pt": ((0.7833, 0.6712, 0.6026), (0.2139, 0.2472, 0.2571))},
    columns=tuple(METADATA.values()),
    tabled=Tabled(
        "dermsearch.data.drawn.people:people",
        (
            *METADATA.values(),
            *columns("patient", ["lesions"]),
            *columns("lesion", ["diameter", "brightness", "redness", "variation", "elongation", "border"], ["colour"]),
        ),
    ),
    varied="dermsearch.data.drawn.variant:varied",
)
FINDINGS: dict[str, tuple[str, ...]] = {
    "finding": ("none", "pneumothorax", "pneumonia", "cardiomegaly"),  # the one, or the first of several
    **dict.fromkeys(("pneumothorax", "pneumonia", "cardiomegaly"), ("absent", "present")),
}
CHEST = Domain(
    "chest",
    ("xray",),
    FINDINGS,
    "dermsearch.data.drawn.chest:hospital_a",
    named={"finding": "pneumonia", **dict.fromkeys(tuple(FINDINGS)[1:], "present")},
    statistics={"imagenet": IMAGENET, "chest": ((0.5,) * 3, (0.25,) * 3)},
    columns=(METADATA["age"], METADATA["sex"], *columns("lesion", words=["view"])),
    grey=("xray",),
    variants={
        "a": "dermsearch.data.drawn.chest:hospital_a",
        "b": "dermsearch.data.drawn.chest:hospital_b",
        "a_marked": "dermsearch.data.drawn.chest:marked_a",
        "a_together": "dermsearch.data.drawn.chest:together_a",
    },
)
DOMAINS = Registry(
    "domain", "dermsearch.domains", {"skin": "dermsearch.data.domain:SKIN", "chest": "dermsearch.data.domain:CHEST"}
)


def setting_of(domain: Domain) -> dict[str, str]:
    """What a store's settings say of its domain: nothing of skin, so that those stores are what they always were."""
    return {} if domain.name == SKIN.name else {"domain": domain.name}
