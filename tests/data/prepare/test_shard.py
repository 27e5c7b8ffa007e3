"""Images decoded together: few at a time where their files are large, and the same entries either way."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare import shard
from dermsearch.storage.files import Folder


def test_large_files_are_decoded_one_by_one_and_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
        Image.new("L", (40, 30), 255).save(tmp_path / f"m{number}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    records = [{"row": n, "images": {"derm": f"{n}.png"}, "mask": f"m{n}.png"} for n in range(3)]
    release, found = Folder(tmp_path), []
    for most in (shard.TOGETHER_BYTES, 1):
        monkeypatch.setattr(shard, "TOGETHER_BYTES", most)
        groups = list(shard.in_groups(release, records))
        assert [len(group) for group in groups] == ([1, 1, 1] if most == 1 else [3])
        entries = [e for group in groups for e in shard.read_entries(release, group, Form(20), True)]
        found.append([asdict(e) for e in entries])
    assert found[0] == found[1]
    assert [sorted(e["planes"]) for e in found[0]] == [["derm", "mask"], [], ["derm", "mask"]]
    assert [note[:2] for note in found[0][1]["notes"]] == [("1.png", "left out")]
