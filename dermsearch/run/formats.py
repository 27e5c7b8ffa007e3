"""What an encoder leaves as: weights by timm's names, by torchvision's, or a graph in ONNX; and the lines that load it.

All hold the same network: what is written for others than timm is run beside it before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from dermsearch.errors import UserError, first_line
from dermsearch.models.hub import MODEL
from dermsearch.models.weights import misfit

GRAPH = "model.onnx"
CLASSIFIERS = ("fc", "classifier", "head")  # by which names torchvision's networks have theirs


def to_timm(network: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    """The network's own weights, without a classifier."""
    put_weights(network.state_dict(), folder / MODEL)


def to_torchvision(network: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    """The same, where torchvision has a network that computes the same from the same names."""
    name, state = about["architecture"], network.state_dict()
    said = f"--format torchvision: has no network that is timm's {name}"
    try:
        twin: Any = torchvision.models.get_model(name, weights=None)
    except ValueError:
        raise UserError(f"{said}; choose timm or onnx") from None
    without_classifier(twin)
    if misfit(state, twin.state_dict()):
        raise UserError(f"{said}, by the same names; choose timm or onnx")
    twin.load_state_dict(state)
    images = example(about)
    with torch.inference_mode():
        if not torch.allclose(twin.eval()(images), network(images), atol=1e-4, rtol=1e-4):
            raise UserError(f"{said}: it computes something else; choose timm or onnx")
    to_timm(network, folder, about)


def to_onnx(network: nn.Module, folder: Path, about: Mapping[str, Any]) -> None:
    """A graph for any number of images of the study's size."""
    try:
        import onnxscript  # noqa: F401  # torch writes graphs by it
    except ImportError:
        raise UserError("--format onnx: needs packages that are not installed: pip install onnx onnxscript") from None
    try:
        torch.onnx.export(
            network,
            (example(about),),
            str(folder / GRAPH),
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}],
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # of many kinds: what a network does cannot be written down
        raise UserError(f"--format onnx: {about['architecture']} cannot be written: {first_line(error)}") from None


def put_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write them as .safetensors that timm reads too."""
    try:
        save_file({name: w.contiguous() for name, w in state.items()}, path, {"format": "pt"})
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written: {first_line(error)}") from None


FORMATS: Mapping[str, Callable[[nn.Module, Path, Mapping[str, Any]], None]] = {
    "timm": to_timm,
    "torchvision": to_torchvision,
    "onnx": to_onnx,
}


def without_classifier(network: Any) -> None:
    """Let a network of torchvision give features."""
    for name in CLASSIFIERS:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())


def example(about: Mapping[str, Any]) -> torch.Tensor:
    """Images of the size that a network wants, always the same."""
    return torch.randn(2, *about["pretrained_cfg"]["input_size"], generator=torch.Generator().manual_seed(0))


def loading(about: Mapping[str, Any]) -> list[str]:
    """The lines that load it, without dermsearch; they give `features` of an `image` of PIL."""
    config = about["pretrained_cfg"]
    name, size, width = about["architecture"], config["input_size"][-1], about["num_features"]
    form = about["dermsearch"]["format"]
    see = [
        "from torchvision.transforms import v2",
        f"see = v2.Compose([v2.PILToTensor(), v2.Resize(({size}, {size})), v2.ToDtype(torch.float32, scale=True),",
        f"                  v2.Normalize({tuple(config['mean'])}, {tuple(config['std'])})])",
    ]
    if form == "torchvision":
        return [
            "import torch, torchvision",
            "from safetensors.torch import load_file",
            *see,
            "",
            f'model = torchvision.models.get_model("{name}", weights=None)',
            f"model.{classifier_of(name)} = torch.nn.Identity()",
            f'model.load_state_dict(load_file("FOLDER/{MODEL}"))',
            f'features = model.eval()(see(image.convert("RGB")).unsqueeze(0))   # (1, {width})',
        ]
    if form == "onnx":
        return [
            "import onnxruntime, torch",
            *see,
            "",
            f'session = onnxruntime.InferenceSession("FOLDER/{GRAPH}")',
            'images = see(image.convert("RGB")).unsqueeze(0).numpy()   # any number of them',
            f'(features,) = session.run(None, {{"images": images}})   # (1, {width})',
        ]
    given = "".join(f", {option}={value}" for option, value in about["model_args"].items())
    return [
        "import timm",
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()   # this folder',
        f'# or timm.create_model("{name}", num_classes=0{given},',
        f'#                      checkpoint_path="FOLDER/{MODEL}")',
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)",
        f"features = model(transform(image).unsqueeze(0))   # (1, {width})",
    ]


def classifier_of(name: str) -> str:
    """What torchvision calls a network's classifier."""
    with torch.device("meta"):
        twin = torchvision.models.get_model(name, weights=None)
    return next(each for each in CLASSIFIERS if hasattr(twin, each))
