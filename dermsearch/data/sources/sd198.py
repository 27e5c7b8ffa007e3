"""SD-198: 6,584 clinical images of 198 skin diseases. SD-260, its extension, is read where it has the same folders.

    images/<class>/*.jpg                 the folder names the class
    8_2_split/train_<fold>.txt           lines `path label`, the path below images/, the label a number
    8_2_split/val_<fold>.txt             the published held-out part, read as `test`

Without 8_2_split (SD-260) the class folders are read, with no split. The id of a case is its path below images/,
with __ for /.
"""

from __future__ import annotations

from typing import NamedTuple

from dermsearch.data.sources import base
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

FILES = {"train": "train_{}.txt", "test": "val_{}.txt"}


class Photo(NamedTuple):
    """What a file of the split says of an image."""

    path: str
    label: int
    split: str
    where: str


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of one published fold, or of the class folders where no split is published."""
    top, _ = base.locate(folder, ["images"], ["SD-198", "sd-198", "SD-260", "sd-260"])
    images = base.ImageFiles(folder, f"{top}images")
    if folder.kind(f"{top}8_2_split") == "none":
        return class_folders(images, f"{top}images/")
    return fold(folder, top, columns.fold, images)


def fold(folder: Folder, top: str, number: int, images: base.ImageFiles) -> base.Release:
    """The images that exactly one of the fold's two files names."""
    unread: list[base.Problem] = []
    files = {split: file.format(number) for split, file in FILES.items()}
    lines = [line for split, file in files.items() for line in read_lines(folder, top, file, split, unread)]
    splits: dict[str, set[str]] = {}
    names: dict[int, str] = {}
    for line in sorted(lines, key=lambda line: "/" not in line.path):  # those that name their class come first
        splits.setdefault(line.path, set()).add(line.split)
        names.setdefault(line.label, line.path.split("/")[0] if "/" in line.path else f"class {line.label}")
    collector = base.Collector({"diagnosis": {names[label]: names[label] for label in sorted(names)}})
    collector.problems += unread
    for line in lines:
        name = names[line.label]
        if len(splits[line.path]) > 1:
            collector.problem(base.path_id(line.path), line.where, f"is in both {' and '.join(files.values())}")
        elif "/" in line.path and not line.path.startswith(f"{name}/"):
            collector.problem(base.path_id(line.path), line.where, f"class {line.label} is {name} in a line before")
        else:
            collector.add(
                base.CaseRecord(
                    case=base.path_id(line.path),
                    images={"clinic": images.path(f"{top}images/{line.path}")},
                    labels={"diagnosis": name},
                    split=line.split,
                    where=line.where,
                )
            )
    listed = {images.path(f"{top}images/{path}") for path in splits}
    for path in images.names:
        if path not in listed:
            case = base.path_id(path.removeprefix(f"{top}images/"))
            collector.problem(case, path, f"is in none of {', '.join(files.values())}")
    return collector.release()


def read_lines(folder: Folder, top: str, file: str, split: str, unread: list[base.Problem]) -> list[Photo]:
    """The lines `path label` of one file; a path may have spaces."""
    if folder.kind(f"{top}8_2_split/{file}") == "none":
        there = [n.rsplit("/", 1)[-1] for n in folder.names(f"{top}8_2_split")]
        raise UserError(f"{folder.where}: {top}8_2_split has no {file}; it has {', '.join(there) or 'nothing'}")
    found = []
    for n, text in enumerate(folder.text(f"{top}8_2_split/{file}").splitlines(), 1):
        path, _, label = text.strip().rpartition(" ")
        if path and base.inside(path) and label.isascii() and label.isdigit():
            found.append(Photo(path.strip(), int(label[:9]), split, f"8_2_split/{file}, line {n}"))
        elif text.strip():
            reason = "is no path inside images/ and number of a class"
            unread.append(base.Problem(base.path_id(text.strip()), f"8_2_split/{file}, line {n}", reason))
    return found


def class_folders(images: base.ImageFiles, start: str) -> base.Release:
    """Every image; one outside the class folders has no class."""
    names = [path.removeprefix(start) for path in images.names]
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    collector = base.Collector({"diagnosis": {name: name for name in classes}})
    for path, name in zip(images.names, names, strict=True):
        labels = {"diagnosis": name.split("/")[0] if "/" in name else None}
        collector.add(base.CaseRecord(base.path_id(name), {"clinic": path}, labels, where=path))
    return collector.release()


SOURCE = base.Source(
    name="sd198",
    title="SD-198 (and SD-260): clinical skin disease images",
    licence="for research, on request",
    citation="Sun, Yang, Sun, Wang: A Benchmark for Automatic Visual Classification of Clinical Skin Disease Images. "
    "ECCV, 2016",
    home="http://xiaopingwu.cn/assets/projects/sd-198/",
    read=read,
    expected=base.Expected(cases=6584),
    notes=(
        "The published folds have a training and a held-out part; the held-out part is read as test, and a validation "
        "part is taken from the training part.",
        "Neither patients nor lesions are named.",
        "The layout of SD-260 was not seen: class folders below images/ are read, and its counts are not checked.",
    ),
)
