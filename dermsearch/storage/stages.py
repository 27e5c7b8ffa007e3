"""The stage store: finished stages and judgements by key, on a local path or any pyarrow filesystem.

docs/store.md tells what lies where. What is damaged counts as missing and is made again; so does what stands under
another's name, since manifests, judgements, leases and states say which file they are. A store that is full or out of
reach is `StoreLost`, never mistaken for an empty one.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import time
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa

from dermsearch import __version__
from dermsearch.errors import UserError, first_line
from dermsearch.models.artifact import ENCODERS, HEADS, Artifact, Part
from dermsearch.storage.files import Folder, StoreLost, checksum, named, parsed, sealed, unsealed
from dermsearch.storage.shapes import epochs, judged, labelled, said

HISTORY, STORE, SET_ASIDE, PREDICTIONS = "history.json", "store.json", "damaged", "predictions"
FORMAT = 3  # of a store; one without store.json is of format 1
# Up to format 2 manifests did not name their parts.
BEFORE = {"encoders.safetensors": ENCODERS, "weights.safetensors": ENCODERS, "handover.safetensors": HEADS}
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Unusable(StoreLost):
    """A stage whose files are what they were written as, and cannot be loaded. It has been set aside."""


class StageStore(Folder):
    """Reads and writes by key. Two writers of one key are harmless: the first to finish is kept."""

    waits = (1, 2, 4, 8, 15, 30)  # a study outlasts a network that is away for a minute

    def __init__(self, where: str, create: bool = True) -> None:
        super().__init__(where, "compute.store: " if create else "")
        self.notes: list[str] = []  # what was set aside, and why, for those who watch
        self.mends = create  # who only looks changes nothing
        if create:
            create = self._may_write()
        elif self.kind("stages") != "folder":
            raise UserError(f"'{self.where}' is not a stage store: it has no folder 'stages'")
        self._check_format(create)

    def _may_write(self) -> bool:
        """Can it be written to? One that cannot serves all that only read; whoever has to write will say so."""
        try:
            self.prepare("stages")
        except StoreLost as error:
            refused = getattr(error.__context__, "errno", None) in READ_ONLY or "ACCESS_DENIED" in str(error)
            if not refused or self.kind("stages") != "folder":
                raise
            return False
        return True

    def _check_format(self, create: bool) -> None:
        """Refuse a store of a newer format, and mark one that says nothing of its format."""
        about = self.read_sealed(STORE) or {"format": 1}
        made_in, version = about.get("format"), about.get("version", "of another version")
        if not isinstance(made_in, int) or made_in > FORMAT:
            raise UserError(
                f"{self.field}'{self.where}' was written by dermsearch {version} in format {made_in}, "
                f"and this one reads up to {FORMAT}: update dermsearch, or name another store"
            )
        if create and made_in < FORMAT:
            self.write(STORE, sealed({"format": FORMAT, "version": __version__}))

    # What is in the way ------------------------------------------------------------------------------------

    def set_aside(self, name: str, why: str) -> str:
        """Move what cannot be used to where it can be looked at; returns where, and notes it."""
        to = f"{SET_ASIDE}/{stamp()}/{name}"
        try:
            self.move(name, to)
        except FileNotFoundError:  # another process was faster
            return SET_ASIDE
        except OSError as error:
            raise self._lost("written to", error) from None
        self.notes.append(f"{name} {why}; it was moved to {to} in the store")
        return to

    def unusable(self, folder: str, why: str) -> Unusable:
        """Set a stage (segment, weights) aside that cannot be loaded, and say so."""
        if not self.mends:
            return Unusable(f"'{self.where}': {folder} cannot be loaded: {why}")
        to = self.set_aside(folder, f"cannot be loaded: {why}")
        said = f"{folder} cannot be loaded ({why}) and was moved to {to}"
        return Unusable(f"{self.field}'{self.where}': {said}; the same command makes it again and continues")

    def _write(self, name: str, data: bytes | pa.Buffer) -> None:
        try:
            super()._write(name, data)
        except OSError:
            wrong = self._in_the_way(name)
            if wrong is None:
                raise
            self.set_aside(wrong, "was not what belongs there")
            super()._write(name, data)

    def _in_the_way(self, name: str) -> str | None:
        """A folder where the file goes, or no folder where one of its folders goes."""
        if self.local is None:
            return None
        parts = name.split("/")
        for end in range(2, len(parts)):
            folder = "/".join(parts[:end])
            if os.path.lexists(self.local / folder) and not (self.local / folder).is_dir():
                return folder
        return name if (self.local / name).is_dir() else None

    # Stages ------------------------------------------------------------------------------------------------

    def commit(self, key: str, parts: Artifact, history: list[dict[str, Any]], about: dict[str, Any]) -> None:
        """A stage or fit exists from the moment its manifest is there."""
        self._commit_parts(f"stages/{key}", parts, about, {HISTORY: json.dumps(history).encode()})
        self.clear_partial(key)

    def _commit_parts(self, folder: str, parts: Artifact, about: dict[str, Any], files: dict[str, bytes]) -> None:
        tensors = {file_of(kind): packed(part.state) for kind, part in parts.items()}
        configs = {kind: part.config for kind, part in parts.items()}
        self.commit_files(folder, tensors | files, {**about, "parts": configs})

    def keys(self, kind: str = "stages") -> set[str]:
        """The stages (or segments) that are there, finished or half written."""
        return self.listed(kind, must=kind == "stages")

    def manifest(self, key: str) -> dict[str, Any] | None:
        """What the stage's maker wrote down, if all of its files are what they were."""
        return self.whole(f"stages/{key}")

    def whole(self, folder: str) -> dict[str, Any] | None:
        """The folder's manifest, if all of its files are what they were, and all of its parts are files."""
        manifest = super().whole(folder)
        parts = (manifest or {}).get("parts", {})
        sound = isinstance(parts, dict) and all(file_of(kind) in (manifest or {})["files"] for kind in parts)
        return manifest if sound and labelled(manifest or {}) else None

    def artifact(self, key: str, folder: str = "stages") -> dict[str, Part]:
        """What a stage, segment or fit hands on. One that cannot be loaded is set aside, and `Unusable`."""
        manifest = self.told(f"{folder}/{key}") or {"files": {}}
        if "parts" in manifest:
            parts = [(kind, config, file_of(kind)) for kind, config in manifest["parts"].items()]
        else:
            names = [name for name in BEFORE if name in manifest["files"]]
            parts = [(BEFORE[name], manifest.get("handover") or {}, name) for name in names]
        try:
            return {kind: Part(config, unpacked(self._of(folder, key, name))) for kind, config, name in parts}
        except NoTensors as error:
            raise self.unusable(f"{folder}/{key}", str(error)) from None

    def history(self, key: str) -> list[dict[str, Any]]:
        """A row per epoch of a finished stage."""
        rows = parsed(self._of("stages", key, HISTORY))
        if not epochs(rows):
            raise self.unusable(f"stages/{key}", f"{HISTORY} is none")
        return rows

    def _of(self, folder: str, key: str, name: str) -> bytes:
        """A file of a stage that somebody found whole before."""
        manifest = self.told(f"{folder}/{key}")
        data = None if manifest is None else self.checked(f"{folder}/{key}", name, manifest)
        if data is None:
            raise self.gone(f"{name} of {folder.removesuffix('s')} {key}")
        return data

    def gone(self, what: str) -> StoreLost:
        """What somebody found whole before is so no longer."""
        said = f"{what} was damaged or deleted under the running study"
        return StoreLost(f"{self.field}'{self.where}': {said}; the same command makes it again and continues")

    # Segments ----------------------------------------------------------------------------------------------

    def commit_segment(self, key: str, about: dict[str, Any], parts: Artifact) -> None:
        """The first epochs of a stage are trained; the state after them stays, and parts that fits will judge."""
        self._commit_parts(f"segments/{key}", parts, about, {})
        self.forget(f"partial/{key}/progress.json")

    def segment(self, key: str) -> dict[str, Any] | None:
        """What a segment's maker wrote down, whether or not its state is still there."""
        return self.whole(f"segments/{key}")

    # Judgements --------------------------------------------------------------------------------------------

    def judgement(self, key: str, of: str = "") -> dict[str, Any] | None:
        """Its rows, counts and seconds; None if there is none yet, or none of that stage or fit that is whole."""
        found = self.read_sealed(f"scores/{key}.json") or {}
        if not judged(found) or (of and found.get("stage") not in ("", of)):
            return None
        return found if PREDICTIONS not in found or self._said(key, found) is not None else None

    def predictions(self, key: str) -> pa.Table | None:
        """What a judgement's classifier said of each case; None if it is none, or of an earlier version."""
        found = self.read_sealed(f"scores/{key}.json") or {}
        return self._said(key, found) if PREDICTIONS in found else None

    def _said(self, key: str, judgement: dict[str, Any]) -> pa.Table | None:
        data = self.get(f"scores/{key}.arrow")
        return said(data) if data is not None and checksum(data) == judgement[PREDICTIONS] else None

    def write_judgement(
        self, key: str, judgement: dict[str, Any], of: str = "", predictions: pa.Table | None = None
    ) -> None:
        """Keep a judgement of that stage or fit: it goes where that goes."""
        name = f"scores/{key}.json"
        if predictions is not None:
            data = columns(predictions)
            self.write(f"scores/{key}.arrow", data)
            judgement = {**judgement, PREDICTIONS: checksum(data)}
        self.write(name, sealed({"stage": of, **judgement, "name": name}))

    # Openings of test splits -------------------------------------------------------------------------------

    def note_opening(self, fingerprint: str, about: dict[str, Any]) -> None:
        """The test split of the data set with that fingerprint is looked at: for which curricula, and when."""
        name = f"openings/{fingerprint}/{uuid.uuid4().hex}.json"
        self.write(name, sealed({**about, "name": name}))

    def openings(self, fingerprint: str) -> int:
        """How often it has been looked at, as far as this store knows. A note that is damaged was one of it."""
        notes = {name: unsealed(self.read_json(name)) for name in self.names(f"openings/{fingerprint}")}
        return sum(note is None or named(note, name) is not None for name, note in notes.items())

    # Starting weights --------------------------------------------------------------------------------------

    def weights(self, content: str, backbone: str) -> dict[str, Part] | None:
        """What curricula start with, from what has that hash; None if nobody has put it here."""
        folder = f"{content}-{backbone}"
        with suppress(Unusable):
            return self.artifact(folder, "weights") if self.whole(f"weights/{folder}") is not None else None
        return None

    def write_weights(self, content: str, backbone: str, parts: Artifact) -> None:
        """Keep them for every worker, on whatever node."""
        self._commit_parts(f"weights/{content}-{backbone}", parts, {"backbone": backbone}, {})

    # Stages under way --------------------------------------------------------------------------------------

    def progress(self, key: str) -> list[dict[str, Any]]:
        """The epochs that a stage under way has finished, to be looked at: no result comes from here."""
        with suppress(StoreLost):
            found = parsed(self.get(f"partial/{key}/progress.json", patient=False))
            return found if epochs(found) else []
        return []

    def write_progress(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Let the driver see how far a stage is."""
        self.write(f"partial/{key}/progress.json", json.dumps(rows).encode())

    def clear_partial(self, key: str) -> None:
        """Forget the state of a stage under way."""
        self.forget(f"partial/{key}")

    def forget(self, name: str) -> None:
        """Delete a file or folder that is no longer needed; one that somebody else is at may stay."""
        with suppress(OSError):
            self.remove(name)


class PartialStage:
    """The resumable state of one stage or segment, due `every` so many seconds: a kill costs no more than these.

    Saving writes some three times the network, while training goes on. With 0 it is due after every epoch, within none,
    and is written before training goes on.
    """

    def __init__(self, store: StageStore, key: str, before: Sequence[str] = (), every: float = 0) -> None:
        self.store, self.name = store, f"partial/{key}/state.pt"
        self.every, self.saved = every, time.monotonic()
        self.before = [f"partial/{segment}/state.pt" for segment in before]  # of the same stage, the longest first
        self.behind: list[dict[str, Any]] = []  # the epochs of the state that was loaded
        self.loaded = ""  # and its file
        self.writer = ThreadPoolExecutor(1, "state")
        self.writing: Future[None] | None = None

    def load(self) -> dict[str, Any] | None:
        """The last state that was saved, its own or a segment's; None to start from the beginning.

        What is no state is set aside.
        """
        self.settle()
        for name in (self.name, *self.before):
            data = self.store.get(name)
            if data is None and not (self.store.local and self.store.kind(name) == "folder"):
                continue
            try:
                state = None if data is None else state_in(data)
                if state is None or state.get("name", name) != name or not epochs(parsed(state.get("history"))):
                    raise ValueError("no state of this stage")
            except ValueError as error:
                self.store.set_aside(name, f"is {error}: the stage begins anew")
                continue
            if state.pop("version", "") == __version__ and state.pop("name", ""):  # others may train otherwise
                self.loaded, self.behind = name, json.loads(state["history"])
                return state
        return None

    def left(self, within: bool = False) -> float:
        """Seconds until a state is due, after an epoch or `within` one: none while the last is still being written."""
        if within and not self.every:
            return math.inf
        least = min(1.0, self.every) if self.writing is not None and not self.writing.done() else 0.0
        return max(least, self.saved + self.every - time.monotonic())

    def reject(self, why: str) -> None:
        """Set the state aside that was loaded: nothing can go on from it."""
        self.store.set_aside(self.loaded, f"does not fit its stage, which begins anew: {why}")
        self.loaded, self.behind = "", []

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state."""
        self.settle()
        if self.every:
            self.writing = self.writer.submit(self._write, copied(state))
        else:
            self._write(state)
        self.saved = time.monotonic()

    def settle(self) -> None:
        """Wait until what was saved is written, and raise what came of it."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: dict[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save({**state, "version": __version__, "name": self.name}, buffer)
        data = buffer.getvalue()
        self.store.write(self.name, checksum(data).encode() + data)


def copied(state: Any) -> Any:
    """The same on the CPU, in memory of its own: training changes what it was made of."""
    if isinstance(state, dict):
        return {name: copied(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state.detach().to("cpu", copy=True) if hasattr(state, "detach") else state


def state_in(data: bytes) -> dict[str, Any]:
    """The state that was saved as these bytes; ValueError where it is none. Nothing in it is executed."""
    import torch

    if checksum(data[16:]).encode() != data[:16]:
        raise ValueError("damaged")
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(io.BytesIO(data[16:]), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds
        if "allocate memory" in str(error):
            raise
        raise ValueError("no state of a stage") from None
    if not isinstance(state, dict):
        raise ValueError("no state of a stage")
    return state


def stamp() -> str:
    """When something was put away, as the name of a folder of its own."""
    return time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime()) + f"-{uuid.uuid4().hex[:6]}"


def file_of(kind: str) -> str:
    """Where a part lies in its folder."""
    return f"{kind}.safetensors"


def columns(table: pa.Table) -> bytes:
    """A table as Arrow, compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def packed(tensors: dict[str, Any]) -> bytes:
    """Tensors as safetensors."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


class NoTensors(ValueError):
    """What should be tensors cannot be read as any."""


def unpacked(data: bytes) -> dict[str, Any]:
    """The tensors of a file of safetensors; NoTensors where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, LookupError, ValueError, TypeError) as error:
        raise NoTensors(first_line(error)) from None
