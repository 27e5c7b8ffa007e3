"""Weights that somebody else pre-trained, by name: from a hub's cache that the tests write, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
from huggingface_hub import constants, errors
from made_hub import REPOSITORY, Fill
from made_hub import fill as fill

from dermsearch.errors import UserError
from dermsearch.models.hub import architecture_of, located
from dermsearch.models.weights import fingerprint, read_weights

NAME = "test_resnet"
UNKNOWN = next(each for each in timm.list_models("resnet*") if not timm.list_pretrained(f"{each}.*"))


@pytest.mark.parametrize("weights", ["imagenet", "r160_in1k", "test_resnet.r160_in1k", f"hf-hub:{REPOSITORY}"])
def test_names_are_found_in_the_cache(weights: str, fill: Fill) -> None:
    path = fill()
    found = located(weights, NAME)
    assert found.path == path
    assert REPOSITORY in found.origin and path.parent.name[:12] in found.origin and "the hub's cache" in found.origin
    wanted = timm.create_model(NAME, num_classes=0).state_dict()
    assert read_weights(str(found.path), NAME, weights).keys() == wanted.keys()


def test_content_decides_on_the_key_and_not_the_name(fill: Fill, tmp_path: Path) -> None:
    path, other = fill(), fill("me/other", seed=1)
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(path.read_bytes())
    hashes = [fingerprint(str(located(w, NAME).path)) for w in ("imagenet", str(copied), "hf-hub:me/other")]
    assert hashes[0] == hashes[1] != hashes[2] == fingerprint(str(other))


def test_a_revision_and_another_kind_of_file(fill: Fill) -> None:
    first, second = fill("me/net", seed=1), fill("me/net", file="pytorch_model.bin", seed=2)
    assert located("hf-hub:me/net", NAME).path == second
    assert located(f"hf-hub:me/net@{first.parent.name}", NAME).path == first


def test_an_exported_folder_is_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": NAME}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert located(str(tmp_path), NAME).path == tmp_path / "model.safetensors"


@pytest.mark.parametrize("weights, name", [
    ("imagenet", None), ("r160_in1k", None), ("test_resnet.r160_in1k", NAME), (f"hf-hub:{REPOSITORY}", NAME),
    ("somewhere/w.pth", None),
])  # fmt: skip
def test_what_says_its_architecture(weights: str, name: str | None, fill: Fill, tmp_path: Path) -> None:
    path = fill()
    assert architecture_of(weights) == name
    assert architecture_of(str(path)) == architecture_of(str(path.parent)) == NAME


@pytest.mark.parametrize("weights, name, told", [
    ("imagenet", NAME, "timm/test_resnet.r160_in1k is not in the hub's cache"),
    ("imagenet", NAME, "(HF_HUB_OFFLINE is set); fetch it where there is a network, by `hf download timm/test_resnet"),
    ("hf-hub:me/none", NAME, "me/none is not in the hub's cache"),
    ("hf-hub:no such", NAME, "the hub has no repository 'no such'"),
    ("a1_in2k", "resnet18", "none of timm's weights for resnet18; did you mean 'a1_in1k'?"),
    ("resnet50.a1_in1k", "resnet18", "are weights of resnet50, not of encoder.name, 'resnet18'"),
    ("weights.onnx", "resnet18", "is no file (.safetensors, .pth, .pt) and none of timm's weights"),
    ("imagenet", UNKNOWN, "timm has no pretrained weights for resnet"),
])  # fmt: skip
def test_what_cannot_be_had_is_one_sentence(weights: str, name: str, told: str, fill: Fill) -> None:
    with pytest.raises(UserError) as error:
        located(weights, name)
    text = str(error.value)
    assert text.startswith(f"encoder.weights: '{weights}'") and told in text and text.isprintable()


@pytest.mark.parametrize("raised, told", [
    (errors.LocalEntryNotFoundError("a\nlong story"), "cannot be downloaded (no answer from https://"),
    (OSError("the cache cannot be written to"), "cannot be downloaded (the cache cannot be written to)"),
])  # fmt: skip
def test_no_network_is_one_sentence(raised: Exception, told: str, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*asked: Any, **more: Any) -> str:
        raise raised

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError) as error:
        located("imagenet", NAME)
    assert told in str(error.value) and str(error.value).isprintable()


def test_it_is_downloaded_once(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo_id: str, filename: str, revision: str | None) -> str:
        asked.append((repo_id, filename))
        if filename == "model.safetensors":
            raise errors.RemoteEntryNotFoundError("no such file", response=FakeResponse())  # type: ignore[arg-type]
        return str(fill(repo_id, file=filename))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    first, second = located("imagenet", NAME), located("imagenet", NAME)
    assert first == second and asked == [(REPOSITORY, "model.safetensors"), (REPOSITORY, "pytorch_model.bin")]


class FakeResponse:
    headers: dict[str, str] = {}  # noqa: RUF012
    status_code = 404
    request = None


def test_a_repository_without_weights(fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*asked: Any, **more: Any) -> str:
        raise errors.RemoteEntryNotFoundError("no such file", response=FakeResponse())  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", none)
    with pytest.raises(UserError, match=r"me/net has no model\.safetensors or pytorch_model\.bin"):
        located("hf-hub:me/net", NAME)
