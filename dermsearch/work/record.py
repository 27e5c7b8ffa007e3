"""What a worker says of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dermsearch.work.job import Message


class Judged(Message):
    """What became of one judgement."""

    key: str
    status: Literal["done", "failed"] = "done"
    reason: str = ""
    traceback: str = ""  # of a bug
    reused: bool = False  # it was in the store
    seconds: float = 0.0


class Record(Message):
    """What became of a job. A failure through its own settings is a record, not an exception.

    `stopped` says that the store is full or out of reach: no stage failed, but none can go on.
    """

    key: str
    status: Literal["done", "failed", "stopped"]
    error: str = ""
    traceback: str = ""  # of a bug
    reused: bool = False  # it was in the store
    seconds: float | None = None  # of training, by whomever
    epochs: int | None = None
    device: str | None = None
    node: str | None = None
    workers: int | None = None
    last: dict[str, float] | None = None  # of a segment: what its last epoch came to
    judged: tuple[Judged, ...] = ()
    judge_seconds: float = 0.0
    notes: tuple[str, ...] = ()  # what was found damaged and set aside
    process: str = ""
    libraries: str = ""
    began: float = 0.0
    ended: float = 0.0

    @classmethod
    def done(cls, key: str, manifest: Mapping[str, Any], reused: bool = False) -> Record:
        """Of what is in the store, as its manifest tells."""
        about = {name: manifest.get(name) for name in (*MADE, "last")}
        return cls.model_validate({"key": key, "status": "done", "reused": reused, **about})


MADE = ("seconds", "epochs", "device", "node", "workers")  # of a manifest and a record, in the tables
