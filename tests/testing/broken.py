"""Things that keep what they promise, and from each some that break one promise."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import nn

from dermsearch.data.case import Case, columns
from dermsearch.data.domain import Domain
from dermsearch.data.sources.base import CaseRecord, Collector, Columns, ImageFiles, Release, Source, read_table, shared
from dermsearch.evaluate.base import Given
from dermsearch.fit.base import labels_of, shares
from dermsearch.fit.finetune import Finetune
from dermsearch.nature import Nature
from dermsearch.pretext.base import Loss, Task
from dermsearch.search.propose.sampler import Sampler
from dermsearch.settings import Settings
from dermsearch.storage.files import Folder
from dermsearch.storage.stages import StageStore


class Colour(Task):
    """Tell an image's mean colour, and how far its features are from those of the others."""

    name = "colour"

    class Config(Settings):
        weight: float = Field(1.0, ge=0, le=10)

    def __init__(self, backbone: nn.Module, config: Any, setting: Any) -> None:
        super().__init__(backbone, config, setting)
        self.head = nn.Linear(setting.dim, 3)
        self.register_buffer("steps", torch.zeros(()))

    def loss(self, batch: Any) -> Loss:
        pictures = batch.whole()
        features = self.backbone(pictures)
        self.steps += 1
        apart = (self.head(features).float() - pictures.mean((2, 3))).square().mean()
        return Loss(self.config.weight * self.changed(apart, features, batch), features, {})

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart


class Misnamed(Colour):
    name = "colours"


class Unversioned(Colour):
    name, version = "unversioned", 0


class Loose(Colour):
    name = "loose"

    class Config(BaseModel):
        weight: float = 1.0


class Endless(Colour):
    name = "endless"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart / 0


class Detached(Colour):
    name = "detached"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return (self.head(features.detach()) ** 2).mean()


class Drawing(Colour):
    name = "drawing"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart * torch.rand(())


class Forgetting(Colour):
    name = "forgetting"
    seen = 0

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        self.seen += 1
        return apart * self.seen


class Turning(Colour):
    """Remembers from an epoch's begin what is due in its midst, where `enter_epoch` alone is called again."""

    name = "turning"
    turn = 0

    def begin_epoch(self, epoch: int, features: Any) -> None:
        self.turn = epoch

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart * (1 + self.turn)


class Peeking(Colour):
    name = "peeking"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        pool = batch.pool
        truth = torch.from_numpy(pool.store.label("diagnosis")[pool.rows[batch.own]].astype(np.float32))
        return apart * (1 + truth.mean())


class Waiting(Colour):
    name = "waiting"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart * float(self.config.weight if features.sum() > 0 else 1.0)


class Choosing(Colour):
    name = "choosing"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart + features[features > 0].mean()


class Sending(Colour):
    name = "sending"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart + (features @ torch.ones(features.shape[1]).to(features.device)).mean()


class Listing(Colour):
    name = "listing"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart + features[:, [0, 2]].mean()


class Coarse(Colour):
    name = "coarse"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart.to((features @ features.T).dtype)


class Excused(Waiting):
    name = "excused"
    waits = "the weight hangs on the features"


class Hosted(Colour):
    name = "hosted"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        return apart + (features @ torch.ones(features.shape[1])).mean()


class Alone(Colour):
    name = "alone"

    def changed(self, apart: Any, features: Any, batch: Any) -> Any:
        unit = nn.functional.normalize(features.float(), dim=1)
        return apart - (10 * unit @ unit.T).log_softmax(1).diagonal().mean()


class Slow(Finetune):
    name = "slow"

    def loss(self, batches: Any) -> Any:
        found = super().loss(batches)
        assert all(each.value.item() > -1 for each in found.values())
        return found


class Stranded(Finetune):
    """Goes on from a loss that it took to the host."""

    name = "stranded"

    def loss(self, batches: Any) -> Any:
        found = super().loss(batches)
        return {b: Loss(each.value.cpu(), each.embedding, each.parts) for b, each in found.items()}


class Raw(Finetune):
    name = "raw"

    def predict(self, batches: Any) -> Any:
        return {label: 2 * p for label, p in super().predict(batches).items()}


class Told(Finetune):
    """Says the truth of held-out cases."""

    name = "told"

    def predict(self, batches: Any) -> Any:
        said = super().predict(batches)
        truth = labels_of(batches, list(said))
        return {
            label: nn.functional.one_hot(t, p.shape[1]) * 1.0
            for (label, p), t in zip(said.items(), truth.T, strict=True)
        }


class Deaf(Finetune):
    name = "deaf"

    def loss(self, batches: Mapping[str, Any]) -> Any:
        features = {m: self.encoders(batch.whole(), m) for m, batch in batches.items()}
        silent = sum(p.sum() for p in self.parameters()) * 0
        return shares(sum(x.square().mean() for x in features.values()) + silent, features, {})

    def predict(self, batches: Any) -> Any:
        return {label: torch.full_like(p, 1 / p.shape[1]) for label, p in super().predict(batches).items()}


class Passing(Finetune):
    """What it learns is no buffer, so it is lost with the process."""

    name = "passing"
    power = 1.0

    def predict(self, batches: Any) -> Any:
        said = {label: p**self.power for label, p in super().predict(batches).items()}
        return {label: p / p.sum(1, keepdim=True) for label, p in said.items()}

    def loss(self, batches: Any) -> Any:
        self.power += 1.0
        told = super().loss(batches)
        return {m: Loss(each.value * self.power, each.embedding, each.parts) for m, each in told.items()}


class Means:
    """The nearest class mean."""

    name, version, nature, Config = "means", 1, Nature(), Settings

    def predict(self, given: Given, config: Settings, seed: int) -> dict[str, np.ndarray]:
        said = {}
        for label, classes in given.features.classes.items():
            known, truth = given.features.known(label)
            there = [c for c in range(len(classes)) if (truth == c).any()]
            said[label] = np.full((len(given.features.heldout), len(classes)), 0.0 if there else 1 / len(classes))
            for c in there:
                apart = ((given.features.heldout - known[truth == c].mean(0)) ** 2).sum(1)
                said[label][:, c] = 1 / (1e-9 + apart)
            said[label] /= said[label].sum(1, keepdims=True)
        return self.changed(said, given)

    def changed(self, said: Any, given: Given) -> Any:
        return said


class Dice(Means):
    name = "dice"

    def changed(self, said: Any, given: Given) -> Any:
        return {label: np.random.dirichlet(np.ones(p.shape[1]), len(p)) for label, p in said.items()}


class Seer(Means):
    name = "seer"

    def changed(self, said: Any, given: Given) -> Any:
        truth = given.features.heldout_labels
        return {label: np.eye(p.shape[1])[truth[label]] if label in truth else p for label, p in said.items()}


class Shares(Means):
    name = "shares"

    def changed(self, said: Any, given: Given) -> Any:
        return {label: 2 * p for label, p in said.items()}


class Turned(Means):
    name = "turned"

    def changed(self, said: Any, given: Given) -> Any:
        return {label: p[:, ::-1] for label, p in said.items()}


class Drawn(Sampler):
    def propose(self) -> Any:
        return next((p for p in (self.draw() for _ in range(50)) if self.known.open(p)), None) or self.first_open()


class Closed(Sampler):
    def propose(self) -> Any:
        return self.draw()


class Early(Sampler):
    def propose(self) -> Any:
        proposal = self.draw()
        return proposal if not self.known.asked and self.known.open(proposal) else None


class Dicing(Sampler):
    def propose(self) -> Any:
        self.random = np.random.default_rng(random.SystemRandom().randrange(2**32))
        return Drawn.propose(self)


def read(folder: Folder, asked: Columns) -> Release:
    files, collector = ImageFiles(folder, "images"), Collector({"diagnosis": {"mole": "NEV", "melanoma": "MEL"}})
    for where, row in read_table(folder, "cases.csv", ["image", "diagnosis", "age"], collector.problems):
        image, age = files.stem(row["image"]) or "", float(row["age"])
        told = CaseRecord(row["image"], {"derm": image}, {"diagnosis": row["diagnosis"]}, where=where)
        told.metadata = {"age": age, "taken": "yes"}
        collector.add(told)
    return collector.release()


def looking(folder: Folder, asked: Columns) -> Release:
    release = read(folder, asked)
    folder.read(release.records[0].images["derm"])
    return release


def spoilt(**change: Any) -> Any:
    def read_and_spoil(folder: Folder, asked: Columns) -> Release:
        release = read(folder, asked)
        for name, value in change.items():
            setattr(release.records[0], name, value)
        return release

    return read_and_spoil


def source(name: str, how: Any = read, **more: Any) -> Source:
    about = {"columns": shared("age"), "denied": {"taken": "it tells the diagnosis"}, **more}
    return Source(name, name.title(), "CC0", "", "", how, **about)


PIER = source("pier")
LOOKING = source("looking", looking)
ABSENT = source("absent", spoilt(images={"derm": "images/none.jpg"}))
UNSAFE = source("unsafe", spoilt(case="../up"))
WORDS = source("words", spoilt(labels={"diagnosis": "mole"}))
AGES = source("ages", spoilt(metadata={"age": "old", "taken": "yes"}))
ALLOWED = source("allowed", denied={"age": "it tells the diagnosis"})
UNLICENSED = Source("unlicensed", "Unlicensed", "", "", "", read)


def squares(cases: int, side: int | None, seed: int) -> Iterator[Case]:
    for i in range(cases):
        rng = np.random.default_rng((seed, i))
        case = Case(f"s{i}", "", f"p{i}", {}, {"kind": i % 2}, {"age": float(i)})
        if side is not None:
            case.images["photo"] = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        yield case


def one_stream(cases: int, side: int | None, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng((seed, cases))
    for case in squares(cases, side, seed):
        yield Case(case.case, "", case.patient, case.images, {"kind": int(rng.integers(2))}, case.metadata)


def floats(cases: int, side: int | None, seed: int) -> Iterator[Case]:
    for case in squares(cases, side, seed):
        case.images.update({m: image / 255 for m, image in case.images.items()})
        yield case


def nobodys(cases: int, side: int | None, seed: int) -> Iterator[Case]:
    for case in squares(cases, side, seed):
        case.patient = ""
        yield case


def always(cases: int, side: int | None, seed: int) -> Iterator[Case]:
    return squares(cases, side or 40, seed)


def domain(name: str, drawer: Any, **more: Any) -> Domain:
    told = {"columns": columns("patient", numbers=["age"]), **more}
    return Domain(name, ("photo",), {"kind": ("a", "b")}, drawer, **told)


SQUARES = domain("squares", squares)
STREAM = domain("stream", one_stream)
FLOATS = domain("floats", floats)
NOBODYS = domain("nobodys", nobodys)
ALWAYS = domain("always", always)
NO_CLASS = domain("no_class", squares, named={"kind": "c"})
COLOURED = domain("coloured", squares, grey=("photo",))
NOWHERE = domain("nowhere", squares, grey=("xray",))


class Cut(StageStore):
    """Loses the last byte of what is long."""

    def write(self, name: str, data: Any) -> None:
        super().write(name, data[:-1] if len(data) > 10 else data)


class Keeping(StageStore):
    """Removes nothing."""

    def remove(self, name: str) -> None: ...


class Trusting(StageStore):
    """Does not look whether files are what they were."""

    def whole(self, folder: str) -> Any:
        return self.read_json(f"{folder}/manifest.json")


class First(StageStore):
    """Never replaces a file."""

    def write(self, name: str, data: Any) -> None:
        if self.get(name) is None:
            super().write(name, data)
