"""Probabilities of every label, of pictures or of a case store, by an exported predictor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import torch

from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.columns import Table
from dermsearch.data.store.layout import MANIFEST
from dermsearch.data.store.pool import Look
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError, first_line
from dermsearch.fit.base import predictor
from dermsearch.models.artifact import Part
from dermsearch.pretext.base import Batch
from dermsearch.run.embed import batches, found, on_canvas, statistics
from dermsearch.run.export_fit import WEIGHTS
from dermsearch.run.exported import configuration, placed, spoilt, weights
from dermsearch.training.fits import predict_fit
from dermsearch.training.precision import autocast, resolve
from dermsearch.work.features import whole

if TYPE_CHECKING:
    from rich.console import Console

Predicted = Mapping[str, np.ndarray]  # (n, classes) by label
ENDINGS = (".csv", ".parquet")


def predict(
    model: Path, images: Sequence[str], out: Path, batch: int, threads: int | None, console: Console
) -> tuple[int, list[tuple[str, str]]]:
    """Write a row for each picture or case; returns how many, and what could not be read, and why."""
    if out.suffix not in ENDINGS:
        raise UserError(f"--output: '{out}' must end in {' or '.join(ENDINGS)}")
    about, part = exported(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stores = [each for each in images if (Path(each) / MANIFEST).is_file()]
    others, bad, names, told = [each for each in images if each not in stores], [], list[str](), list[Predicted]()
    with console.status("Reading ..."):
        for each in stores:
            cases = CaseStore(each)
            rows = whole(cases, about["dermsearch"]["modalities"], np.arange(len(cases)))
            if len(rows):
                names += cases.strings("case")[rows].tolist()
                told.append(predict_fit(part, cases, rows, look_of(about), device, precision(device)))
        if others:
            for shown, said in of_files(about, part, others, batch, threads, device):
                bad += [(name, why) for name, why in shown if isinstance(why, str)]
                names += [name for name, pixels in shown if not isinstance(pixels, str)]
                told += [said] if said else []
    if not names:
        why = f"{bad[0][0]}: {bad[0][1]}; " if bad else ""
        raise UserError(f"{why}nothing of {', '.join(images)} could be predicted")
    write(out, table(names, told, about["classes"]))
    return len(names), bad


def exported(model: Path) -> tuple[dict[str, Any], Part]:
    """The configuration and the predictor in a folder that `dermsearch export --fit` wrote."""
    try:
        about = configuration(model)
        if "predictor" not in about:
            raise UserError(f"{model}: is an encoder, which names no classes: `dermsearch embed` asks it for features")
        part = Part(about["predictor"], weights(model, WEIGHTS))
        predictor(part)
        about["classes"]
    except UserError:
        raise
    except (FileNotFoundError, KeyError):
        raise UserError(f"{model}: is no folder that `dermsearch export --fit` wrote") from None
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise spoilt(model, first_line(error)) from None
    return about, part


def precision(device: torch.device) -> str:
    """As `embed` computes: in bf16 where a device has it."""
    return resolve("auto", device.type == "cuda")


def look_of(about: Mapping[str, Any]) -> Look:
    """How it looks at the images of a store."""
    own = about["dermsearch"]
    return Look(about["pretrained_cfg"]["input_size"][-1], own["border"], own["normalise"])


def of_files(
    about: dict[str, Any], part: Part, images: Sequence[str], batch: int, threads: int | None, device: torch.device
) -> Iterator[tuple[list[tuple[str, Any]], Predicted]]:
    """Batch by batch the pictures of files, and what is said of those that can be read."""
    own = about["dermsearch"]
    if len(own["modalities"]) > 1:
        both = " and ".join(own["modalities"])
        raise UserError(
            f"{images[0]}: is no case store, and this predictor looks at {both} images of a case; `dermsearch data "
            "prepare` makes one"
        )
    (modality,), (mean, std) = own["modalities"], statistics(about)
    module = predictor(part).to(device).to(memory_format=torch.channels_last)
    cast, size = autocast(device, precision(device)), about["pretrained_cfg"]["input_size"][-1]
    names, read = found(images, about)
    for shown in batches(read, names, batch, threads or os.cpu_count() or 1):
        good = [pixels for _, pixels in shown if not isinstance(pixels, str)]
        if not good:
            yield shown, {}
            continue
        gallery = Gallery(on_canvas(good, mean, std, device, own["border"]))
        with torch.no_grad(), cast():
            said = module.predict({modality: Batch(np.arange(len(good)), gallery, size, 0, 0, 0)})
        yield shown, {label: each.double().cpu().numpy() for label, each in said.items()}


class Gallery:
    """Pictures of which nothing is known but what they show, as a pool."""

    strata = None

    def __init__(self, pictures: Pictures) -> None:
        self.pictures, self.device = pictures, pictures.pixels.device

    def __len__(self) -> int:
        return len(self.pictures)

    def pixels(self, units: np.ndarray) -> Pictures:
        """The pictures."""
        return self.pictures.take(units)

    def there(self, units: np.ndarray) -> np.ndarray:
        """Every one is there."""
        return np.ones(len(units), bool)

    def labels(self, name: str, units: np.ndarray) -> np.ndarray:
        """None is known."""
        return np.full(len(units), -1)

    def table(self, names: Sequence[str], units: np.ndarray) -> Table:
        """Nothing is known."""
        shape = len(units), len(names)
        return Table((), np.zeros(shape, np.float32), np.zeros(shape, bool))

    def groups(self, units: np.ndarray) -> np.ndarray:
        """Each is of somebody else."""
        return np.asarray(units)

    patients = lesions = groups

    def people(self, names: Sequence[str], patients: np.ndarray) -> Table:
        """Nothing is known of anybody."""
        return self.table(names, patients)


def table(names: Sequence[str], told: Sequence[Predicted], classes: Mapping[str, Sequence[str]]) -> pa.Table:
    """A row for each picture: for each label the likeliest class, then the probability of each."""
    columns: dict[str, Any] = {"image": pa.array(names)}
    for label, each in classes.items():
        probabilities = np.concatenate([said[label] for said in told])
        columns[label] = pa.array([each[k] for k in probabilities.argmax(1)])
        columns |= {f"{label}: {name}": probabilities[:, k] for k, name in enumerate(each)}
    return pa.table(columns)


def write(out: Path, rows: pa.Table) -> None:
    """The table, whole or not at all."""
    with placed(out) as file:
        (pcsv.write_csv if out.suffix == ".csv" else pq.write_table)(rows, file)
