"""Which metadata of the published data sets may be inputs: those that a reader of the image would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data import releases
from PIL import Image

from dermsearch.data.decode.image import Form
from dermsearch.data.prepare.engines import on_cores
from dermsearch.data.prepare.prepare import Order, prepare
from dermsearch.data.prepare.progress import Watcher
from dermsearch.data.sources.base import SOURCES
from dermsearch.data.store.case_store import CaseStore, check_columns
from dermsearch.data.store.splits import Split
from dermsearch.errors import UserError

ARCHIVE = {
    *("diagnosis_1", "diagnosis_2", "diagnosis_3", "diagnosis_confirm_type", "concomitant_biopsy", "melanocytic"),
}
TELLING = {  # columns that follow from the class, or were written by who knew it
    "ham10000": {"dx_type"},
    "derm7pt": {"seven_point_score", "management", "level_of_diagnostic_difficulty"},
    "pad_ufes_20": {"biopsed"},
    "ph2": {"histological diagnosis"},
    "chestxray14": {"boxes"},
    "fitzpatrick17k": {"qc"},
    "slice3d": {
        *("iddx_full", "iddx_1", "iddx_2", "iddx_3", "iddx_4", "iddx_5", "mel_mitotic_index", "mel_thick_mm"),
        *("lesion_id", "tbp_lv_dnn_lesion_confidence", "attribution", "image_type"),
    },
    "hiba": ARCHIVE,
    "bcn20000": ARCHIVE,
}
NO_METADATA = {"slice3d": {"target", "isic_id", "patient_id"}}  # labels and ids, which are kept as such
PATIENT = {
    *("age", "sex", "skin_type", "smoke", "drink", "pesticide", "background_father", "background_mother"),
    *("skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system"),
}
OWN = {"age", "sex", "skin_type", "family_hx_mm", "personal_hx_mm"}  # of HIBA's patients
LESION = {"site", "elevation", "diameter_1", "diameter_2", "itch", "grew", "hurt", "changed", "bleed"}
TILE = {"tbp_tile_type", "tbp_lv_location", "tbp_lv_location_simple"}
SITES = {"anatom_site_2", "anatom_site_special", "image_type"}
MEASURED = {  # by the camera's own program, of SLICE-3D
    "clin_size_long_diam_mm",
    *(
        f"tbp_lv_{name}"
        for names in (
            "A Aext B Bext C Cext H Hext L Lext areaMM2 area_perim_ratio color_std_mean deltaA deltaB deltaL deltaLB",
            "deltaLBnorm eccentricity minorAxisMM nevi_confidence norm_border norm_color perimeterMM",
            "radial_color_std_max stdL stdLExt symm_2axis symm_2axis_angle x y z",
        )
        for name in names.split()
    ),
}
VIEW = {"view"}  # how a radiograph was taken
INPUTS = {
    "ham10000": {"age", "sex", "site"},
    "chexpert": {"age", "sex", "view"},
    "chestxray14": {"age", "sex", "view"},
    "isic2019": {"age", "sex", "site"},
    "isic2020": {"age", "sex", "site"},
    "derm7pt": {"sex", "site", "elevation"},
    "fitzpatrick17k": {"skin_type"},
    "pad_ufes_20": PATIENT | LESION,
    "slice3d": {"age", "sex", "site"} | MEASURED | TILE,
    "hiba": OWN | SITES | {"site"},
    "bcn20000": {"age", "sex", "site", "anatom_site_special"},
}


@pytest.mark.parametrize("name", SOURCES.shipped)
def test_what_is_allowed_and_what_is_denied(name: str) -> None:
    source = SOURCES.find(name)
    assert set(source.denied) == TELLING.get(name, set()) | NO_METADATA.get(name, set())
    assert {column.name for column in source.columns} == INPUTS.get(name, set())
    for column in source.columns:
        assert column.name in (PATIENT | OWN if column.level == "patient" else LESION | MEASURED | TILE | SITES | VIEW)
        numbers = {"age", "skin_type", "diameter_1", "diameter_2", *MEASURED}
        assert (column.kind == "number") == (column.name in numbers)


@pytest.mark.parametrize(
    "write",
    [
        *(releases.ham10000, releases.derm7pt, releases.pad_ufes_20),
        *(releases.slice3d, releases.hiba, releases.bcn20000),
    ],
)
def test_a_store_refuses_what_tells_the_class(write, tmp_path: Path) -> None:
    name, release = write.__name__, write(tmp_path / "release")
    for number, path in enumerate(p for p in release.rglob("*") if p.suffix.lower() in (".jpg", ".png")):
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(noise).save(path)  # large enough, and no two the same
    order = Order(name, str(release), str(tmp_path / "s"), Form(16), split=Split("image"), allow_missing=True)
    prepare(order, on_cores(1), Watcher())
    store = CaseStore(tmp_path / "s")
    assert set(store.columns) == INPUTS[name]
    check_columns(store, list(INPUTS[name]))
    assert TELLING[name] <= {*store.about["metadata"]}  # kept, to be looked at
    assert not NO_METADATA.get(name, set()) & {*store.about["metadata"]}
    for column in TELLING[name] | NO_METADATA.get(name, set()):
        with pytest.raises(UserError, match=f"^data.metadata: '{column}' is no input: it "):
            check_columns(store, [column])
