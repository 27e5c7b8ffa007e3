"""Release copies of chest radiographs, as their sources read them."""

from pathlib import Path

import pytest
from data import releases
from data.damage import encode, picture
from data.sources.test_releases import edit, read
from typer.testing import CliRunner

from dermsearch.cli.main import app
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError


def test_siim_covid(tmp_path: Path) -> None:
    release = read("siim_covid", releases.siim_covid(tmp_path))
    assert release.classes == {
        "diagnosis": ("negative", "typical", "indeterminate", "atypical"),
        "pneumonia": ("absent", "present"),
    }
    assert [r.labels["pneumonia"] for r in release.records] == ["present", "absent", "present"]
    assert [(r.case, r.labels["diagnosis"], r.lesion, r.patient) for r in release.records] == [
        ("000a312787f2", "typical", "00086460a852", ""),
        ("000c3a3f293f", "negative", "000c9c05fd14", ""),
        ("0012ff7358bc", "typical", "00086460a852", ""),
    ]
    assert release.records[0].images == {"xray": "train/00086460a852/9e8302230c91/000a312787f2.dcm"}


@pytest.mark.parametrize(
    ("uncertain", "unsure", "finding"),
    [(None, None, None), ("absent", "absent", None), ("present", "present", "pneumonia")],
)
def test_chexpert(uncertain: str | None, unsure: str | None, finding: str | None, tmp_path: Path) -> None:
    release = read("chexpert", releases.chexpert(tmp_path), uncertain=uncertain)
    assert not release.problems and release.classes["finding"] == ("none", "pneumothorax", "pneumonia", "cardiomegaly")
    assert len(release.classes) == 14 and release.classes["support_devices"] == ("absent", "present")
    told = {r.case: r for r in release.records}
    assert {case: r.labels["finding"] for case, r in told.items()} == {
        "patient00001__study1__view1_frontal": "none",
        "patient00002__study2__view1_frontal": "pneumothorax",  # the device does not count
        "patient00002__study1__view1_frontal": None,  # two findings
        "patient00003__study1__view1_frontal": finding,
        "patient64541__study1__view1_frontal": "cardiomegaly",
    }
    third = told["patient00003__study1__view1_frontal"]
    assert third.labels["pneumonia"] == unsure and third.labels["fracture"] == "absent"
    assert third.metadata == {"age": None, "sex": None, "view": "AP"} and third.patient == "patient00003"
    assert told["patient00002__study1__view1_frontal"].lesion == "patient00002/study1"
    assert told["patient64541__study1__view1_frontal"].images == {"xray": "valid/patient64541/study1/view1_frontal.jpg"}
    assert all(r.split is None for r in release.records)


def test_what_unsure_labels_become_is_in_the_stores_name(tmp_path: Path) -> None:
    folder, found = releases.chexpert(tmp_path / "release"), {}
    for number, path in enumerate(folder.rglob("*.jpg")):
        path.write_bytes(encode(picture(number)))
    for policy in ("", "unknown", "absent", "present"):
        words = ["data", "prepare", "chexpert", str(folder), "-o", str(tmp_path / f"s{policy}"), "--side", "32"]
        done = CliRunner().invoke(app, [*words, *(["--uncertain", policy] if policy else [])], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found[policy] = CaseStore(tmp_path / f"s{policy}")
    unsure = {
        policy: store.label("pneumonia")[store.strings("patient") == "patient00003"] for policy, store in found.items()
    }
    assert unsure == {"": [-1], "unknown": [-1], "absent": [0], "present": [1]}
    assert len({store.fingerprint for store in found.values()}) == 4
    other = CliRunner().invoke(app, ["data", "prepare", "siim_covid", "x", "-o", "y", "--uncertain", "absent"])
    assert str(other.exception) == "--uncertain: goes with chexpert only, whose labels say so"


def test_chexpert_paths_are_checked(tmp_path: Path) -> None:
    folder = releases.chexpert(tmp_path)
    edit(folder / "train.csv", "train/patient00001/", "train/")
    assert [p.reason for p in read("chexpert", folder).problems] == [
        "its Path has no train or valid, patient, study and view"
    ]


def test_chestxray14(tmp_path: Path) -> None:
    folder = releases.chestxray14(tmp_path)
    release = read("chestxray14", folder)
    assert [(r.case, r.labels["finding"], r.split, r.patient, r.metadata["age"]) for r in release.records] == [
        ("00000001_000", "cardiomegaly", "train", "1", 57.0),
        ("00000001_001", None, "train", "1", 58.0),
        ("00000002_000", "none", "train", "2", None),
        ("00000003_000", None, "test", "3", 81.0),
    ]
    assert release.records[1].labels["emphysema"] == "present" and release.records[1].labels["mass"] == "absent"
    assert release.records[2].images == {"xray": "images_002/images/00000002_000.png"}
    assert release.records[0].metadata["boxes"] == "cardiomegaly 225 547 87 79"
    (folder / "test_list.txt").unlink()
    edit(folder / "Data_Entry_2017.csv", "Hernia", "Hernias")
    again = read("chestxray14", folder)
    assert {r.split for r in again.records} == {None}
    assert [p.reason for p in again.problems] == ["'Hernias' is none of the 14 findings"]


def test_chestxray14_archives_may_lie_beside_what_they_unpacked_to(tmp_path: Path) -> None:
    folder = releases.chestxray14(tmp_path)
    (folder / "images_001.tar.gz").write_bytes(b"")
    assert all(r.images["xray"] for r in read("chestxray14", folder).records)


def test_siim_covid_study_table_is_checked(tmp_path: Path) -> None:
    folder = releases.siim_covid(tmp_path)
    edit(folder / "train_study_level.csv", "000c9c05fd14_study,1,0,0,0", "00086460a852_study,1,0,0,0")
    release = read("siim_covid", folder)
    assert [(p.case, p.reason) for p in release.problems] == [
        ("00086460a852", "a second row of this study; the first is used"),
        ("000c3a3f293f", "its study '000c9c05fd14' has no usable row in train_study_level.csv"),
    ]
    (folder / "train_study_level.csv").unlink()
    with pytest.raises(UserError, match=r"has no train_study_level.csv"):
        read("siim_covid", folder)
