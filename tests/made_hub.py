"""A cache of the Hugging Face hub as its client would have left it, with made-up weights in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

REPOSITORY = "timm/test_resnet.r160_in1k"  # of timm's own choice for test_resnet
Fill = Callable[..., Path]


def repository(
    cache: Path, name: str = REPOSITORY, network: str = "test_resnet", file: str = "model.safetensors", seed: int = 0
) -> Path:
    """Make one; returns where its weights lie."""
    torch.manual_seed(seed)
    state = timm.create_model(network).state_dict()
    commit = hashlib.sha1(f"{name}{seed}".encode()).hexdigest()
    folder = cache / f"models--{name.replace('/', '--')}"
    path = folder / "snapshots" / commit / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (path.parent / "config.json").write_text(json.dumps({"architecture": network}))
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Makes repositories in a cache, beside which nothing can be had."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return lambda *told, **more: repository(tmp_path / "hub", *told, **more)
