"""SLICE-3D, the training part of ISIC 2024: 401,059 tiles of 15 x 15 mm from total body photographs of 1,042 patients.

    train-metadata.csv                                a row for each tile, as Kaggle has it
    train-image/image/*.jpg   or   train-image.hdf5   the tiles; the HDF5 file, which needs h5py, holds them by id

The archive's own layout does as well: ISIC_2024_Training_GroundTruth.csv (isic_id, malignant), a table of metadata
whose name holds `etadata`, ISIC_2024_Training_Supplement.csv and ISIC_2024_Training_Input/*.jpg.

The id of a case is its `isic_id`. Tiles are read as dermoscopic images. A lesion id is known of those that somebody had
doubts about, every malignant one among them, so it keeps images of one lesion together and is no input.
"""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern

from dermsearch.data.case import columns
from dermsearch.data.sources import base
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

KAGGLE, TRUTH = "train-metadata.csv", "ISIC_2024_Training_GroundTruth.csv"
SUPPLEMENT, HDF5 = "ISIC_2024_Training_Supplement.csv", "train-image.hdf5"
FOLDERS = ("train-image", "ISIC_2024_Training_Input", "images")
SHAPES = (
    *("areaMM2", "area_perim_ratio", "color_std_mean", "deltaA", "deltaB", "deltaL", "deltaLB", "deltaLBnorm"),
    *("eccentricity", "minorAxisMM", "nevi_confidence", "norm_border", "norm_color", "perimeterMM"),
    *("radial_color_std_max", "stdL", "stdLExt", "symm_2axis", "symm_2axis_angle", "x", "y", "z"),
)
COLOURS = ("A", "Aext", "B", "Bext", "C", "Cext", "H", "Hext", "L", "Lext")
NUMBERS = ("clin_size_long_diam_mm", *(f"tbp_lv_{name}" for name in (*COLOURS, *SHAPES)))
WORDS = ("tbp_tile_type", "tbp_lv_location", "tbp_lv_location_simple")
FOUND = "it tells what the pathologist found"
DENIED = {
    **{f"iddx_{n}": FOUND for n in ("full", 1, 2, 3, 4, 5)},
    **{f"mel_{n}": FOUND for n in ("mitotic_index", "thick_mm")},
    "lesion_id": "it is known of every malignant lesion and of one benign in twenty",
    "tbp_lv_dnn_lesion_confidence": "it is in the release for training images alone",
    "attribution": "it names the hospital, and hospitals differ in what they sent",
    "image_type": "it is the same for all",
}
# What is read as something else than metadata, and is refused by its own name too.
NO_METADATA = {"target": "it is the label", "isic_id": "it names the case", "patient_id": "it names the patient"}
PLACES = {name: place for place, name in enumerate(("age", *NUMBERS, "sex", "site", *WORDS, *DENIED))}
KEPT = ("anatom_site_general", *WORDS, *DENIED)
NEEDS = ("isic_id", "patient_id", "age_approx", "sex", "anatom_site_general", *NUMBERS, *WORDS)


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every tile of the metadata table."""
    top, table = base.locate(folder, [KAGGLE, TRUTH], ["slice3d", "isic-2024-challenge", "ISIC_2024"])
    collector = base.Collector({"diagnosis": {"0": "benign", "1": "malignant"}})
    truth: dict[str, str] = {}
    if table.endswith(TRUTH):
        for where, row in base.read_table(folder, table, ["isic_id", "malignant"], collector.problems):
            if truth.setdefault(row["isic_id"], row["malignant"]) != row["malignant"]:
                collector.problem(row["isic_id"], where, "a second row of this image says otherwise")
        table = metadata_table(folder, top)
    more = dict(supplement(folder, top, collector)) if truth else {}
    images = base.ImageFiles(folder, *(top + name for name in FOLDERS))
    inside = f"{top}{HDF5}" if not images.names and folder.kind(f"{top}{HDF5}") == "file" else ""
    for where, row in base.read_table(folder, table, NEEDS if truth else (*NEEDS, "target"), collector.problems):
        image = row["isic_id"]
        row |= more.get(image, {})
        collector.add(
            base.CaseRecord(
                case=image,
                images={"derm": f"{inside}/{image}.jpg" if inside else images.stem(image) or ""},
                labels={"diagnosis": class_of(truth.get(image, "") if truth else row["target"])},
                lesion=base.word(row.get("lesion_id", "")) or "",
                patient=intern(base.word(row["patient_id"]) or ""),
                metadata=base.TableRow(
                    PLACES,
                    [base.number(row["age_approx"]), *(base.number(row[name]) for name in NUMBERS)],
                    [base.sex(row["sex"]), *(kept(row.get(name, "")) for name in KEPT)],
                ),
                where=where,
            )
        )
    return collector.release()


def metadata_table(folder: Folder, top: str) -> str:
    """The archive's table of metadata, whose name is not always the same."""
    tables = [n for n in folder.names(top.rstrip("/")) if n.lower().endswith(".csv") and "metadata" in n.lower()]
    if len(tables) != 1:
        said = f"has {len(tables)} tables of metadata, {', '.join(tables)}" if tables else "has no table of metadata"
        raise UserError(f"{folder.where}: {said}; it should have one, such as ISIC_2024_Training_Metadata.csv")
    return tables[0]


def supplement(folder: Folder, top: str, collector: base.Collector) -> Iterator[tuple[str, dict[str, str]]]:
    """What the supplement tells of each image."""
    if folder.kind(top + SUPPLEMENT) == "file":
        for _, row in base.read_table(folder, top + SUPPLEMENT, ["isic_id"], collector.problems):
            yield row["isic_id"], {name: row[name] for name in DENIED if name in row}


def kept(text: str) -> str | None:
    """A word, of which a hundred thousand rows keep one copy."""
    known = base.word(text)
    return None if known is None else intern(known)


def class_of(text: str) -> str:
    """1.0 -> 1"""
    value = base.number(text)
    return text if value is None else f"{value:g}"


SOURCE = base.Source(
    name="slice3d",
    title="SLICE-3D: skin lesion image crops from 3D total body photography (ISIC 2024), training data",
    licence="CC BY-NC 4.0",
    citation="Kurtansky et al.: The SLICE-3D dataset: 400,000 skin lesion image crops extracted from 3D TBP for skin "
    "cancer detection. Scientific Data 11, 884, 2024",
    home="https://doi.org/10.34970/2024-slice-3d",
    read=read,
    expected=base.Expected(cases=401059, patients=1042, classes={"diagnosis": {"benign": 400666, "malignant": 393}}),
    notes=(
        "One image in a thousand is malignant: look at balanced accuracy and AUC.",
        "tbp_lv_nevi_confidence is what a network made of dermatologists' labels: leave it out to learn without them.",
        "H, Hext and symm_2axis_angle are angles, of which the largest and the smallest are neighbours.",
        "tbp_tile_type tells the camera's light, which the picture shows too: leave it out where it would be all that "
        "is learnt.",
    ),
    columns=(*base.shared("age", "sex", "site"), *columns("lesion", NUMBERS, WORDS)),
    denied=DENIED | NO_METADATA,
)
