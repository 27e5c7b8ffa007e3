"""A job: all that a worker needs to know of one node of the tree. It travels as JSON and can be read in a log."""

from __future__ import annotations

import zlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dermsearch.settings import Pixels
from dermsearch.storage.keys import judgement_key, view
from dermsearch.study.config import MAIN
from dermsearch.study.data import Data

Kind = Literal["root", "stage", "segment", "fit"]


class Message(BaseModel):
    """What travels between driver and workers: plain values, none missing, none unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cases(Message):
    """A data set, and what its cases must be."""

    data: Data
    fingerprint: str

    @property
    def view(self) -> dict[str, Any]:
        """What is seen of it, as keys have it."""
        return view(self.data, self.fingerprint)


class Judge(Message):
    """Who judges an artifact: a protocol with its settings, on a data set, from one draw of its labels."""

    protocol: str
    version: int
    config: dict[str, Any]
    data: str  # one of the job's data sets
    labelled: str  # all, 20 of every class, or 10%
    draw: int
    metadata: tuple[str, ...] = ()  # columns that it reads
    split: str = "val"
    source: str = ""  # of an adaptation: the data set whose labels it learns; `data` is its target
    source_view: dict[str, Any] = {}  # what it sees of that, as keys have it

    @property
    def taught(self) -> str:
        """The data set whose labels it learns from."""
        return self.source or self.data

    @property
    def part(self) -> str:
        """The part of the data set's cases that it learns from."""
        return "train" if self.labelled == "all" else f"train:{self.labelled}"

    def seed(self, seed: int) -> int:
        """What a protocol of that seed draws random numbers by, for each draw of labels others."""
        return seed if not self.draw else zlib.crc32(f"{seed}/{self.draw}".encode()) >> 1

    def key(self, of: str, cases: Cases, precision: str, seed: int) -> str:
        """Of its judgement of a stage or fit."""
        own = self.protocol, self.version, self.config, self.view(cases), self.labelled, self.draw, self.split
        return judgement_key(of, *own, precision, seed)

    def view(self, cases: Cases) -> dict[str, Any]:
        """What it sees of its data set, as keys have it."""
        more = {"metadata": self.metadata} if self.metadata else {}
        return cases.view | more | ({"source": self.source_view} if self.source else {})

    def __str__(self) -> str:
        few = "" if self.labelled == "all" else f" from {self.labelled}"
        return (
            self.protocol
            + f"@{self.data}" * (self.data != MAIN)
            + few
            + f" of {self.source}" * bool(self.source)
            + f", draw {self.draw + 1}" * bool(self.draw)
        )


class Job(Message):
    """One node: a root to judge, a stage or segment of one to train and judge, or a predictor to fit and judge."""

    kind: Kind
    key: str
    parent: str  # the stage or root that it starts from; of a fit also a segment; empty for a root
    after: Kind = "root"  # what that is
    stage: str = ""  # of a segment: the key of the stage that it is a part of
    until: int = 0  # of a segment: the epoch after which it ends
    segments: tuple[str, ...] = ()  # of the same stage, the longest first: it may go on from their states
    keeps: bool = False  # of a segment: fits are to judge it, so it keeps what it hands on
    task: str  # of a fit its protocol
    settings: dict[str, Any]
    curriculum: str
    study: str
    seed: int
    sets: dict[str, Cases]  # by name; stages train on the first
    encoder: str  # the backbone's timm name
    branches: Literal["shared", "separate"]
    weights: str  # content hash of what the root begins with; random if empty
    precision: str  # fp32 | bf16
    judges: tuple[Judge, ...]  # of a fit the one that it is for
    store: str
    cache: str
    threads: int
    gpus: float
    workers: int
    retries: int
    compile: bool
    pixels: Pixels  # where a GPU's images lie
    save_every: float  # seconds
    knn_every: int
    label: str  # that kNN watches
    node: str

    @property
    def main(self) -> Cases:
        """The data set that stages train on."""
        return next(iter(self.sets.values()))

    def __str__(self) -> str:
        what = "no pre-training" if self.kind == "root" else self.curriculum
        return f"{what}, seed {self.seed}" + "".join(f", {judge}" for judge in self.judges if self.kind == "fit")
