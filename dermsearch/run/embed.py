"""Features of pictures by an exported encoder: files are decoded by threads while the network works."""

from __future__ import annotations

import glob
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dermsearch.data.decode.bounds import BadImage
from dermsearch.data.decode.image import BY_EXTENSION, Form, decode
from dermsearch.data.store.case_store import CaseStore
from dermsearch.data.store.layout import MANIFEST
from dermsearch.data.views.augment import plain
from dermsearch.data.views.parallel import each
from dermsearch.data.views.pictures import Pictures
from dermsearch.errors import UserError, first_line
from dermsearch.models.encoders import backbone
from dermsearch.models.hub import CONFIG, MODEL
from dermsearch.regular import bytes_of
from dermsearch.run.exported import configuration, placed, spoilt, weights
from dermsearch.training.precision import autocast, resolve
from dermsearch.words import many

if TYPE_CHECKING:
    from rich.console import Console

AHEAD = 4  # batches that are decoded before their turn
AT_ONCE = 32  # images that a core looks at together, at most
Shown = tuple[str, np.ndarray | str]  # where a picture lies, and its pixels, or why it has none


def embed(
    model: Path, images: Sequence[str], out: Path, batch: int, threads: int | None, console: Console
) -> tuple[int, list[tuple[str, str]], float]:
    """Write the features; returns how many pictures were seen, which were not and why, and pictures a second."""
    if out.suffix != ".parquet":
        raise UserError(f"--output: '{out}' must end in .parquet")
    about, network = exported(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).to(memory_format=torch.channels_last)
    cast = autocast(device, resolve("auto", device.type == "cuda"))
    names, pictures = found(images, about)
    size, (mean, std) = about["pretrained_cfg"]["input_size"][-1], statistics(about)
    bad: list[tuple[str, str]] = []
    started, done = time.perf_counter(), 0
    schema = pa.schema([("image", pa.string()), ("embedding", pa.list_(pa.float32(), about["num_features"]))])
    with (
        placed(out) as file,
        pq.ParquetWriter(file, schema) as writer,
        console.status("Reading ...") as status,
        torch.no_grad(),
    ):
        for shown in batches(pictures, names, batch, threads or os.cpu_count() or 1):
            bad += [(name, pixels) for name, pixels in shown if isinstance(pixels, str)]
            good = [(name, pixels) for name, pixels in shown if not isinstance(pixels, str)]
            if good:
                canvas = on_canvas([pixels for _, pixels in good], mean, std, device, about["dermsearch"]["border"])
                features = seen(network, plain(canvas, size), cast).numpy()
                flat = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
                writer.write_table(pa.Table.from_arrays([pa.array([name for name, _ in good]), flat], schema=schema))
            done += len(shown)
            rate = done / (time.perf_counter() - started)
            left = (len(names) - done) / rate
            status.update(f"{done:,} of {len(names):,} pictures, {rate:,.0f} a second, about {left:.0f} s left")
        if len(bad) == len(names):
            raise UserError(f"{names[0]}: {bad[0][1]}; none of {many(len(names), 'picture')} could be read")
    return len(names) - len(bad), bad, len(names) / (time.perf_counter() - started)


def seen(network: torch.nn.Module, images: torch.Tensor, cast: Callable[[], Any]) -> torch.Tensor:
    """Features of images, in single precision; on a CPU a few at a time, by threads of one core each."""
    parts: dict[int, torch.Tensor] = {}
    step = len(images) if images.is_cuda else min(AT_ONCE, -(-len(images) // torch.get_num_threads()))

    def work(start: int) -> None:
        with torch.no_grad(), cast():  # both are a thread's own
            parts[start] = network(images[start : start + step]).float().cpu()

    each(work, range(0, len(images), step), images.device)
    return torch.cat([parts[start] for start in sorted(parts)])


def exported(model: Path) -> tuple[dict[str, Any], torch.nn.Module]:
    """The configuration and the network in a folder that `dermsearch export` wrote."""
    try:
        about = configuration(model)
        if "predictor" in about:
            raise UserError(f"{model}: is a predictor, which has no features to give: `dermsearch predict` asks it")
        if about["dermsearch"].get("format", "timm") == "onnx":
            raise UserError(f"{model}: is a graph in ONNX; export it with --format timm")
        network = backbone(about["architecture"])
        network.load_state_dict(weights(model, MODEL))
        if network.num_features != about["num_features"]:
            raise ValueError(f"its network has {network.num_features} features")
    except UserError:
        raise
    except FileNotFoundError:
        branches = [each.name for each in model.iterdir() if (each / CONFIG).is_file()] if model.is_dir() else []
        hint = f"; it has one for each of {', '.join(branches)}: name that folder" if branches else ""
        raise UserError(f"{model}: is no folder that `dermsearch export` wrote: it lacks {CONFIG}{hint}") from None
    except (ValueError, RuntimeError) as error:
        raise spoilt(model, first_line(error)) from None
    return about, network.eval()


def statistics(about: dict[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """By which pixels are normalised."""
    mean, std = (tuple(about["pretrained_cfg"][name]) for name in ("mean", "std"))
    return mean, std


def found(images: Sequence[str], about: dict[str, Any]) -> tuple[list[str], Callable[[int], np.ndarray]]:
    """The names of all pictures, and what gives the pixels of each."""
    own = about["dermsearch"]
    form = Form(own["side"] or about["pretrained_cfg"]["input_size"][-1], own["fit"] or "keep", own["cut"] or 0)
    names: list[str] = []
    readers: list[Callable[[], np.ndarray]] = []
    for given in images:
        if (Path(given) / MANIFEST).is_file():
            store = CaseStore(given)
            ids = store.strings("case")
            for modality in own["modalities"]:
                if modality not in store.modalities:
                    continue
                for row in np.flatnonzero(store.has(modality)).tolist():
                    names.append(f"{ids[row]} ({modality})")
                    readers.append(partial(kept, store, modality, row))
            continue
        for path in files(given):
            names.append(named(path))
            readers.append(partial(read, path, form))
    if not names:
        raise UserError(f"{', '.join(images)}: no picture is there")
    return names, lambda i: readers[i]()


def named(path: Path) -> str:
    """The path as it stands in a table: text, which no spreadsheet takes for a formula to run."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return f"./{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def kept(store: CaseStore, modality: str, row: int) -> np.ndarray:
    """A picture of a case store."""
    return store.pictures(modality, np.array([row]))[0][0]


def read(path: Path, form: Form) -> np.ndarray:
    """A picture of a file, as a case store of that form would keep it."""
    return decode(bytes_of(path), path.name, form).pixels


def files(given: str) -> list[Path]:
    """The image files that an argument means: itself, those in a folder and below it, or what a glob matches."""
    path = Path(given)
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix[1:].lower() in BY_EXTENSION and p.is_file())
    if path.is_file():
        return [path]
    matched = [Path(each) for each in sorted(glob.glob(given, recursive=True)) if Path(each).is_file()]
    if not matched:
        raise UserError(f"{given}: there is no such file, folder or case store, and nothing matches it")
    return matched


def batches(read: Callable[[int], np.ndarray], names: Sequence[str], size: int, threads: int) -> Iterator[list[Shown]]:
    """Batch by batch, decoded a few batches ahead."""

    def one(i: int) -> Shown:
        try:
            return names[i], read(i)
        except (BadImage, OSError, UserError) as error:
            return names[i], error.strerror or str(error) if isinstance(error, OSError) else str(error)

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[Shown]]] = deque()
        for start in range(0, len(names), size):
            waiting.append([pool.submit(one, i) for i in range(start, min(start + size, len(names)))])
            if len(waiting) > AHEAD:
                yield [each.result() for each in waiting.popleft()]
        while waiting:
            yield [each.result() for each in waiting.popleft()]


def on_canvas(
    pixels: Sequence[np.ndarray],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    device: torch.device,
    border: float,
) -> Pictures:
    """Pictures of any sizes on one canvas, less their borders."""
    sizes = np.array([p.shape[:2] for p in pixels])
    canvas = np.zeros((len(pixels), *sizes.max(0), 3), np.uint8)
    for target, picture in zip(canvas, pixels, strict=True):
        target[: picture.shape[0], : picture.shape[1]] = picture
    alike = bool((sizes == sizes[0]).all())
    frame = None if alike else np.hstack([np.zeros_like(sizes), sizes]).astype(np.int64)
    found = Pictures(torch.from_numpy(canvas).to(device).permute(0, 3, 1, 2), frame, mean, std)
    return found.cut(border) if border else found
