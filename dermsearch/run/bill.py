"""What a study takes beside passes through its backbone: time on this machine and on GPUs, room in its stores.

Passes are an image forward and backward; a look at an image, forward alone, is a third of one. This machine's speed is
that of the bare network, measured for a second; a stage comes to nine tenths of it and more. For GPUs a share of their
published peak is assumed, and said: nothing was measured on one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dermsearch.data.open import domain_of
from dermsearch.data.store.case_store import CaseStore
from dermsearch.evaluate.base import PROTOCOLS, configure
from dermsearch.fit.base import is_fit
from dermsearch.fit.rate import trainings
from dermsearch.models.attention import finer
from dermsearch.models.encoders import backbone
from dermsearch.nature import OF_PREDICTIONS
from dermsearch.run.check import source_of
from dermsearch.search.space.space import Space
from dermsearch.study.config import Downstream, Study
from dermsearch.training.precision import autocast, resolve

LOOK = 1 / 3  # of a pass
SECONDS = 1.0  # of measuring
GPUS = {"H200": (989e12, 0.12), "A100": (312e12, 0.2)}  # dense bf16 operations a second, and the share assumed
ROW = 5  # bytes of a row of predictions on disk: compressed, its probability is most of it
SPARE = 1.1  # of what is reckoned to what is there: manifests, histories, judgements


@dataclass(frozen=True)
class Bill:
    """What stages and their judging come to."""

    training: float  # passes
    judging: float  # passes: fits, looks at the cases, and what a protocol says that it takes
    operations: float  # of one pass
    speed: float  # passes a second of one worker here
    at_once: int  # workers that this machine has room for
    kept: float  # bytes in the stage store
    said: float  # of these, predictions

    @property
    def to_train(self) -> float:
        """Seconds on this machine."""
        return self.training / self.speed / self.at_once

    @property
    def to_judge(self) -> float:
        """Seconds on this machine."""
        return self.judging / self.speed / self.at_once


def bill(study: Study, space: Space, passes: float, stages: int, stores: Mapping[str, CaseStore]) -> Bill:
    """Of so many passes in so many stages. Measures the network that the study names first."""
    name, size = study.encoder.names[0], study.main.size
    roots = len(study.search.seeds) * len(study.encoder.names)
    judged, fits, looks, rows = stages + roots, 0.0, 0.0, 0.0
    weights = parameters(name) * 4 * (len(study.main.modalities) if study.encoder.branches == "separate" else 1)
    kept = judged * weights
    for data in dict.fromkeys(entry.data for entry in study.entries.values()):
        looks += sum(cases_of(study, data, stores)) * len(study.sets[data].modalities) * LOOK * judged
    for entry in study.entries.values():
        drawn = [entry.repeats if few != "all" else 1 for few in entry.labelled]
        _, heldout = cases_of(study, entry.data, stores)
        if (PROTOCOLS.find(entry.protocol).nature.metrics or OF_PREDICTIONS) == OF_PREDICTIONS:
            rows += judged * sum(drawn) * heldout * sum(map(len, classes_of(study, entry.data, stores).values()))
        if is_fit(PROTOCOLS.find(entry.protocol)):
            for few, draws in zip(entry.labelled, drawn, strict=True):
                fits += judged * draws * of_fit(study, entry, few, stores)
            kept += judged * sum(drawn) * weights
        own = getattr(PROTOCOLS.find(entry.protocol), "passes", None)
        if own is not None:
            config, side = configure(entry.protocol, entry.config), study.sets[entry.data].size
            seen = grain(name, side, getattr(config, "stride", None))
            fits += judged * sum(drawn) * own(config, *cases_of(study, entry.data, stores), side) * seen
    at_once = max(1, (os.cpu_count() or 1) // (study.compute.workers * study.compute.threads))
    most = study.compute.concurrency or at_once
    return Bill(
        passes,
        fits + looks,
        operations(name, size),
        speed(study, name, size) * study.compute.workers,
        1 if study.compute.engine == "inline" else min(at_once, most),
        (kept + rows * ROW) * SPARE,
        rows * ROW,
    )


def of_fit(study: Study, entry: Downstream, labelled: str, stores: Mapping[str, CaseStore]) -> float:
    """Passes of one fit from one draw of labels, its looks at the held-out cases among them."""
    data, taught = study.sets[entry.data], source_of(study, entry)
    (train, _), (_, heldout) = cases_of(study, taught, stores), cases_of(study, entry.data, stores)
    if labelled != "all" and taught in stores:
        train = len(stores[taught].split(f"train:{labelled}", draw=(study.search.seeds[0], 0)))
    elif labelled.endswith("%"):
        train = round(train * float(labelled.rstrip("%")) / 100)
    elif labelled != "all":  # of every class of the label that has most
        train = min(train, int(labelled) * max(map(len, classes_of(study, taught, stores).values())))
    fit: Any = PROTOCOLS.find(entry.protocol)
    config = configure(entry.protocol, entry.config)
    epochs = fit.recipe(config)["epochs"] * trainings(config)
    return len(data.modalities) * (epochs * train + heldout * LOOK)


def cases_of(study: Study, name: str, stores: Mapping[str, CaseStore]) -> tuple[int, int]:
    """A data set's training and validation cases; the usual shares of it where it is not here yet."""
    if name in stores:
        return len(stores[name].split("train")), len(stores[name].split("val"))
    return round(0.7 * study.sets[name].cases), round(0.15 * study.sets[name].cases)


def classes_of(study: Study, name: str, stores: Mapping[str, CaseStore]) -> Mapping[str, Any]:
    """The classes of each label; those of built-in cases where the data set is not here yet."""
    return stores[name].classes if name in stores else domain_of(study.sets[name]).labels


def parameters(name: str) -> int:
    """The numbers that a backbone has."""
    with torch.device("meta"):
        return sum(p.numel() for p in backbone(name).parameters())


@cache
def grain(name: str, size: int, stride: int | None) -> float:
    """What a pass through the backbone costs against its own where it keeps a map of that stride."""
    return 1.0 if stride is None else operations(name, size, stride) / operations(name, size)


def operations(name: str, size: int, stride: int | None = None) -> float:
    """Of one image forward and backward, a product and a sum being two; counted, nothing is computed."""
    with torch.device("meta"):
        network, image = backbone(name), torch.randn(2, 3, size, size)
        network = network if stride is None else finer(network, name, stride)
    with FlopCounterMode(display=False) as counter:
        network(image).sum().backward()
    return counter.get_total_flops() / 2


def speed(study: Study, name: str, size: int) -> float:
    """Passes a second of one worker with the study's threads, precision and batch, on a GPU if it asks and there is."""
    device = torch.device("cuda" if study.compute.gpus and torch.cuda.is_available() else "cpu")
    batch = min(study.train.batch or 32, 512 if device.type == "cuda" else 32)
    threads = min(study.compute.threads, os.cpu_count() or 1)
    # A study for GPUs would not run as it stands where there is none, and bf16 may be emulated there at a crawl.
    elsewhere = study.compute.gpus and device.type == "cpu"
    return measured(name, size, device, batch, threads, "auto" if elsewhere else study.train.precision)


@cache
def measured(name: str, size: int, device: torch.device, batch: int, threads: int, precision: str) -> float:
    """Passes a second of the bare network; measured once in a process. A large one is measured in smaller batches."""
    cast = autocast(device, resolve(precision, device.type == "cuda"))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = backbone(name).to(device).to(memory_format=torch.channels_last)

        def seconds(count: int) -> float:
            """Of one step, with what it takes to draw its images."""
            started = time.perf_counter()
            images = torch.randn(count, 3, size, size, device=device).to(memory_format=torch.channels_last)
            with cast():
                loss = network(images).float().sum()
            loss.backward()
            loss.item()  # it is finished
            return time.perf_counter() - started

        seconds(2)  # which prepares
        batch = max(2, min(batch, int(2 * SECONDS / seconds(2))))
        done = taken = 0.0
        while taken < SECONDS:
            taken += seconds(batch)
            done += batch
        return done / taken
    finally:
        torch.set_num_threads(before)


def lines(found: Bill, gpus: float, about: str = "about") -> Iterator[str]:
    """The bill as a plan shows it; `about` is `at most` where a sampler decides."""
    train, judge = found.to_train, found.to_judge
    at_once = f", {found.at_once} stages at once" * (found.at_once > 1)
    yield f"  time       {about} {span(train + judge)} on this machine: {span(train)} to train, {span(judge)} to judge"
    yield f"             (measured just now: {found.speed:,.0f} passes a second{at_once})"
    if gpus:
        work = (found.training + found.judging) * found.operations
        told = [f"{span(work / peak / share)} on one {name}" for name, (peak, share) in GPUS.items()]
        shares = [f"{share:.0%} of the {name}'s" for name, (_, share) in GPUS.items()]
        yield f"  on a GPU   {about} {', '.join(told)}"
        yield f"             ({found.operations / 1e9:.1f} G operations a pass; assumed: {', '.join(shares)} peak)"
    yield f"  disk       {room(found.kept)} in the stage store, {room(found.said)} of it predictions"


def span(seconds: float) -> str:
    """40 s, 12 min, 3.4 h, 12 days."""
    for most, unit, word in ((90, 1, "s"), (90 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < most:
            number = seconds / unit
            return f"{number:.1f} {word}" if word == "h" and number < 10 else f"{max(1, round(number))} {word}"
    return f"{seconds / 86_400:,.0f} days"


def room(size: float) -> str:
    """12 kB, 3.4 MB, 120 GB."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5 or unit == "GB":
            break
    return f"{size:,.1f} {unit}" if size < 9.95 else f"{size:,.0f} {unit}"
