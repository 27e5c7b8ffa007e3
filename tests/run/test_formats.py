"""What an encoder leaves as beside timm's weights: every form gives the same features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from dermsearch.errors import UserError
from dermsearch.models.encoders import backbone
from dermsearch.run import export
from dermsearch.run.export import begin
from dermsearch.run.formats import FORMATS, GRAPH, loading

SIZE = 32


def about_of(name: str, form: str) -> dict[str, Any]:
    """What a card's lines are made from."""
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    config = {"input_size": [3, SIZE, SIZE], **statistics}
    told = {"architecture": name, "num_features": 1, "model_args": {}, "pretrained_cfg": config}
    return {**told, "dermsearch": {"format": form}}


def network_of(name: str) -> Any:
    """A backbone whose statistics of BatchNorm are not those that it begins with."""
    torch.manual_seed(3)
    made = backbone(name)
    made.train()(torch.randn(8, 3, SIZE, SIZE))
    return made.eval()


def by_card(name: str, form: str, folder: Path) -> Callable[[Tensor], Tensor]:
    """Run the card's lines, then what they made on given images."""
    lines = "\n".join(loading(about_of(name, form))).replace("FOLDER", str(folder))
    made: dict[str, Any] = {"image": Image.new("RGB", (60, 45), (200, 90, 30))}
    exec(lines, made)
    assert made["features"].shape[0] == 1
    if form == "onnx":
        return lambda x: torch.from_numpy(made["session"].run(None, {"images": x.numpy()})[0])
    return lambda x: made["model"](x).detach()


@pytest.mark.parametrize(
    ("name", "form", "tolerance"),
    [
        ("resnet18", "torchvision", 1e-5),
        pytest.param("test_resnet", "onnx", 1e-4, marks=pytest.mark.slow),
        pytest.param("test_vit", "onnx", 1e-4, marks=pytest.mark.slow),
    ],
)
def test_the_same_features_by_the_lines_of_the_card(name: str, form: str, tolerance: float, tmp_path: Path) -> None:
    network = network_of(name)
    FORMATS[form](network, tmp_path, about_of(name, form))
    seen = by_card(name, form, tmp_path)
    for count in (1, 3):
        x = torch.randn(count, 3, SIZE, SIZE)
        with torch.no_grad():
            np.testing.assert_allclose(seen(x).numpy(), network(x).numpy(), atol=tolerance, rtol=tolerance)
    assert (tmp_path / GRAPH).exists() == (form == "onnx")


def test_a_form_that_was_refused_leaves_room_for_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "derm").mkdir(parents=True)
    with pytest.raises(UserError, match="there is no folder 'nowhere'"):
        begin(Path("nowhere"), out, None, None, None)
    (out / "derm" / "config.json").touch()
    with pytest.raises(UserError, match="out: is there already"):
        begin(Path("nowhere"), out, None, None, None)


def test_the_beginning_of_a_key_names_one_stage_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, results = [SimpleNamespace(keys=("aa1", "ab2"), seeds=(0, 1))], SimpleNamespace(folder="results")
    monkeypatch.setattr(export, "leaderboard", lambda results: rows)
    found = export.choose(results, None, "ab")  # type: ignore[arg-type]
    assert (found.key, found.seed) == ("ab2", 1)
    for stage, said in {
        "a": "2 stages of results begin with 'a'",
        "b": "no finished stage of results begins with",
    }.items():
        with pytest.raises(UserError, match=f"^--stage: {said}"):
            export.choose(results, None, stage)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["test_resnet", "resnet26", "convnext_tiny"])
def test_torchvision_has_not_every_network(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--format torchvision: has no network"), torch.device("meta"):
        FORMATS["torchvision"](timm.create_model(name, num_classes=0), tmp_path, about_of(name, "torchvision"))
    assert not list(tmp_path.iterdir())


def test_onnx_may_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install onnx onnxscript"):
        FORMATS["onnx"](torch.nn.Identity(), tmp_path, about_of("x", "onnx"))
