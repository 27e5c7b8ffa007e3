"""Who works on what, where several runs share a store: claims/<key>.json names a run, claims/runs/<run>.json beats.

A dead run's claim stays; claims/<key>.1-<dead run>.json names the heir, which one of those who find it dead can write.

A claim is advice. It saves work; without it two runs train the same stage and write the same result. Clocks of
different machines are never compared: a run counts as dead when its beat has not changed while this one looked at it
again and again for STALE seconds, or at once when it was a process of this machine that is gone.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsearch.storage.files import StoreLost
from dermsearch.storage.stages import StageStore

BEAT, STALE, POLL = 5.0, 30.0, 1.0  # seconds between two beats, without one until death, between two looks


@dataclass
class OtherRun:
    """Another run, as seen from here."""

    beat: bytes | None
    looked: float  # on this run's own clock
    quiet: float = 0.0  # seconds without a change, of those in which this run looked


class Claims:
    """The claims of one run, and what it sees of those of others."""

    def __init__(self, store: StageStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.store, self.clock = store, clock
        self.run = uuid.uuid4().hex
        self.mine: dict[str, list[str]] = {}  # stage key -> the files of its claims, the first one first
        self.held: dict[str, str] = {}  # stage key -> the run that has it
        self.others: dict[str, OtherRun] = {}
        self.looked = clock()
        self.beats = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            for key in list(self.mine):
                self.drop(key)
            self.store.forget(f"claims/runs/{self.run}.json")

    def take(self, key: str) -> bool:
        """Claim a stage, unless a run that is alive has it already."""
        if self._thread is None:
            self._begin()
        files = [f"claims/{key}.json"]
        with suppress(OSError, StoreLost):
            owner, files = self._owner(key)
            if owner != self.run and not (owner and self._alive(owner)):
                self._write(key, files[-1])
                owner, files = self._owner(key)
            if owner and owner != self.run:
                self.held[key] = owner
                return False
        self.mine[key] = files
        self.held.pop(key, None)
        return True

    def drop(self, key: str) -> None:
        """The stage is finished, or will not be."""
        for file in self.mine.pop(key, ()):  # in this order, or somebody would inherit anew
            self.store.forget(file)

    def freed(self) -> list[str]:
        """The stages held by others until now that are finished or without a master; looked for every POLL seconds."""
        if not self.held or self.clock() - self.looked < POLL:
            return []
        self.looked = self.clock()
        with suppress(OSError, StoreLost):
            there = {info.base_name.removesuffix(".json") for info in self.store.entries("claims").values()}
            alive = {run for run in set(self.held.values()) if self._alive(run)}
            found = [key for key, run in self.held.items() if key not in there or run not in alive]
            for key in found:
                del self.held[key]
            return found
        return []

    def _owner(self, key: str) -> tuple[str, list[str]]:
        """The last run that claimed it, if one has, and the files of all claims; the last is the next heir's."""
        owner, files = "", [f"claims/{key}.json"]
        while isinstance(found := self.store.read_json(files[-1]), dict) and found.get("run"):
            owner = str(found["run"])
            files.append(f"claims/{key}.{len(files)}-{owner}.json")
        return owner, files

    def _write(self, key: str, name: str) -> None:
        """Put this run's claim there: where files can be linked, only if nobody was faster."""
        data = json.dumps({"run": self.run, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}).encode()
        own = f"claims/runs/{self.run}-{key}.json"
        if self.store.local is None:
            self.store.write(name, data)
            return
        self.store.write(own, data)
        try:
            os.link(self.store.local / own, self.store.local / name)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            self.store.write(name, data)
        self.store.forget(own)

    def _alive(self, run: str) -> bool:
        beat, now = self.store.get(f"claims/runs/{run}.json"), self.clock()
        seen = self.others.get(run)
        if beat is None or gone(beat):
            return False
        if seen is None or seen.beat != beat:
            self.others[run] = OtherRun(beat, now)
            return True
        seen.quiet += min(now - seen.looked, BEAT)  # this process may itself have been asleep
        seen.looked = now
        return seen.quiet < STALE

    def _begin(self) -> None:
        """From here on this run has a beat."""
        self._beat()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        while not self._stop.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        self.beats += 1
        about = {"beat": self.beats, "home": home(), "pid": os.getpid(), "born": born(os.getpid())}
        with suppress(OSError, StoreLost):
            self.store.write(f"claims/runs/{self.run}.json", json.dumps(about).encode())


def gone(beat: bytes) -> bool:
    """Was it a process of this machine that no longer runs?"""
    try:
        about: dict[str, Any] = json.loads(beat)
        here, pid, then = about["home"] == home(), int(about["pid"]), about["born"]
    except (ValueError, KeyError, TypeError):
        return False
    return here and born(pid) != then


def home() -> str:
    """This machine, and on Linux its table of processes: machines may share a name, and containers all but that."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    return socket.gethostname()


def born(pid: int) -> str:
    """When a process began, as the system counts; without /proc only whether it is there. Empty: it is not."""
    with suppress(OSError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if after_name[0] in "ZX" else after_name[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "there"
