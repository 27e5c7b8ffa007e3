"""The stage store: finished stages and judgements by key, on a local path or any pyarrow filesystem.

store.json                                                       the format; an older dermsearch refuses a newer one
stages/<key>/encoders.safetensors, history.json, manifest.json   the manifest last, with checksums
stages/<key>/<kind>.safetensors                                  what a stage hands on beside its encoders, by kind
scores/<key>.json                                                what a protocol said of a stage
partial/<key>/state.pt, progress.json                            a stage under way; gone once it is finished
segments/<key>/manifest.json                                     that the first epochs of a stage are trained; their
                                                                 state is in partial/<key>/ while it may go on from it
weights/<hash>-<backbone>/weights.safetensors, manifest.json     what curricula start with, from a file of that hash

What is damaged counts as missing and is made again. A store that is full or out of reach is `StoreLost`, never
mistaken for an empty one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs

from dermsearch import __version__
from dermsearch.errors import UserError
from dermsearch.storage.place import MANIFEST, Place, StoreLost, checksum, sealed, unsealed

if TYPE_CHECKING:
    from dermsearch.models.artifact import Artifact, Part

ENCODERS, HISTORY = "encoders.safetensors", "history.json"
WEIGHTS, STORE = "weights.safetensors", "store.json"
FORMAT = 2  # of a store; one without store.json is of format 1, whose judgements carry no checksums


class StageStore(Place):
    """Reads and writes by key. Two writers of one key are harmless: the first to finish is kept."""

    def __init__(self, where: str, create: bool = True) -> None:
        super().__init__(where, "compute.store: " if create else "")
        if create:
            self.prepare("stages")
        elif not self.has_folder("stages"):
            raise UserError(f"'{self.shown}' is not a stage store: it has no folder 'stages'")
        self._check_format(create)

    def _check_format(self, create: bool) -> None:
        """Refuse a store of a newer format, and mark one that says nothing of its format."""
        about = self.read_sealed(STORE) or {"format": 1}
        if about["format"] > FORMAT:
            raise UserError(
                f"{self.field}'{self.shown}' was written by dermsearch {about['version']} in format {about['format']}, "
                f"and this one reads up to {FORMAT}: update dermsearch, or name another store"
            )
        if create and about["format"] < FORMAT:
            self.write(STORE, sealed({"format": FORMAT, "version": __version__}))

    # Stages ------------------------------------------------------------------------------------------------

    def commit(
        self,
        key: str,
        encoders: dict[str, Any],
        history: list[dict[str, Any]],
        about: dict[str, Any],
        parts: Artifact = MappingProxyType({}),
    ) -> None:
        """A stage exists from the moment its manifest is there. `parts` are what it hands on beside its encoders."""
        files = {ENCODERS: packed(encoders), HISTORY: json.dumps(history).encode()}
        files |= {f"{kind}.safetensors": packed(part.state) for kind, part in parts.items()}
        if parts:
            about = {**about, "parts": {kind: part.config for kind, part in parts.items()}}
        self.commit_files(f"stages/{key}", files, about)
        self.clear_partial(key)

    def keys(self, kind: str = "stages") -> set[str]:
        """The stages (or segments) that are there, finished or half written."""
        chosen = pafs.FileSelector(f"{self.root}/{kind}", allow_not_found=kind != "stages")
        return {info.base_name for info in self._patiently("read", lambda: self.fs.get_file_info(chosen))}

    def manifest(self, key: str) -> dict[str, Any] | None:
        """What the stage's maker wrote down, if all of its files are what they were."""
        return self.whole(f"stages/{key}")

    def encoders(self, key: str) -> dict[str, Any]:
        """The weights that a stage hands on."""
        from safetensors.torch import load

        return load(self._of_stage(key, ENCODERS)[0])

    def parts(self, key: str) -> dict[str, Part]:
        """What a stage hands on beside its encoders, by kind."""
        from safetensors.torch import load

        from dermsearch.models.artifact import Part

        configs = (self.read_sealed(f"stages/{key}/{MANIFEST}") or {}).get("parts", {})
        states = {kind: load(self._of_stage(key, f"{kind}.safetensors")[0]) for kind in configs}
        return {kind: Part(config, states[kind]) for kind, config in configs.items()}

    def history(self, key: str) -> list[dict[str, Any]]:
        """A row per epoch of a finished stage."""
        return json.loads(self._of_stage(key, HISTORY)[0])

    def _of_stage(self, key: str, name: str) -> tuple[bytes, dict[str, Any]]:
        """A file of a stage that somebody found whole before."""
        manifest = self.read_sealed(f"stages/{key}/{MANIFEST}")
        data = None if manifest is None else self.checked(f"stages/{key}", name, manifest)
        if data is None or manifest is None:
            what = f"{name} of stage {key} was damaged or deleted under the running study"
            raise StoreLost(f"{self.field}'{self.shown}': {what}; the same command makes it again and continues")
        return data, manifest

    # Segments ----------------------------------------------------------------------------------------------

    def commit_segment(self, key: str, about: dict[str, Any]) -> None:
        """The first epochs of a stage are trained and judged; the state after them stays."""
        self.commit_files(f"segments/{key}", {}, about)
        self.remove_file(f"partial/{key}/progress.json")

    def segment(self, key: str) -> dict[str, Any] | None:
        """What a segment's maker wrote down, whether or not its state is still there."""
        return self.whole(f"segments/{key}")

    # Judgements --------------------------------------------------------------------------------------------

    def scores(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a judgement, or None if there is none yet or it is damaged."""
        found = self.read_json(f"scores/{key}.json")
        if isinstance(found, list):  # of format 1
            return found
        judged = unsealed(found)
        return None if judged is None else judged["rows"]

    def write_scores(self, key: str, rows: list[dict[str, Any]], stage: str = "") -> None:
        """Keep a judgement, of that stage: it goes where its stage goes."""
        self.write(f"scores/{key}.json", sealed({"stage": stage, "rows": rows}))

    # Starting weights --------------------------------------------------------------------------------------

    def weights(self, content: str, backbone: str) -> dict[str, Any] | None:
        """A backbone's weights from a file of that hash, or None if nobody has put them here."""
        from safetensors.torch import load

        folder = f"weights/{content}-{backbone}"
        manifest = self.read_sealed(f"{folder}/{MANIFEST}")
        data = None if manifest is None else self.checked(folder, WEIGHTS, manifest)
        return None if data is None else load(data)

    def write_weights(self, content: str, backbone: str, weights: dict[str, Any]) -> None:
        """Keep them for every worker, on whatever node."""
        self.commit_files(f"weights/{content}-{backbone}", {WEIGHTS: packed(weights)}, {"backbone": backbone})

    # Stages under way --------------------------------------------------------------------------------------

    def progress(self, key: str) -> list[dict[str, Any]]:
        """The epochs that a stage under way has finished, to be looked at: no result comes from here."""
        try:
            found = json.loads(self.read(f"partial/{key}/progress.json", patient=False) or b"[]")
        except (ValueError, StoreLost):
            return []
        return found if isinstance(found, list) else []

    def write_progress(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Let the driver see how far a stage is."""
        self.write(f"partial/{key}/progress.json", json.dumps(rows).encode())

    def clear_partial(self, key: str) -> None:
        """Forget the state of a stage under way."""
        self.remove(f"partial/{key}")


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

        data = self.store.read(name)
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


def packed(tensors: dict[str, Any]) -> bytes:
    """Tensors as safetensors."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
