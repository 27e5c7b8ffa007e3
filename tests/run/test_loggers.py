"""Each logger writes what an epoch measured, under a name for the stage, without a network."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dermsearch.errors import UserError
from dermsearch.run.loggers import check_loggers, make_loggers, numbers

ROWS = [{"epoch": e, "loss": 1.0 / e, "parts": {"accuracy": 0.1 * e}, "knn": None if e == 1 else 0.5} for e in (1, 2)]
SETTINGS = {"seed": 3, "curriculum": "odc > byol", "config": {"out": 8}, "train": {"lr": 0.1}}
SEEN = [
    (1, {"loss": 1.0, "accuracy": 0.1}),
    (2, {"loss": 0.5, "accuracy": 0.2, "knn": 0.5}),
]


def write(name: str, out: Path) -> None:
    (logger,) = make_loggers([name], "mine", out)
    logger.write("odc.byol-seed3-abc", SETTINGS, ROWS)


def test_numbers():
    assert numbers(ROWS[0]) == SEEN[0][1]
    held = {**ROWS[0], "val_loss": 2.0, "val_parts": {"accuracy": 0.3}}
    assert numbers(held) == {**SEEN[0][1], "val_loss": 2.0, "val_accuracy": 0.3}


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "odc.byol-seed3-abc"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy", "knn"}
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("environment, mode", [
    ({}, "offline"), ({"WANDB_API_KEY": "x"}, "online"), ({"WANDB_API_KEY": "x", "WANDB_MODE": "disabled"}, "disabled"),
])  # fmt: skip
def test_wandb(tmp_path, monkeypatch, environment, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls: list[Any] = []

    def init(**given: Any) -> Any:
        calls.append(given)
        return SimpleNamespace(log=lambda row, step: calls.append((step, row)), finish=lambda: calls.append("finished"))

    fake = ModuleType("wandb")
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    check_loggers(["wandb"])
    write("wandb", tmp_path / "out")
    assert calls[1:] == [(1, SEEN[0][1]), (2, pytest.approx(SEEN[1][1])), "finished"]
    told = {"project": "mine", "name": "odc.byol-seed3-abc", "config": SETTINGS, "mode": mode}
    assert told.items() <= calls[0].items() and Path(calls[0]["dir"]).is_dir()


class FakeClient:
    experiments: dict[str, str]
    said: list[Any]

    def __init__(self, tracking_uri: str) -> None:
        FakeClient.said = [tracking_uri]

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = f"id of {name}"
        return self.experiments[name]

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.said.append((experiment, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_param(self, run: str, name: str, value: Any) -> None:
        self.said.append((run, name, value))

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.said.append((run, name, value, step))

    def set_terminated(self, run: str) -> None:
        self.said.append("terminated")


def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    FakeClient.experiments = {}
    fake = ModuleType("mlflow")
    fake.MlflowClient = FakeClient  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    check_loggers(["mlflow"])
    for _ in range(2):  # the second stage finds the experiment
        write("mlflow", tmp_path)
        said = FakeClient.said
        assert said[0] == f"sqlite:///{tmp_path / 'mlflow.db'}"
        assert said[1] == ("id of mine", "odc.byol-seed3-abc") and said[-1] == "terminated"
        assert {("r1", "config.out", 8), ("r1", "train.lr", 0.1), ("r1", "loss", 0.5, 2)} <= set(said[2:-1])
    assert len(FakeClient.experiments) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    write("mlflow", tmp_path)
    assert FakeClient.said[0] == "http://server"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_in_one_sentence(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # import fails
    with pytest.raises(UserError, match=rf"^logging: '{name}' is not installed; pip install {name}$"):
        check_loggers(["tensorboard", name])


def test_tensorboard_has_a_file_per_run_and_no_epoch_twice(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage, folder = "odc-seed0", tmp_path / "tensorboard" / "odc-seed0"
    rows = [{"epoch": e, "loss": 1.0 / e, "parts": {}} for e in range(1, 7)]
    (logger,) = make_loggers(["tensorboard"], "mine", tmp_path)
    for row in rows[:4]:
        logger.write(stage, {}, [row], False)
    assert len(list(folder.glob("events*"))) == 1, "flushed four times"
    (again,) = make_loggers(["tensorboard"], "mine", tmp_path)
    again.write(stage, {}, rows, True)
    assert len(list(folder.glob("events*"))) == 2
    for _ in range(2):  # a finished study run again
        (third,) = make_loggers(["tensorboard"], "mine", tmp_path)
        third.write(stage, {}, rows, True)
    assert len(list(folder.glob("events*"))) == 2
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.timeout(60)
def test_at_a_pipe_nobody_waits(tmp_path: Path) -> None:
    stage = tmp_path / "tensorboard" / "odc-seed0"
    stage.mkdir(parents=True)
    os.mkfifo(stage / "epochs.txt")
    (logger,) = make_loggers(["tensorboard"], "mine", tmp_path)
    logger.write(stage.name, {}, [{"epoch": 1, "loss": 1.0, "parts": {}}], True)
    assert (stage / "epochs.txt").read_text() == "1\n"
