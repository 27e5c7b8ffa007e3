"""A stage store on S3 whose network goes away under a run: it waits, or ends in one sentence, and loses nothing."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path

import pytest
import torch
from s3 import serving

from dermsearch.models.artifact import ENCODERS, Part
from dermsearch.storage import files
from dermsearch.storage.files import StoreLost
from dermsearch.storage.stages import StageStore

PARTS = {ENCODERS: Part({}, {"w": torch.ones(3)})}


class Line:
    """A network line to a server, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self.server, self.open, self.pairs = port, True, []  # type: ignore[var-annotated]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def cut(self) -> None:
        """From here on nobody comes through."""
        self.open = False
        for one in self.pairs:
            for end in one:
                end.close()
        self.pairs.clear()

    def mend(self) -> None:
        """From here on everybody does."""
        self.open = True

    def _answer(self) -> None:
        while True:
            here, _ = self.listener.accept()
            if not self.open:
                here.close()
                continue
            pair = (here, socket.create_connection(("127.0.0.1", self.server)))
            self.pairs.append(pair)
            threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        across = {one: other, other: one}
        try:
            while True:
                for end in select.select([one, other], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        raise OSError
                    across[end].sendall(data)
        except (OSError, ValueError):  # closed, by an end or by the cut
            one.close()
            other.close()


def test_a_line_that_is_cut_is_one_sentence_or_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    with serving(tmp_path / "log.txt") as server:
        line = Line(server.port)
        store = StageStore(f"s3://bucket/store?endpoint_override=127.0.0.1:{line.port}&scheme=http")
        write = StageStore._write

        def cut_before_the_manifest(self: StageStore, name: str, data: bytes) -> None:
            if name.endswith("manifest.json"):
                line.cut()
            write(self, name, data)

        def mend(seconds: float) -> None:
            waited.append(seconds)
            line.mend()

        with monkeypatch.context() as patch:
            patch.setattr(StageStore, "_write", cut_before_the_manifest)
            patch.setattr(StageStore, "waits", ())
            with pytest.raises(StoreLost, match=r"^compute\.store: 's3://.*cannot be written to") as told:
                store.commit("k", PARTS, [], {"node": "a"})
        assert "\n" not in str(told.value)
        monkeypatch.setattr(files.time, "sleep", mend)
        assert store.manifest("k") is None and waited == [1], "what has no manifest does not count"
        store.commit("k", PARTS, [], {"node": "b"})
        line.cut()
        assert store.manifest("k") is not None and waited == [1, 1], "out of reach is not missing"
