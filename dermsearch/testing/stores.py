"""What a place must keep to that stages are stored in: a folder, or whatever pyarrow opens by a URI."""

from __future__ import annotations

import uuid
from pathlib import Path

import torch

from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.storage.files import MANIFEST
from dermsearch.storage.stages import HISTORY, SET_ASIDE, PartialStage, StageStore, file_of
from dermsearch.testing.claims import claim

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3)}
PARTS = {ENCODERS: Part({"of": "a check"}, WEIGHTS)}


def check_store(where: str | Path | StageStore) -> None:
    """A store that may be written to; what the check wrote is removed again."""
    store = where if isinstance(where, StageStore) else StageStore(str(where))
    key = f"check-{uuid.uuid4().hex}"
    try:
        files(store, key)
        stage(store, key)
        partial(store, key)
    finally:
        aside = {name.split("/partial/")[0] for name in store.names(SET_ASIDE) if f"/partial/{key}/" in name}
        for name in (key, f"stages/{key}", f"partial/{key}", f"scores/{key}.json", *aside):
            store.forget(name)


def files(store: StageStore, key: str) -> None:
    """Files appear whole, are replaced whole, are listed, and are gone when they are removed."""
    name = f"{key}/deep/file"
    claim(store.get(name) is None and store.kind(name) == "none", "what was not written is not there")
    for data in (b"first and longer", b"second", b""):
        store.write(name, data)
        claim(store.get(name) == data, f"a file holds what was written last, {data!r}, not {store.get(name)!r}")
    claim(store.kind(name) == "file" and store.names(key) == [name], "a file is listed by its name")
    store.remove(name)
    claim(store.get(name) is None and not store.names(key), "a file that was removed is gone")


def stage(store: StageStore, key: str) -> None:
    """A stage comes back to the bit; what is damaged or gone is no stage, and can be made again."""
    claim(store.manifest(key) is None, "a stage that was not committed is not there")
    for name in (file_of(ENCODERS), HISTORY, MANIFEST):
        store.commit(key, PARTS, [{"epoch": 1}], {"seconds": 1.0})
        manifest = store.manifest(key)
        claim(manifest is not None and manifest["seconds"] == 1.0, "a committed stage is there")
        part = store.artifact(key)[ENCODERS]
        kept = part.config == PARTS[ENCODERS].config and torch.equal(part.state["w"], WEIGHTS["w"])
        claim(kept and store.history(key) == [{"epoch": 1}], "a committed stage comes back to the bit")
        path = f"stages/{key}/{name}"
        whole = store.read(path)
        for damaged in (whole[:-3], whole[:5] + bytes([whole[5] ^ 1]) + whole[6:]):
            store.write(path, damaged)
            claim(store.manifest(key) is None, f"a stage whose {name} is damaged is none")
        store.remove(path)
        claim(store.manifest(key) is None, f"a stage without its {name} is none")
    store.commit(key, PARTS, [], {})
    claim({key} <= store.keys(), "stages are listed by their keys")
    row = {"split": "val", "label": "mean", "class": "", "metric": "auc", "value": 0.5}
    store.write_judgement(key, {"rows": [row], "confusions": [], "seconds": 1.0}, key)
    claim(store.judgement(key, key) is not None, "a judgement comes back")


def partial(store: StageStore, key: str) -> None:
    """The state of a stage under way comes back, from another process too; half a state is none."""
    state = PartialStage(store, key)
    claim(state.load() is None, "a stage that was not begun has no state")
    for epoch in (1, 2):
        state.save({"learner": {"w": WEIGHTS["w"] * epoch}, "history": "[]"})
        told = PartialStage(type(store)(store.address), key).load()
        kept = told is not None and torch.equal(told["learner"]["w"], WEIGHTS["w"] * epoch)
        claim(kept, f"the state of epoch {epoch} comes back to whoever opens the store")
    store.write(state.name, store.read(state.name)[:-10])
    claim(state.load() is None, "half a state is none")
