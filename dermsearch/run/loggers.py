"""Where histories are shown beside the tables: TensorBoard, and if installed Weights & Biases and MLflow.

All of them work without a network. TensorBoard follows a stage epoch by epoch; the other two get a stage once it is
finished, whole, so that an interrupted study leaves no half-written run behind.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from dermsearch.errors import UserError
from dermsearch.regular import bytes_of
from dermsearch.results.tables.file import replacing

Rows = Sequence[dict[str, Any]]


class Logger(Protocol):
    """Takes the epochs of a stage."""

    live: bool  # epoch by epoch, or only the stages that this run has trained, when they are finished?

    def write(self, stage: str, settings: dict[str, Any], rows: Rows, whole: bool = True) -> None:
        """More epochs of the stage of that name; the last ones, if it is whole with them."""


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What of an epoch can be drawn over the epochs."""
    flat = {**row, **row["parts"], **{f"val_{name}": value for name, value in row.get("val_parts", {}).items()}}
    return {n: v for n, v in flat.items() if isinstance(v, (int, float)) and n != "epoch"}


class TensorBoard:
    """A folder per stage under `tensorboard/`, with an event file for each run that trained some of it."""

    live = True

    def __init__(self, study: str, out: Path) -> None:
        self.folder = out / "tensorboard"
        self.open: dict[str, Any] = {}  # by stage under way, its writer
        self.seen: dict[str, int] = {}  # by stage, the last epoch that is in its files

    def write(self, stage: str, settings: dict[str, Any], rows: Rows, whole: bool = True) -> None:
        if stage not in self.seen:
            self.seen[stage] = self._written(stage)
        if new := [row for row in rows if row["epoch"] > self.seen[stage]]:
            self._add(stage, new)
        if whole and stage in self.open:
            self.open.pop(stage).close()

    def _add(self, stage: str, rows: Rows) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if stage not in self.open:
            self.open[stage] = SummaryWriter(str(self.folder / stage))
        for row in rows:
            for name, value in numbers(row).items():
                self.open[stage].add_scalar(name, value, row["epoch"])
        self.open[stage].flush()
        self.seen[stage] = rows[-1]["epoch"]
        with replacing(self.folder / stage / EPOCHS) as new:
            new.write_text(f"{self.seen[stage]}\n")

    def _written(self, stage: str) -> int:
        """The epochs that an earlier run has written; TensorBoard would draw them twice."""
        try:
            return int(bytes_of(self.folder / stage / EPOCHS))
        except (OSError, ValueError):
            return 0


EPOCHS = "epochs.txt"  # in a stage's folder: how many its event files have


class WeightsAndBiases:
    """A run per stage in a project named as the study: on disk, unless WANDB_MODE or WANDB_API_KEY is set."""

    live = False

    def __init__(self, study: str, out: Path) -> None:
        self.wandb = importlib.import_module("wandb")
        self.study, self.folder = study, out
        self.mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")

    def write(self, stage: str, settings: dict[str, Any], rows: Rows, whole: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        run = self.wandb.init(
            project=self.study, name=stage, config=settings, dir=str(self.folder), mode=self.mode, reinit="create_new"
        )
        for row in rows:
            run.log(numbers(row), step=row["epoch"])
        run.finish()


class MLflow:
    """A run per stage in an experiment named as the study: in `mlflow.db`, unless MLFLOW_TRACKING_URI is set."""

    live = False

    def __init__(self, study: str, out: Path) -> None:
        mlflow = importlib.import_module("mlflow")
        self.study = study
        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(out / 'mlflow.db').absolute()}"
        self.client = mlflow.MlflowClient(tracking_uri=where)

    def write(self, stage: str, settings: dict[str, Any], rows: Rows, whole: bool = True) -> None:
        found = self.client.get_experiment_by_name(self.study)
        experiment = found.experiment_id if found else self.client.create_experiment(self.study)
        run = self.client.create_run(experiment, run_name=stage).info.run_id
        for name, value in flat(settings):
            self.client.log_param(run, name, value)
        for row in rows:
            for name, value in numbers(row).items():
                self.client.log_metric(run, name, value, step=row["epoch"])
        self.client.set_terminated(run)


LOGGERS: dict[str, Callable[[str, Path], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def check_loggers(names: Iterable[str]) -> None:
    """Refuse a logger whose package is not here."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(f"logging: '{name}' is not installed; pip install {name}") from None


def make_loggers(names: Iterable[str], study: str, out: Path) -> list[Logger]:
    """Those that a study asks for, writing beside its results."""
    return [LOGGERS[name](study, out) for name in names]


def flat(settings: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as `train.lr`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
