"""The releases that name patients and tell much of them: SLICE-3D, HIBA; and BCN20000, from the same archive."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from data import releases
from data.writing import images, table
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.sources.base import SOURCES, CaseRecord, Columns, Release
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder


def read(name: str, folder: Path) -> Release:
    return SOURCES.find(name).read(Folder(folder), Columns())


def by_case(release: Release) -> dict[str, CaseRecord]:
    return {r.case: r for r in release.records}


def test_slice3d(tmp_path: Path) -> None:
    release = read("slice3d", releases.slice3d(tmp_path))
    assert release.classes == {"diagnosis": ("benign", "malignant")} and len(release.records) == 16
    cases = by_case(release)
    assert len({r.patient for r in release.records}) == 6
    cancer = [r for r in release.records if r.labels == {"diagnosis": "malignant"}]
    assert [(r.lesion, r.metadata["lesion_id"], r.metadata["iddx_full"]) for r in cancer] == [
        ("IL_0000001", "IL_0000001", "Malignant::Melanoma")
    ]
    first = cases["ISIC_0015671"]
    assert first.images == {"derm": "train-image/image/ISIC_0015671.jpg"} and first.patient == "IP_0000000"
    assert (first.metadata["age"], first.metadata["sex"], first.metadata["site"]) == (60.0, "male", "posterior torso")
    assert first.metadata["tbp_lv_location"] is None and first.metadata["tbp_tile_type"] == "3D: XP"
    assert isinstance(first.metadata["tbp_lv_symm_2axis_angle"], float)
    assert {r.metadata["age"] for r in release.records if r.patient == "IP_0000004"} == {None}


def test_both_layouts_of_slice3d_tell_the_same(tmp_path: Path) -> None:
    kaggle = read("slice3d", releases.slice3d(tmp_path / "kaggle"))
    archive = read("slice3d", releases.slice3d_archive(tmp_path / "archive"))
    assert kaggle.problems == archive.problems == []
    for one, other in zip(kaggle.records, archive.records, strict=True):
        assert (one.case, one.labels, one.lesion, one.patient) == (
            other.case,
            other.labels,
            other.lesion,
            other.patient,
        )
        assert dict(one.metadata) == dict(other.metadata)


def test_the_archives_slice3d_without_its_table_of_metadata(tmp_path: Path) -> None:
    folder = releases.slice3d_archive(tmp_path)
    (folder / "ISIC_2024_Training_Metadata.csv").unlink()
    with pytest.raises(UserError, match="has no table of metadata; it should have one, such as ISIC_2024_"):
        read("slice3d", folder)


def tile(seed: int) -> bytes:
    out = io.BytesIO()
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(small).resize((24, 24), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def order(release: Path, store: Path) -> Order:
    return Order("slice3d", str(release), str(store), Form(16), max_bad=0.2)


def test_tiles_in_an_hdf5_file_are_those_of_the_folder(tmp_path: Path) -> None:
    import h5py

    folder, packed = releases.slice3d(tmp_path / "folder"), releases.slice3d(tmp_path / "packed")
    names = sorted(p.stem for p in (folder / "train-image/image").glob("*.jpg"))
    with h5py.File(packed / "train-image.hdf5", "w") as file:
        for number, name in enumerate(names):
            (folder / f"train-image/image/{name}.jpg").write_bytes(tile(number))
            (packed / f"train-image/image/{name}.jpg").unlink()
            file[name] = np.void(tile(number)) if number % 2 else np.bytes_(tile(number))
    stores = []
    for release in (folder, packed):
        prepare(order(release, tmp_path / f"{release.name}-store"), on_cores(1), Watcher())
        stores.append(CaseStore(tmp_path / f"{release.name}-store"))
    one, other = stores
    assert len(one) == 16 and one.fingerprint == other.fingerprint
    assert set(other.columns) > {"tbp_lv_areaMM2", "age"} and other.columns["age"].level == "patient"
    with h5py.File(packed / "other.hdf5", "w") as file:
        for number, name in enumerate(names):
            if number not in (3, 4):
                file[name] = np.void(tile(number))
        file.create_group(names[4])  # no image, though it is called as one
    (packed / "other.hdf5").replace(packed / "train-image.hdf5")
    prepare(order(packed, tmp_path / "again"), on_cores(1), Watcher())
    left = CaseStore(tmp_path / "again").strings("case").tolist()
    assert len(left) == 14 and not {names[3], names[4]} & {*left}


def test_a_damaged_or_absent_hdf5_file(tmp_path: Path) -> None:
    release = releases.slice3d(tmp_path / "release")
    for path in (release / "train-image/image").glob("*.jpg"):
        path.unlink()
    assert {p.reason for p in read("slice3d", release).problems} == {"is missing: no image file of it is in the folder"}
    (release / "train-image.hdf5").write_bytes(b"not one")
    with pytest.raises(UserError, match=r"train-image.hdf5: is no readable HDF5 file"):
        prepare(order(release, tmp_path / "store"), on_cores(1), Watcher())


def test_hiba(tmp_path: Path) -> None:
    release = read("hiba", releases.hiba(tmp_path))
    assert release.classes["diagnosis"] == ("benign", "malignant")
    cases = by_case(release)
    assert cases["ISIC_0000001"].images == {"derm": "images/ISIC_0000001.jpg"}
    assert cases["ISIC_0000002"].images == {"clinic": "images/ISIC_0000002.jpg"}
    assert cases["ISIC_0000001"].lesion == cases["ISIC_0000002"].lesion == "IL_1"
    assert [r.metadata["skin_type"] for r in release.records] == [2.0, 2.0, 3.0, None, 6.0]
    assert [r.metadata["age"] for r in release.records] == [45.0, 45.0, 85.0, None, 30.0]
    assert [r.labels["condition"] for r in release.records] == [
        *("basal cell carcinoma", "basal cell carcinoma", "nevus", "vascular lesion", "melanoma")
    ]
    assert cases["ISIC_0000003"].metadata["personal_hx_mm"] == "true"
    assert cases["ISIC_0000003"].metadata["anatom_site_special"] == "acral NOS"


def test_an_older_export_and_a_kind_of_image_that_is_none(tmp_path: Path) -> None:
    table(
        tmp_path / "metadata.csv",
        [
            "isic_id,age_approx,anatom_site_general,benign_malignant,diagnosis,fitzpatrick_skin_type,image_type,"
            "lesion_id,patient_id,sex",
            "ISIC_1,50,anterior torso,malignant,melanoma,IV,dermoscopic,IL_1,IP_1,female",
            "ISIC_2,50,,benign,something new,4,dermoscopic,IL_2,IP_1,female",
            "ISIC_3,50,,benign,nevus,,x-ray,IL_3,IP_1,female",
        ],
    )
    images(tmp_path / "images", "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg")
    release = read("hiba", tmp_path)
    assert [p.reason for p in release.problems] == ["'x-ray' is no image_type that is known, such as dermoscopic"]
    assert [r.labels for r in release.records] == [
        {"diagnosis": "malignant", "condition": "melanoma"},
        {"diagnosis": "benign", "condition": None},
    ]
    assert [(r.metadata["site"], r.metadata["skin_type"]) for r in release.records] == [
        ("anterior torso", 4.0),
        (None, 4.0),
    ]


def test_bcn20000_in_a_table_of_any_name(tmp_path: Path) -> None:
    folder = releases.bcn20000(tmp_path)
    (folder / "metadata.csv").rename(folder / "bcn20000_metadata_2025-07-14.csv")
    release = read("bcn20000", folder)
    assert [r.labels["diagnosis"] for r in release.records] == ["benign", "benign", None, None]
    assert [r.labels["condition"] for r in release.records] == ["nevus", "nevus", "actinic keratosis", None]
    assert [r.lesion for r in release.records] == ["IL_1", "IL_1", "IL_2", ""]
    assert {r.patient for r in release.records} == {""}
    assert release.records[3].metadata["anatom_site_special"] == "oral or genital"
