"""Who works on what, where several runs share a store: claims/<key>.json names a run, claims/runs/<run>.json beats.

A dead run's claim stays; claims/<key>.1-<dead run>.json names the heir, which one of those who find it dead can write.

A claim is advice. It saves work; without it two runs train the same stage and write the same result. So a file that is
no claim (empty, cut, of another stage, by what cannot be a run) is one that nobody has written yet. Clocks of
different machines are never compared: a run counts as dead when its beat has not changed while this one looked at it
again and again for STALE seconds, or at once when it was a process of this machine that is gone.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsearch.storage.files import StoreLost, parsed, sealed
from dermsearch.storage.stages import StageStore

BEAT, STALE, POLL = 5.0, 30.0, 1.0  # seconds between two beats, without one until death, between two looks
RUN = re.compile(r"[0-9a-f]{32}")  # the name of a run


@dataclass
class OtherRun:
    """Another run, as seen from here."""

    beat: bytes | None
    looked: float  # on this run's own clock
    since: float  # when it was first seen
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
        self.blind = 0.0  # since when the store cannot be looked at
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
            dead = ""
            if owner != self.run and not (owner and self._alive(owner)):
                dead = owner
                self._write(key, files[-1])
                owner, files = self._owner(key)
            if owner not in (self.run, dead):  # a claim that cannot be written keeps nobody from work
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
        """The stages held by others until now that are finished or without a master; looked for every POLL seconds.

        A store that cannot be looked at for STALE seconds is lost: nobody would ever be found to have left.
        """
        if not self.held or self.clock() - self.looked < POLL:
            return []
        self.looked = self.clock()
        try:
            there = {name.removesuffix(".json") for name in self.store.listed("claims")}
            alive = {run for run in set(self.held.values()) if self._alive(run)}
        except (OSError, StoreLost):
            self.blind = self.blind or self.looked
            if self.looked - self.blind < STALE:
                return []
            raise
        self.blind = 0.0
        found = [key for key, run in self.held.items() if key not in there or run not in alive]
        for key in found:
            del self.held[key]
        return found

    def waiting(self) -> dict[str, str]:
        """Whom this run waits for, since when (in steps of ten minutes), and what to do: by run a sentence."""
        told = {}
        for run in sorted(set(self.held.copy().values())):
            seen = self.others.get(run)
            about = parsed(seen.beat) if seen else None
            about = about if isinstance(about, dict) else {}
            minutes = int(self.clock() - seen.since) // 600 * 10 if seen else 0
            since = f" for {minutes} min" * bool(minutes)
            told[run] = (
                f"Waiting{since} for another run, process {about.get('pid', '?')} on "
                f"{about.get('host', 'some machine')}, which is at stages of this one. "
                f"If it hangs, end it: {STALE:.0f} s later this run goes on with them"
            )
        return told

    def _owner(self, key: str) -> tuple[str, list[str]]:
        """The last run that claimed it, if one has, and the files of all claims; the last is the next heir's."""
        owner, files = "", [f"claims/{key}.json"]
        while found := claimed_by(self.store, files[-1]):
            owner = found
            files.append(f"claims/{key}.{len(files)}-{owner}.json")
        return owner, files

    def _write(self, key: str, name: str) -> None:
        """Put this run's claim there: where files can be linked, only if nobody was faster."""
        data = claim_of(self.run, name)
        own = f"claims/runs/{self.run}-{key}.json"
        if self.store.local is None:
            self.store.write(name, data)
            return
        self.store.write(own, data)
        try:
            with open(self.store.local / own) as file:  # or a power cut could leave an empty file under that name
                os.fsync(file.fileno())
            os.link(self.store.local / own, self.store.local / name)
        except FileExistsError:
            if not claimed_by(self.store, name):
                self.store.write(name, data)
        except OSError:  # a file system without links
            self.store.write(name, data)
        self.store.forget(own)

    def _alive(self, run: str) -> bool:
        beat, now = self.store.get(f"claims/runs/{run}.json"), self.clock()
        seen = self.others.get(run)
        if beat is None or gone(beat):
            return False
        if seen is None or seen.beat != beat:
            self.others[run] = OtherRun(beat, now, seen.since if seen else now)
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
        about["host"] = socket.gethostname()
        with suppress(OSError, StoreLost):
            self.store.write(f"claims/runs/{self.run}.json", json.dumps(about).encode())


def claim_of(run: str, name: str) -> bytes:
    """A run's claim, as the file of that name."""
    return sealed({"name": name, "run": run, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})


def claimed_by(store: StageStore, name: str) -> str:
    """The run whose claim that file is; empty where it is none."""
    found = store.read_sealed(name) or {}
    run = found.get("run")
    return run if found.get("name") == name and isinstance(run, str) and RUN.fullmatch(run) else ""


def gone(beat: bytes) -> bool:
    """Was it a process of this machine that no longer runs?"""
    try:
        about: dict[str, Any] = parsed(beat)
        here, pid, then = about["home"] == home(), int(about["pid"]), about["born"]
    except (ValueError, KeyError, TypeError, OverflowError):
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
