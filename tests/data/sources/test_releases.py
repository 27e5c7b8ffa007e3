"""What each public release is read into, and what can be wrong with its files."""

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
from data import releases, writing

from dermsearch.data.sources.base import SOURCES, CaseRecord, Columns, Release
from dermsearch.data.store.splits import groups_of
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder


def read(name: str, folder: Path, **columns: Any) -> Release:
    return SOURCES.find(name).read(Folder(folder), Columns(**columns))


def by_case(release: Release) -> dict[str, CaseRecord]:
    return {r.case: r for r in release.records}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode(), 1))


def only_problem(release: Release, case: str, reason: str) -> None:
    assert [p.case for p in release.problems] == [case]
    assert case not in by_case(release)
    assert re.search(reason, release.problems[0].reason), release.problems[0].reason


def test_ham10000(tmp_path: Path) -> None:
    release = read("ham10000", releases.ham10000(tmp_path))
    assert release.classes == {"diagnosis": ("nv", "mel", "bkl", "bcc", "akiec", "vasc", "df")}
    cases = by_case(release)
    first = cases["ISIC_0027419"]
    assert first.images == {"derm": "HAM10000_images_part_1/ISIC_0027419.jpg"}
    assert first.mask == "HAM10000_segmentations_lesion_tschandl/ISIC_0027419_segmentation.png"
    assert first.labels == {"diagnosis": "bkl"}
    assert (first.lesion, first.patient, first.split) == ("HAM_0000118", "", None)
    assert first.metadata == {"age": 80.0, "sex": "male", "site": "scalp", "dx_type": "histo"}
    assert cases["ISIC_0025030"].lesion == first.lesion
    assert cases["ISIC_0026769"].mask is None and cases["ISIC_0026769"].metadata["age"] is None
    last = cases["ISIC_0031633"]
    assert last.images == {"derm": "HAM10000_images_part_2/ISIC_0031633.jpg"}
    assert last.metadata == {"age": 75.0, "sex": None, "site": None, "dx_type": "histo"}


def test_ham10000_in_other_folders_and_without_csv(tmp_path: Path) -> None:
    releases.ham10000(tmp_path)
    (tmp_path / "HAM10000_metadata.csv").rename(tmp_path / "HAM10000_metadata")
    (tmp_path / "HAM10000_images_part_1").rename(tmp_path / "images")
    (tmp_path / "HAM10000_segmentations_lesion_tschandl").rename(tmp_path / "masks")
    release = read("ham10000", tmp_path)
    assert release.problems == [] and len(release.records) == 4
    assert release.records[0].images == {"derm": "images/ISIC_0027419.jpg"}
    assert release.records[0].mask == "masks/ISIC_0027419_segmentation.png"


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    releases.ham10000(tmp_path)
    (tmp_path / "HAM10000_images_part_2/ISIC_0031633.jpg").unlink()
    only_problem(read("ham10000", tmp_path), "ISIC_0031633", "is missing: no image file of it is in the folder")


def test_a_class_that_is_none(tmp_path: Path) -> None:
    releases.ham10000(tmp_path)
    edit(tmp_path / "HAM10000_metadata.csv", ",mel,", ",melanoma metastatic,")
    reason = "'melanoma metastatic' is no class of diagnosis; choose from: nv, mel, bkl, bcc, akiec, vasc, df"
    only_problem(read("ham10000", tmp_path), "ISIC_0031633", reason)


def test_isic2019(tmp_path: Path) -> None:
    release = read("isic2019", releases.isic2019(tmp_path))
    assert release.classes == {"diagnosis": ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")}
    cases = by_case(release)
    assert [r.labels["diagnosis"] for r in release.records] == ["NV", "MEL", "SCC", None]
    assert cases["ISIC_0000000"].lesion == cases["ISIC_0000004"].lesion == "BCN_0000001"
    assert cases["ISIC_0000003"].lesion == "" and all(r.patient == "" for r in release.records)
    shrunk = cases["ISIC_0000002_downsampled"]
    assert shrunk.images == {"derm": "ISIC_2019_Training_Input/ISIC_0000002_downsampled.jpg"}
    assert shrunk.metadata == {"age": 30.0, "sex": "male", "site": None}
    bare = cases["ISIC_0000003"]  # its file has the suffix, its row has not
    assert bare.images == {"derm": "ISIC_2019_Training_Input/ISIC_0000003_downsampled.jpg"}
    assert bare.metadata == {"age": None, "sex": None, "site": "head/neck"}


def test_isic2019_file_without_the_suffix_of_its_row(tmp_path: Path) -> None:
    place = releases.isic2019(tmp_path) / "ISIC_2019_Training_Input"
    (place / "ISIC_0000002_downsampled.jpg").rename(place / "ISIC_0000002.jpg")
    record = by_case(read("isic2019", tmp_path))["ISIC_0000002_downsampled"]
    assert record.images == {"derm": "ISIC_2019_Training_Input/ISIC_0000002.jpg"}


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        (
            "0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
            "none of MEL, NV, BCC, AK, BKL, DF, VASC, SCC, UNK is marked where one",
        ),
        ("1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "MEL and NV are marked where one should be"),
    ],
)
def test_isic2019_with_no_class_or_two(marks: str, reason: str, tmp_path: Path) -> None:
    releases.isic2019(tmp_path)
    edit(tmp_path / "ISIC_2019_Training_GroundTruth.csv", "0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", marks)
    only_problem(read("isic2019", tmp_path), "ISIC_0000000", reason)


def test_isic2019_needs_its_metadata_as_lesions_are_there(tmp_path: Path) -> None:
    releases.isic2019(tmp_path)
    (tmp_path / "ISIC_2019_Training_Metadata.csv").unlink()
    with pytest.raises(UserError, match=r"has no ISIC_2019_Training_Metadata.csv"):
        read("isic2019", tmp_path)


def test_isic2019_metadata_given_twice(tmp_path: Path) -> None:
    releases.isic2019(tmp_path)
    with (tmp_path / "ISIC_2019_Training_Metadata.csv").open("a") as file:
        file.write("ISIC_0000000,20.0,head/neck,BCN_9,male\n")
    release = read("isic2019", tmp_path)
    assert [(p.case, p.reason) for p in release.problems] == [
        ("ISIC_0000000", "a second row of this image; the first is used")
    ]
    assert by_case(release)["ISIC_0000000"].metadata["age"] == 55.0


def test_isic2020(tmp_path: Path) -> None:
    release = read("isic2020", releases.isic2020(tmp_path))
    assert release.classes["diagnosis"] == ("benign", "malignant")
    assert len(release.classes["condition"]) == 8
    assert [r.labels["diagnosis"] for r in release.records] == ["benign", "benign", "benign", "malignant", "benign"]
    assert [r.labels["condition"] for r in release.records] == [None, None, "nevus", "melanoma", "lentigo NOS"]
    assert [r.lesion for r in release.records] == ["ISIC_0015719"] * 3 + ["", ""]  # a = b and b = c: all one
    assert [r.patient for r in release.records][3:] == ["IP_0962375"] * 2
    assert release.records[0].images == {"derm": "train/ISIC_2637011.jpg"}
    assert release.records[0].metadata == {"age": 45.0, "sex": "male", "site": "head/neck"}
    assert release.records[4].metadata == {"age": None, "sex": None, "site": None}


def test_isic2020_without_duplicates_and_as_kaggle_has_it(tmp_path: Path) -> None:
    releases.isic2020(tmp_path)
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").unlink()
    (tmp_path / "ISIC_2020_Training_GroundTruth.csv").rename(tmp_path / "train.csv")
    (tmp_path / "jpeg").mkdir()
    (tmp_path / "train").rename(tmp_path / "jpeg/train")
    writing.image(tmp_path / "train/ISIC_2637011.png")  # Kaggle's train/ is the DICOM files of the same names
    release = read("isic2020", tmp_path)
    assert release.problems == [] and all(r.lesion == "" for r in release.records)
    assert release.records[0].images == {"derm": "jpeg/train/ISIC_2637011.jpg"}
    assert release.records[0].where == "train.csv, line 2"


def test_isic2020_target_that_is_none(tmp_path: Path) -> None:
    releases.isic2020(tmp_path)
    edit(tmp_path / "ISIC_2020_Training_GroundTruth.csv", "malignant,1", "malignant,2")
    only_problem(read("isic2020", tmp_path), "ISIC_0149568", "'2' is no class of diagnosis; choose from: 0, 1")


def test_pad_ufes_20(tmp_path: Path) -> None:
    release = read("pad_ufes_20", releases.pad_ufes_20(tmp_path))
    assert release.classes == {"diagnosis": ("BCC", "ACK", "NEV", "SEK", "SCC", "MEL")}
    first, second, third = release.records
    assert first.case == "PAT_46_881_939"
    assert first.images == {"clinic": "images/imgs_part_1/PAT_46_881_939.png"}
    assert third.images == {"clinic": "images/imgs_part_3/PAT_1545_1867_547.png"}
    assert (first.patient, first.lesion) == (second.patient, second.lesion) == ("PAT_46", "PAT_46_881")
    assert [r.labels["diagnosis"] for r in release.records] == ["BCC", "BCC", "ACK"]
    assert first.metadata == {
        "sex": "female",
        "site": "NECK",
        "skin_type": 3.0,
        "age": 55.0,
        "diameter_1": 6.0,
        "diameter_2": 5.0,
        "background_father": "POMERANIA",
        "background_mother": "POMERANIA",
        "smoke": "false",
        "drink": "false",
        "pesticide": "false",
        "skin_cancer_history": "true",
        "cancer_history": "true",
        "has_piped_water": "true",
        "has_sewage_system": "true",
        "itch": "true",
        "grew": "true",
        "hurt": "false",
        "changed": "true",
        "bleed": "true",
        "elevation": "true",
        "biopsed": "true",
    }
    known = {name: value for name, value in third.metadata.items() if value is not None}
    no = dict.fromkeys(("hurt", "changed", "bleed", "elevation", "biopsed"), "false")
    assert known == {"age": 77.0, "site": "FOREARM", "itch": "true", **no}


def test_pad_ufes_20_lesions_are_of_one_patient(tmp_path: Path) -> None:
    """The id of a lesion comes again for another patient: grouped by it, 1,373 patients would be 1,132."""
    edit(releases.pad_ufes_20(tmp_path) / "metadata.csv", "PAT_1545,1867", "PAT_1545,881")
    release = read("pad_ufes_20", tmp_path)
    assert [r.lesion for r in release.records] == ["PAT_46_881", "PAT_46_881", "PAT_1545_881"]
    groups = groups_of([r.patient for r in release.records], [r.lesion for r in release.records])
    assert groups.tolist() == [0, 0, 1]
    edit(tmp_path / "metadata.csv", "PAT_1545,881", ",881")
    assert read("pad_ufes_20", tmp_path).records[2].lesion == "881"  # no patient is named


def test_pad_ufes_20_skin_type_that_is_none(tmp_path: Path) -> None:
    edit(releases.pad_ufes_20(tmp_path) / "metadata.csv", "True,3.0,NECK", "True,0.0,NECK")
    assert read("pad_ufes_20", tmp_path).records[0].metadata["skin_type"] is None


def test_fitzpatrick17k(tmp_path: Path) -> None:
    release = read("fitzpatrick17k", releases.fitzpatrick17k(tmp_path))
    assert release.classes["diagnosis"] == ("benign", "malignant", "non-neoplastic")
    assert len(release.classes["nine_partition"]) == 9
    assert release.classes["condition"] == ("drug induced pigmentary changes", "melanoma", "photodermatoses")
    first, _, third = release.records
    assert first.images == {"clinic": "data/finalfitz17k/5e82a45bc5d78bd24ae9202d194423f8.jpg"}
    assert third.labels == {
        "diagnosis": "malignant",
        "nine_partition": "malignant melanoma",
        "condition": "melanoma",
    }
    assert first.metadata == {"skin_type": 3.0, "fitzpatrick_centaur": 3.0, "qc": None}
    assert third.metadata == {"skin_type": None, "fitzpatrick_centaur": None, "qc": "1 Diagnostic"}


def test_fitzpatrick17k_rows_that_lack_something(tmp_path: Path) -> None:
    releases.fitzpatrick17k(tmp_path)
    edit(tmp_path / "fitzpatrick17k.csv", ",photodermatoses,", ",,")
    edit(tmp_path / "fitzpatrick17k.csv", "5e82a45bc5d78bd24ae9202d194423f8,3,", "5e82a45bc5d78bd24ae9202d194423f8,")
    release = read("fitzpatrick17k", tmp_path)
    only_problem(release, "5e82a45bc5d78bd24ae9202d194423f8", "8 fields where the header has 9")
    assert release.classes["condition"] == ("melanoma",)
    assert [r.labels["condition"] for r in release.records] == [None, "melanoma"]


@pytest.mark.parametrize("write", [releases.ph2, releases.ph2_sheet])
def test_ph2(write, tmp_path: Path) -> None:
    release = read("ph2", write(tmp_path))
    assert release.classes == {"diagnosis": ("common nevus", "atypical nevus", "melanoma")}
    assert [r.case for r in release.records] == ["IMD003", "IMD009", "IMD058"]
    assert [r.labels["diagnosis"] for r in release.records] == ["common nevus", "atypical nevus", "melanoma"]
    last = release.records[2]
    place = "PH2 Dataset images/IMD058"
    assert last.images == {"derm": f"{place}/IMD058_Dermoscopic_Image/IMD058.bmp"}
    assert last.mask == f"{place}/IMD058_lesion/IMD058_lesion.bmp"
    criteria = {"histological diagnosis": "Melanoma", "asymmetry": "0", "pigment network": "AT", "colors": "4"}
    assert last.metadata == criteria
    assert release.records[0].metadata["histological diagnosis"] is None


def test_ph2_without_openpyxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = releases.ph2_sheet(tmp_path)
    original = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "openpyxl":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"PH2_dataset.xlsx needs openpyxl: pip install openpyxl"):
        read("ph2", folder)


def test_ph2_sheet_that_is_none(tmp_path: Path) -> None:
    folder = releases.ph2_sheet(tmp_path)
    (folder / "PH2_dataset.xlsx").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"PH2_dataset.xlsx cannot be read as a sheet"):
        read("ph2", folder)


def test_ph2_sheet_with_other_rows(tmp_path: Path) -> None:
    import openpyxl

    folder = releases.ph2_sheet(tmp_path)
    book = openpyxl.load_workbook(folder / "PH2_dataset.xlsx")
    rows = {row[0].value: row for row in book.active.iter_rows()}
    rows["IMD003"][3].value = "X"
    book.save(folder / "PH2_dataset.xlsx")
    only_problem(read("ph2", folder), "IMD003", "common nevus and atypical nevus are marked where one should be")
    rows["Image Name"][0].value = "Picture"
    book.save(folder / "PH2_dataset.xlsx")
    with pytest.raises(UserError, match=r"PH2_dataset.xlsx has no row that begins with 'Image Name'"):
        read("ph2", folder)


def test_ph2_text_with_a_class_that_is_none_and_a_short_row(tmp_path: Path) -> None:
    folder = releases.ph2(tmp_path)
    edit(folder / "PH2_dataset.txt", "||  0  ||  0", "||  3  ||  0")
    reason = "'3' is no class of diagnosis; choose from: common nevus, atypical nevus, melanoma"
    only_problem(read("ph2", folder), "IMD003", reason)
    edit(folder / "PH2_dataset.txt", "||  3  ||  0", "||  0")
    only_problem(read("ph2", folder), "IMD003", "5 fields where the header has 6")


def test_mednode(tmp_path: Path) -> None:
    release = read("mednode", releases.mednode(tmp_path))
    assert release.classes == {"diagnosis": ("melanoma", "naevus")}
    assert {r.case: (r.labels["diagnosis"], r.images["clinic"]) for r in release.records} == {
        "melanoma_1128640": ("melanoma", "melanoma/1128640.jpg"),
        "melanoma_1311120": ("melanoma", "melanoma/1311120.JPG"),
        "naevus_1128640": ("naevus", "naevus/1128640.jpg"),
    }


def test_mednode_without_a_class(tmp_path: Path) -> None:
    folder = releases.mednode(tmp_path)
    (folder / "naevus").rename(folder / "other")
    with pytest.raises(
        UserError, match="has no naevus, nor in its complete_mednode_dataset; name the folder of the rel"
    ):
        read("mednode", folder)


def test_sd198(tmp_path: Path) -> None:
    folder = releases.sd198(tmp_path)
    release = read("sd198", folder)
    assert release.classes == {"diagnosis": ("Acne_Vulgaris", "Beau's_Lines")}
    cases = by_case(release)
    first, other = cases["Acne_Vulgaris__010 a.jpg"], cases["Acne_Vulgaris__011.jpg"]
    assert first.images == {"clinic": "images/Acne_Vulgaris/010 a.jpg"}
    assert (first.split, other.split) == ("train", "test")
    second = by_case(read("sd198", folder, fold=1))
    assert second[first.case].split == "test" and second[other.case].split == "train"
    with pytest.raises(
        UserError, match=r"8_2_split has no train_2.txt; it has train_0.txt, train_1.txt, val_0.txt, val_1"
    ):
        read("sd198", folder, fold=2)


def test_sd198_split_files_are_checked(tmp_path: Path) -> None:
    folder = releases.sd198(tmp_path)
    with (folder / "8_2_split/val_0.txt").open("a") as file:
        file.write("Beau's_Lines/021.jpg 1\nAcne_Vulgaris/099.jpg 1\nAcne_Vulgaris\n\n../../secret.jpg 0\n")
    writing.image(folder / "images/Beau's_Lines/022.jpg")
    release = read("sd198", folder)
    assert len(release.records) == 3
    said = {(p.case, p.reason) for p in release.problems}
    assert said == {
        ("Beau's_Lines__021.jpg", "is in both train_0.txt and val_0.txt"),
        ("Acne_Vulgaris__099.jpg", "class 1 is Beau's_Lines in a line before"),
        ("Acne_Vulgaris", "is no path inside images/ and number of a class"),
        ("..__..__secret.jpg 0", "is no path inside images/ and number of a class"),
        ("Beau's_Lines__022.jpg", "is in none of train_0.txt, val_0.txt"),
    }


def test_sd198_paths_without_a_folder_have_numbers_for_classes(tmp_path: Path) -> None:
    writing.images(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    releases.table(tmp_path / "8_2_split/train_0.txt", ["1.jpg 10", "2.jpg 2"])
    releases.table(tmp_path / "8_2_split/val_0.txt", ["3.jpg 10"])
    release = read("sd198", tmp_path)
    assert release.classes == {"diagnosis": ("class 2", "class 10")}
    assert [r.labels["diagnosis"] for r in release.records] == ["class 10", "class 2", "class 10"]


def test_sd260_has_class_folders_and_no_split(tmp_path: Path) -> None:
    writing.images(tmp_path / "SD-260/images", "acne/1.jpg", "psoriasis/1.jpg", "2.jpg")
    release = read("sd198", tmp_path)
    assert release.classes == {"diagnosis": ("acne", "psoriasis")} and release.problems == []
    assert {r.case: r.labels["diagnosis"] for r in release.records} == {
        "acne__1.jpg": "acne",
        "psoriasis__1.jpg": "psoriasis",
        "2.jpg": None,
    }
    assert all(r.split is None for r in release.records)
