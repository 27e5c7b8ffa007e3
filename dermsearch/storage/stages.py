"""The stage store: finished stages and judgements by key, on a local path or any pyarrow filesystem.

store.json                                                       the format; an older dermsearch refuses a newer one
stages/<key>/<part>.safetensors, history.json, manifest.json     the manifest last, with checksums; a part is one of
                                                                 `models.artifact`: encoders, heads; of a fit predictor
scores/<key>.json, <key>.arrow                                   what a protocol said of a stage or fit, of each case
partial/<key>/state.pt, progress.json                            a stage under way; gone once it is finished
segments/<key>/manifest.json, <part>.safetensors                 that the first epochs of a stage are trained; their
                                                                 state is in partial/<key>/ while it may go on from it,
                                                                 their parts are here where fits are to judge them
openings/<fingerprint>/<id>.json                                 that a data set's test split was looked at
weights/<hash>-<backbone>/<part>.safetensors, manifest.json      what curricula start with, from what has that hash

What is damaged counts as missing and is made again. A store that is full or out of reach is `StoreLost`, never
mistaken for an empty one.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from dermsearch import __version__
from dermsearch.errors import UserError
from dermsearch.models.artifact import ENCODERS, HEADS, Artifact, Part
from dermsearch.storage.files import MANIFEST, Folder, StoreLost, checksum, sealed, unsealed

HISTORY, STORE, PREDICTIONS = "history.json", "store.json", "predictions"
FORMAT = 3  # of a store; one without store.json is of format 1
# Up to format 2 manifests did not name their parts.
BEFORE = {"encoders.safetensors": ENCODERS, "weights.safetensors": ENCODERS, "handover.safetensors": HEADS}


class StageStore(Folder):
    """Reads and writes by key. Two writers of one key are harmless: the first to finish is kept."""

    waits = (1, 2, 4, 8, 15, 30)  # a study outlasts a network that is away for a minute

    def __init__(self, where: str, create: bool = True) -> None:
        super().__init__(where, "compute.store: " if create else "")
        if create:
            self.prepare("stages")
        elif self.kind("stages") != "folder":
            raise UserError(f"'{self.where}' is not a stage store: it has no folder 'stages'")
        self._check_format(create)

    def _check_format(self, create: bool) -> None:
        """Refuse a store of a newer format, and mark one that says nothing of its format."""
        about = self.read_sealed(STORE) or {"format": 1}
        if about["format"] > FORMAT:
            raise UserError(
                f"{self.field}'{self.where}' was written by dermsearch {about['version']} in format {about['format']}, "
                f"and this one reads up to {FORMAT}: update dermsearch, or name another store"
            )
        if create and about["format"] < FORMAT:
            self.write(STORE, sealed({"format": FORMAT, "version": __version__}))

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
        return {info.base_name for info in self.entries(kind, must=kind == "stages").values()}

    def manifest(self, key: str) -> dict[str, Any] | None:
        """What the stage's maker wrote down, if all of its files are what they were."""
        return self.whole(f"stages/{key}")

    def artifact(self, key: str, folder: str = "stages") -> dict[str, Part]:
        """What a stage, segment or fit hands on."""
        from safetensors.torch import load

        manifest = self.read_sealed(f"{folder}/{key}/{MANIFEST}") or {"files": {}}
        if "parts" in manifest:
            parts = [(kind, config, file_of(kind)) for kind, config in manifest["parts"].items()]
        else:
            names = [name for name in BEFORE if name in manifest["files"]]
            parts = [(BEFORE[name], manifest.get("handover") or {}, name) for name in names]
        return {kind: Part(config, load(self._of(folder, key, name))) for kind, config, name in parts}

    def history(self, key: str) -> list[dict[str, Any]]:
        """A row per epoch of a finished stage."""
        return json.loads(self._of("stages", key, HISTORY))

    def _of(self, folder: str, key: str, name: str) -> bytes:
        """A file of a stage that somebody found whole before."""
        manifest = self.read_sealed(f"{folder}/{key}/{MANIFEST}")
        data = None if manifest is None else self.checked(f"{folder}/{key}", name, manifest)
        if data is None:
            what = f"{name} of {folder.removesuffix('s')} {key} was damaged or deleted under the running study"
            raise StoreLost(f"{self.field}'{self.where}': {what}; the same command makes it again and continues")
        return data

    # Segments ----------------------------------------------------------------------------------------------

    def commit_segment(self, key: str, about: dict[str, Any], parts: Artifact) -> None:
        """The first epochs of a stage are trained; the state after them stays, and parts that fits will judge."""
        self._commit_parts(f"segments/{key}", parts, about, {})
        self.forget(f"partial/{key}/progress.json")

    def segment(self, key: str) -> dict[str, Any] | None:
        """What a segment's maker wrote down, whether or not its state is still there."""
        return self.whole(f"segments/{key}")

    # Judgements --------------------------------------------------------------------------------------------

    def judgement(self, key: str) -> dict[str, Any] | None:
        """Its rows, counts and seconds; None if there is none yet or it, or what it predicted, is damaged."""
        found = unsealed(self.read_json(f"scores/{key}.json"))
        whole = found is None or PREDICTIONS not in found or self._predictions(key, found) is not None
        return found if whole else None

    def predictions(self, key: str) -> pa.Table | None:
        """What a judgement's classifier said of each case; None if it is none, or of an earlier version."""
        found = unsealed(self.read_json(f"scores/{key}.json")) or {}
        data = self._predictions(key, found) if PREDICTIONS in found else None
        return None if data is None else pa.ipc.open_file(pa.BufferReader(data)).read_all()

    def _predictions(self, key: str, judgement: dict[str, Any]) -> bytes | None:
        data = self.get(f"scores/{key}.arrow")
        return data if data is not None and checksum(data) == judgement[PREDICTIONS] else None

    def write_judgement(
        self, key: str, judgement: dict[str, Any], of: str = "", predictions: pa.Table | None = None
    ) -> None:
        """Keep a judgement of that stage or fit: it goes where that goes."""
        if predictions is not None:
            data = columns(predictions)
            self.write(f"scores/{key}.arrow", data)
            judgement = {**judgement, PREDICTIONS: checksum(data)}
        self.write(f"scores/{key}.json", sealed({"stage": of, **judgement}))

    # Openings of test splits -------------------------------------------------------------------------------

    def note_opening(self, fingerprint: str, about: dict[str, Any]) -> None:
        """The test split of the data set with that fingerprint is looked at: for which curricula, and when."""
        self.write(f"openings/{fingerprint}/{uuid.uuid4().hex}.json", sealed(about))

    def openings(self, fingerprint: str) -> int:
        """How often it has been looked at, as far as this store knows."""
        return len(self.names(f"openings/{fingerprint}"))

    # Starting weights --------------------------------------------------------------------------------------

    def weights(self, content: str, backbone: str) -> dict[str, Part] | None:
        """What curricula start with, from what has that hash; None if nobody has put it here."""
        folder = f"{content}-{backbone}"
        return self.artifact(folder, "weights") if self.whole(f"weights/{folder}") is not None else None

    def write_weights(self, content: str, backbone: str, parts: Artifact) -> None:
        """Keep them for every worker, on whatever node."""
        self._commit_parts(f"weights/{content}-{backbone}", parts, {"backbone": backbone}, {})

    # Stages under way --------------------------------------------------------------------------------------

    def progress(self, key: str) -> list[dict[str, Any]]:
        """The epochs that a stage under way has finished, to be looked at: no result comes from here."""
        try:
            found = json.loads(self.get(f"partial/{key}/progress.json", patient=False) or b"[]")
        except (ValueError, StoreLost):
            return []
        return found if isinstance(found, list) else []

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
    """The resumable state of one stage or segment, after every epoch."""

    def __init__(self, store: StageStore, key: str, before: Sequence[str] = ()) -> None:
        self.store, self.name = store, f"partial/{key}/state.pt"
        self.before = [f"partial/{segment}/state.pt" for segment in before]  # of the same stage, the longest first
        self.behind: list[dict[str, Any]] = []  # the epochs of the state that was loaded

    def load(self) -> dict[str, Any] | None:
        """The state after the last finished epoch, its own or a segment's; None to start from the beginning."""
        states = (self._read(name) for name in (self.name, *self.before))
        found = next((state for state in states if state is not None), None)
        self.behind = json.loads((found or {}).get("history", "[]"))
        return found

    def _read(self, name: str) -> dict[str, Any] | None:
        import torch

        data = self.store.get(name)
        if data is None or len(data) < 16 or checksum(data[16:]).encode() != data[:16]:
            return None
        state = torch.load(io.BytesIO(data[16:]), map_location="cpu", weights_only=True)
        return state if state.pop("version", __version__) == __version__ else None  # another may train otherwise

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state by that of the epoch just finished."""
        import torch

        buffer = io.BytesIO()
        torch.save({**state, "version": __version__}, buffer)
        data = buffer.getvalue()
        self.store.write(self.name, checksum(data).encode() + data)


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
