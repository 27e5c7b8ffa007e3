"""The stage store: finished stages and judgements by key, on a local path or any pyarrow filesystem.

stages/<key>/encoders.safetensors, history.json, manifest.json   the manifest last, with checksums
stages/<key>/handover.safetensors                                what some stages hand on beside their encoders
scores/<key>.json                                                what a protocol said of a stage
partial/<key>/state.pt, progress.json                            a stage under way; gone once it is finished
weights/<hash>-<backbone>.safetensors                            what curricula start with, from a file of that hash
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs

from dermsearch.errors import UserError

if TYPE_CHECKING:
    from dermsearch.models.relations import Handover

ENCODERS, HISTORY, MANIFEST = "encoders.safetensors", "history.json", "manifest.json"
HANDOVER = "handover.safetensors"


class StageStore:
    """Reads and writes by key. Two writers of one key are harmless: they write the same."""

    def __init__(self, where: str) -> None:
        self.where = where
        try:
            if "://" in where:
                self.fs, self.root = pafs.FileSystem.from_uri(where)
            else:
                self.fs, self.root = pafs.LocalFileSystem(), str(Path(where).expanduser().absolute())
            self.fs.create_dir(f"{self.root}/stages", recursive=True)
            probe = f"partial/{uuid.uuid4().hex}"
            self.write(f"{probe}/writable", b"")
            self.remove(probe)
        except Exception as error:  # pyarrow raises many kinds for one mistake: this place cannot be used
            what = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"compute.store: '{where}' cannot be written to: {what}") from None

    @property
    def local(self) -> Path | None:
        """The folder, where the store is one."""
        return Path(self.root) if isinstance(self.fs, pafs.LocalFileSystem) else None

    @property
    def address(self) -> str:
        """What opens the same store from any working folder and node."""
        return self.root if self.local else self.where

    def write(self, name: str, data: bytes) -> None:
        """A file appears whole under its name."""
        path = f"{self.root}/{name}"
        part = f"{path}.{uuid.uuid4().hex[:8]}.part"
        self.fs.create_dir(os.path.dirname(path), recursive=True)
        with self.fs.open_output_stream(part) as out:
            out.write(data)
        self.fs.move(part, path)

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None where there is none."""
        try:
            with self.fs.open_input_file(f"{self.root}/{name}") as f:
                return f.read()
        except (FileNotFoundError, OSError):
            return None

    def read_json(self, name: str) -> Any:
        """The file's content, or None where there is none or it is damaged."""
        data = self.read(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None

    # Stages ------------------------------------------------------------------------------------------------

    def commit(
        self,
        key: str,
        encoders: dict[str, Any],
        history: list[dict[str, Any]],
        about: dict[str, Any],
        handover: Handover | None = None,
    ) -> None:
        """A stage exists from the moment its manifest is there."""
        files = {ENCODERS: packed(encoders), HISTORY: json.dumps(history).encode()}
        if handover is not None:
            files[HANDOVER] = packed(handover.state)
            about = {**about, "handover": handover.config}
        for name, data in files.items():
            self.write(f"stages/{key}/{name}", data)
        manifest = {**about, "files": {name: checksum(data) for name, data in files.items()}}
        manifest["checksum"] = of_itself(manifest)
        self.write(f"stages/{key}/{MANIFEST}", json.dumps(manifest).encode())
        self.clear_partial(key)

    def manifest(self, key: str) -> dict[str, Any] | None:
        """What the stage's maker wrote down, if all of its files are what they were."""
        manifest = self.read_json(f"stages/{key}/{MANIFEST}")
        if not isinstance(manifest, dict) or manifest.get("checksum") != of_itself(manifest):
            return None
        for name, expected in manifest["files"].items():
            data = self.read(f"stages/{key}/{name}")
            if data is None or checksum(data) != expected:
                return None
        return manifest

    def encoders(self, key: str) -> dict[str, Any]:
        """The weights that a stage hands on."""
        from safetensors.torch import load

        data = self.read(f"stages/{key}/{ENCODERS}")
        if data is None:
            raise FileNotFoundError(f"stage {key} is not in the store {self.where}")
        return load(data)

    def handover(self, key: str) -> Handover | None:
        """What a stage hands on beside its encoders."""
        from safetensors.torch import load

        from dermsearch.models.relations import Handover

        manifest, data = self.read_json(f"stages/{key}/{MANIFEST}"), self.read(f"stages/{key}/{HANDOVER}")
        return None if data is None or not manifest else Handover(manifest["handover"], load(data))

    def history(self, key: str) -> list[dict[str, Any]]:
        """A row per epoch of a finished stage."""
        return self.read_json(f"stages/{key}/{HISTORY}") or []

    # Judgements --------------------------------------------------------------------------------------------

    def scores(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a judgement, or None if there is none yet."""
        return self.read_json(f"scores/{key}.json")

    def write_scores(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Keep a judgement."""
        self.write(f"scores/{key}.json", json.dumps(rows).encode())

    # Starting weights --------------------------------------------------------------------------------------

    def weights(self, content: str, backbone: str) -> dict[str, Any] | None:
        """A backbone's weights from a file of that hash, or None if nobody has put them here."""
        from safetensors.torch import load

        data = self.read(f"weights/{content}-{backbone}.safetensors")
        return None if data is None else load(data)

    def write_weights(self, content: str, backbone: str, weights: dict[str, Any]) -> None:
        """Keep them for every worker, on whatever node."""
        self.write(f"weights/{content}-{backbone}.safetensors", packed(weights))

    # Stages under way --------------------------------------------------------------------------------------

    def progress(self, key: str) -> list[dict[str, Any]]:
        """The epochs that a stage under way has finished."""
        return self.read_json(f"partial/{key}/progress.json") or []

    def write_progress(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Let the driver see how far a stage is."""
        self.write(f"partial/{key}/progress.json", json.dumps(rows).encode())

    def clear_partial(self, key: str) -> None:
        """Forget the state of a stage under way."""
        self.remove(f"partial/{key}")

    def remove(self, folder: str) -> None:
        """Delete a folder of the store, if it is there."""
        try:
            self.fs.delete_dir(f"{self.root}/{folder}")
        except OSError:
            return  # it never was, or another process was faster


class PartialStage:
    """The resumable state of one stage, after every epoch."""

    def __init__(self, store: StageStore, key: str) -> None:
        self.store, self.name = store, f"partial/{key}/state.pt"

    def load(self) -> dict[str, Any] | None:
        """The state after the last finished epoch; None to start from the beginning."""
        import torch

        data = self.store.read(self.name)
        if data is None or len(data) < 16 or checksum(data[16:]).encode() != data[:16]:
            return None
        return torch.load(io.BytesIO(data[16:]), map_location="cpu", weights_only=True)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state by that of the epoch just finished."""
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        self.store.write(self.name, checksum(data).encode() + data)


def packed(tensors: dict[str, Any]) -> bytes:
    """Tensors as safetensors."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def of_itself(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest without its checksum."""
    return checksum(json.dumps({k: v for k, v in manifest.items() if k != "checksum"}, sort_keys=True).encode())


def checksum(data: bytes) -> str:
    """16 hex digits of blake2b."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()
