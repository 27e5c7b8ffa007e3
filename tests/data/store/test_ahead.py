"""Images that are sent one batch ahead, by a carrier that only takes notes: what it does on a GPU no test here sees."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pretext import tiny

from dermsearch.data.store import pool
from dermsearch.data.store.ahead import Ahead, carrier
from dermsearch.data.store.pool import Look
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError
from dermsearch.models.artifact import PREDICTOR
from dermsearch.testing import fits
from dermsearch.training.fits import predict_fit
from dermsearch.training.stage import train_stage


def pictures(units: np.ndarray) -> Pictures:
    """One colour each, its number."""
    return Pictures(torch.from_numpy(units.astype(np.uint8)).view(-1, 1, 1, 1).expand(-1, 3, 2, 2))


def colours(found: Pictures | None) -> list[int]:
    assert found is not None
    return found.pixels[:, 0, 0, 0].tolist()


def test_a_processor_carries_nothing():
    assert carrier(torch.device("cpu")) is None


def test_one_batch_is_read_ahead_and_no_more():
    read, let, began = list[int](), threading.Semaphore(0), threading.Semaphore(0)

    def slowly(units: np.ndarray) -> Pictures:
        began.release()
        assert let.acquire(timeout=300)
        read.append(int(units[0]))
        return pictures(units)

    ahead = Ahead(slowly, lambda host: lambda: host)
    ahead.expect(np.array([i, i + 10]) for i in range(3))
    assert began.acquire(timeout=300) and read == [], "it is read in a thread, while nobody has asked"
    let.release(2)
    assert colours(ahead.take(np.array([0, 10]))) == [0, 10]
    assert began.acquire(timeout=300)
    assert ahead.take(np.array([5, 6])) is None and ahead.take(np.array([1])) is None, "others are asked for meanwhile"
    assert colours(ahead.take(np.array([1, 11]))) == [1, 11] and read == [0, 1]
    let.release()
    assert colours(ahead.take(np.array([2, 12]))) == [2, 12]
    assert ahead.take(np.array([0, 10])) is None, "the epoch is over"


def test_a_new_epoch_forgets_the_last_one_and_an_error_comes_when_it_is_asked_for():
    def broken(units: np.ndarray) -> Pictures:
        if units[0] == 7:
            raise OSError("a disk")
        return pictures(units)

    ahead = Ahead(broken, lambda host: lambda: host)
    ahead.expect([np.array([1]), np.array([2])])
    ahead.expect([np.array([3]), np.array([7])])
    assert ahead.take(np.array([1])) is None and colours(ahead.take(np.array([3]))) == [3]
    with pytest.raises(OSError, match="a disk"):
        ahead.take(np.array([7]))


ONE, BOTH = ("derm",), ("derm", "clinic")


def test_what_nobody_asks_for_is_let_go_and_at_the_end_nothing_is_under_way():
    ahead = Ahead(pictures, lambda host: lambda: host)
    ahead.expect(np.array([i]) for i in range(5))
    assert colours(ahead.take(np.array([0]))) == [0] and colours(ahead.take(np.array([3]))) == [3]
    assert ahead.take(np.array([1])) is None and colours(ahead.take(np.array([4]))) == [4]
    ahead.expect([np.array([6])])
    ahead.close()
    assert ahead.take(np.array([6])) is None
    with pytest.raises(RuntimeError, match="shutdown"):
        ahead.expect([np.array([7])])


class Noted:
    """A made-up GPU: what is asked of it, in that order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> None:
        self.heard: list[str] = []
        noted, self.device = self, torch.device("cuda", 1)

        class Stream:
            device = self.device

            def record_event(self) -> str:
                noted.heard.append("record")
                return "sent"

            def wait_event(self, event: str) -> None:
                noted.heard.append(f"wait for {event}")

        def pin(of: torch.Tensor) -> torch.Tensor:
            if refuses:
                raise RuntimeError("CUDA error: out of memory")
            assert of.is_contiguous(), "as it lies in memory"
            return self.hear("pin", of.clone())

        def to(of: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
            assert device == self.device and non_blocking
            return self.hear("copy", of.clone())

        @contextmanager
        def beside(stream: Stream) -> Iterator[None]:
            self.heard.append("beside")
            yield
            self.heard.append("done")

        for name, stand_in in {
            "Stream": lambda device: Stream(),
            "stream": beside,
            "current_stream": lambda device: Stream(),
            "set_device": lambda device: self.heard.append(f"on {device}"),
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda of, stream: self.heard.append("keep"))

    def hear(self, what: str, value: Any) -> Any:
        self.heard.append(what)
        return value


@pytest.mark.parametrize("refuses", [False, True], ids=["pinned", "no memory to pin"])
def test_what_is_asked_of_a_gpu_and_in_which_order(refuses, monkeypatch):
    gpu = Noted(monkeypatch, refuses)
    send = carrier(gpu.device)
    assert send is not None
    canvas = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    host = Pictures(canvas.permute(0, 3, 1, 2), np.array([[0, 0, 4, 3], [0, 0, 2, 2]]))
    arrive = send(host)
    assert gpu.heard == ["on cuda:1", *["pin"] * (not refuses), "beside", "copy", "record", "done"]
    gpu.heard.clear()
    found = arrive()
    assert gpu.heard == ["wait for sent", "keep"], "whoever computes waits, and only then uses it"
    assert torch.equal(found.pixels, host.pixels) and found.frame is host.frame


@pytest.mark.parametrize(
    ("task", "modalities", "accumulate"),
    [("simclr", ONE, 1), ("simclr", ONE, 2), ("odc", BOTH, 1), ("paired_contrast", BOTH, 1)],
)
def test_a_stage_takes_every_batch_that_was_sent_ahead_and_learns_the_same(
    task, modalities, accumulate, tmp_path, monkeypatch
):
    store = tiny.make_store(tmp_path / "store")
    sent: list[int] = []

    def noting(device: torch.device) -> Callable[[Pictures], Any]:
        def arrive(host: Pictures) -> Pictures:
            sent.append(len(host))
            return host

        return lambda host: lambda: arrive(host)

    def trained() -> tuple[Any, list[dict[str, Any]]]:
        made = tiny.encoders(task, modalities, "separate")
        recipe = tiny.recipe(task, epochs=2, accumulate=accumulate)
        return made, train_stage(recipe, made, store, tiny.ROWS, tiny.Kept(), lambda row: None, tiny.CPU).history

    plainly, history = trained()
    monkeypatch.setattr(pool, "carrier", noting)
    ahead, again = trained()
    assert tiny.timeless(history) == tiny.timeless(again) and tiny.same(plainly, ahead)
    steps = 2 * (len(tiny.ROWS) // tiny.BATCH) * accumulate
    assert sent == [tiny.BATCH // accumulate] * (steps * len(modalities))


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each read took that whoever trains waited for; all others are sent ahead, to where they are."""
    found, read = list[int](), pool.CasePool._read

    def noting(of: pool.CasePool, units: np.ndarray, *more: Any) -> Pictures:
        if threading.current_thread() is threading.main_thread():
            found.append(len(units))
        return read(of, units, *more)

    monkeypatch.setattr(pool.CasePool, "_read", noting)
    monkeypatch.setattr(pool, "carrier", lambda device: lambda host: lambda: host)
    return found


@pytest.mark.parametrize("task", ["moco_v2", "paired_contrast"])
def test_no_step_waits_for_an_image_nor_does_the_look_at_validation(task, tmp_path, waited):
    store, made = tiny.make_store(tmp_path / "store"), tiny.encoders(task)
    recipe = tiny.recipe(task, epochs=2, patience=2)
    given = recipe, made, store, tiny.ROWS[:32], tiny.Kept(), lambda row: None, tiny.CPU
    if task == "moco_v2":
        recipe.config["queue"] = 16
    history = train_stage(*given, heldout=tiny.ROWS[32:]).history
    assert np.isfinite([row["val_loss"] for row in history]).all() and waited == []


def test_predictions_wait_for_no_image_and_look_where_they_are_told(tmp_path, waited):
    store = tiny.make_store(tmp_path / "store")
    trained = fits.trained("finetune", {"epochs": 2, "batch": 16, "lr": 1e-3}, store).parts[PREDICTOR]
    assert waited == []
    predict = partial(predict_fit, trained, store, tiny.ROWS, Look(tiny.SIZE), tiny.CPU, "fp32")
    said = predict(pixels="pinned")
    reading = [thread.name for thread in threading.enumerate() if thread.name.startswith("images")]
    assert waited == [] and reading == [], "and nothing goes on when they are made"
    assert said["diagnosis"].shape == (len(tiny.ROWS), 3)
    with pytest.raises(UserError, match=r"^compute\.pixels: device: the images take 0\.00 GB, and 0\.00 GB are free"):
        predict(pixels="device")
