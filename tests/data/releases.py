"""Small copies of the data sets' releases, in their layouts and with their oddities, written into a test's folder.

Each writer returns the folder that a user would name. The copies are whole: reading one gives no problem.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.releases_isic import bcn20000, hiba, slice3d, slice3d_archive
from data.writing import images, table

from dermsearch.data.sources.base import Columns

DERM7PT = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
    "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,"
    "management,clinic,derm,case_id,notes"
)
# How often each word occurs in the release's label columns, 1,011 rows.
DERM7PT_WORDS = {
    "diagnosis": {
        "clark nevus": 399,
        "melanoma (less than 0.76 mm)": 102,
        "reed or spitz nevus": 79,
        "melanoma (in situ)": 64,
        "melanoma (0.76 to 1.5 mm)": 53,
        "seborrheic keratosis": 45,
        "basal cell carcinoma": 42,
        "dermal nevus": 33,
        "vascular lesion": 29,
        "blue nevus": 28,
        "melanoma (more than 1.5 mm)": 28,
        "lentigo": 24,
        "dermatofibroma": 20,
        "congenital nevus": 17,
        "melanosis": 16,
        "combined nevus": 13,
        "miscellaneous": 8,
        "recurrent nevus": 6,
        "melanoma metastasis": 4,
        "melanoma": 1,
    },
    "pigment_network": {"absent": 400, "typical": 381, "atypical": 230},
    "streaks": {"absent": 653, "irregular": 251, "regular": 107},
    "pigmentation": {
        "absent": 588,
        "diffuse irregular": 265,
        "diffuse regular": 115,
        "localized irregular": 40,
        "localized regular": 3,
    },
    "regression_structures": {"absent": 758, "blue areas": 116, "combinations": 99, "white areas": 38},
    "dots_and_globules": {"irregular": 448, "regular": 334, "absent": 229},
    "blue_whitish_veil": {"absent": 816, "present": 195},
    "vascular_structures": {
        "absent": 823,
        "dotted": 53,
        "within regression": 46,
        "arborizing": 31,
        "comma": 23,
        "linear irregular": 18,
        "hairpin": 15,
        "wreath": 2,
    },
}


def derm7pt(root: Path) -> Path:
    """Five pairs; extensions mix .jpg and .JPG, and one name has another case than its file."""
    release = root / "release_v0"
    rows = [
        "1,clark nevus,0,typical,absent,absent,absent,regular,absent,absent,low,flat,back,male,excision,"
        "NEL/Nel001.jpg,NEL/Nel002.jpg,NEL001,",
        "2,melanoma (in situ),5,atypical,irregular,diffuse irregular,blue areas,irregular,present,dotted,high,"
        'palpable,chest,female,excision,NEL/Nel003.JPG,NEL/Nel004.JPG,NEL003,"no clinical image, a dermoscopic one"',
        "3,basal cell carcinoma,0,absent,absent,absent,absent,absent,absent,arborizing,medium,nodular,head neck,male,"
        "excision,FAL/Fal005.jpg,FAL/Fal006.jpg,FAL005,",
        "4,vascular lesion,0,absent,absent,localized regular,white areas,absent,absent,comma,low,,acral,,"
        "no further examination,FAL/Fal007.jpg,FAL/Fal008.jpg,FAL007,",
        "5,seborrheic keratosis,1,absent,regular,absent,combinations,irregular,absent,within regression,low,flat,"
        "abdomen,female,clinical follow up,FAL/Fal009.jpg,FAL/Fal010.jpg,FAL009,",
    ]
    table(release / "meta/meta.csv", [DERM7PT, *rows])
    for name, indexes in {"train": "031", "valid": "2", "test": "4"}.items():
        table(release / f"meta/{name}_indexes.csv", ["indexes", *indexes])
    names = ["NEL/Nel001.jpg", "NEL/Nel002.JPG", "NEL/Nel003.JPG", "NEL/Nel004.JPG"]
    images(release / "images", *names, *(f"FAL/Fal{n:03d}.jpg" for n in range(5, 11)))
    return release


def derm7pt_table(root: Path) -> Path:
    """The table of 1,011 rows whose label columns have the published counts, and the split's sizes; no images."""
    shuffle = random.Random(0).shuffle
    columns: dict[str, list[str]] = {}
    for label, counts in DERM7PT_WORDS.items():
        columns[label] = [word for word, count in counts.items() for _ in range(count)]
        shuffle(columns[label])
    rows = []
    for n in range(1011):
        cells = dict.fromkeys(DERM7PT.split(","), "")
        cells |= {label: words[n] for label, words in columns.items()}
        cells |= {"case_num": str(n + 1), "derm": f"A/{n}d.jpg", "clinic": f"A/{n}c.jpg"}
        rows.append(",".join(cells.values()))
    table(root / "meta/meta.csv", [DERM7PT, *rows])
    order = list(range(1011))
    shuffle(order)
    parts = {"train": order[:413], "valid": order[413:616], "test": order[616:]}
    for name, indexes in parts.items():
        table(root / f"meta/{name}_indexes.csv", ["indexes", *map(str, indexes)])
    return root


def ham10000(root: Path) -> Path:
    """Four images of three lesions in the two parts, one without a mask, one without an age."""
    rows = [
        "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp",
        "HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp",
        "HAM_0002730,ISIC_0026769,nv,follow_up,,female,back",
        "HAM_0001466,ISIC_0031633,mel,histo,75.0,unknown,unknown",
    ]
    table(root / "HAM10000_metadata.csv", ["lesion_id,image_id,dx,dx_type,age,sex,localization", *rows])
    images(root / "HAM10000_images_part_1", "ISIC_0027419.jpg", "ISIC_0025030.jpg", "ISIC_0026769.jpg")
    images(root / "HAM10000_images_part_2", "ISIC_0031633.jpg")
    masks = (f"ISIC_{n}_segmentation.png" for n in ("0027419", "0025030", "0031633"))
    images(root / "HAM10000_segmentations_lesion_tschandl", *masks)
    return root


def isic2019(root: Path) -> Path:
    """CRLF; a downsampled name; an image with no diagnosis; one whose lesion and age are missing."""
    truth = [
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
        "ISIC_0000000,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000002_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000003,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
        "ISIC_0000004,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
    ]
    about = [
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0000000,55.0,anterior torso,BCN_0000001,female",
        "ISIC_0000002_downsampled,30.0,,MSK4_0011169,male",
        "ISIC_0000003,,head/neck,,",
        "ISIC_0000004,70.0,upper extremity,BCN_0000001,female",
    ]
    table(root / "ISIC_2019_Training_GroundTruth.csv", truth, end="\r\n")
    table(root / "ISIC_2019_Training_Metadata.csv", about, end="\r\n")
    names = ("ISIC_0000000", "ISIC_0000002_downsampled", "ISIC_0000003_downsampled", "ISIC_0000004")
    images(root / "ISIC_2019_Training_Input", *(f"{name}.jpg" for name in names))
    return root


def isic2020(root: Path) -> Path:
    """Five images of three patients; three of them are the same, by two pairs of the duplicates list."""
    rows = [
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target",
        "ISIC_2637011,IP_7279968,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0015719,IP_3075186,female,45.0,upper extremity,unknown,benign,0",
        "ISIC_0052212,IP_2842074,female,50.0,lower extremity,nevus,benign,0",
        "ISIC_0149568,IP_0962375,female,55.0,upper extremity,melanoma,malignant,1",
        "ISIC_0188432,IP_0962375,,,,lentigo NOS,benign,0",
    ]
    pairs = ["ISIC_2637011,ISIC_0052212", "ISIC_0052212,ISIC_0015719"]
    table(root / "ISIC_2020_Training_GroundTruth.csv", rows)
    table(root / "ISIC_2020_Training_Duplicates.csv", ["image_name_1,image_name_2", *pairs])
    images(root / "train", *(f"{row.split(',')[0]}.jpg" for row in rows[1:]))
    return root


def pad_ufes_20(root: Path) -> Path:
    """Three images of two patients in two parts; of one patient nothing is known but the age."""
    rows = [
        "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
        "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,"
        "diameter_2,diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed",
        "PAT_46,881,False,False,POMERANIA,POMERANIA,55,False,FEMALE,True,True,True,True,3.0,NECK,6.0,5.0,BCC,True,True,"
        "False,True,True,True,PAT_46_881_939.png,True",
        "PAT_46,881,False,False,POMERANIA,POMERANIA,55,False,FEMALE,True,True,True,True,3.0,NECK,6.0,5.0,BCC,True,True,"
        "False,True,True,True,PAT_46_881_14.png,True",
        "PAT_1545,1867,,,,,77,,,,,,,,FOREARM,,,ACK,True,UNK,False,False,False,False,PAT_1545_1867_547.png,False",
    ]
    table(root / "metadata.csv", rows)
    images(root / "images/imgs_part_1", "PAT_46_881_939.png", "PAT_46_881_14.png")
    images(root / "images/imgs_part_3", "PAT_1545_1867_547.png")
    return root


def fitzpatrick17k(root: Path) -> Path:
    """Three images; one skin type is -1, for unknown, and the images lie deep."""
    rows = [
        "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,"
        "url_alphanum",
        "5e82a45bc5d78bd24ae9202d194423f8,3,3,drug induced pigmentary changes,inflammatory,non-neoplastic,,"
        "https://a.example/1.jpg,a1",
        "fa2911a9b13b6f8af79cb700937cc14f,1,1,photodermatoses,inflammatory,non-neoplastic,,https://a.example/2.jpg,a2",
        "d2bac3c9e4499032ca8e9b07c7d3bc40,-1,-1,melanoma,malignant melanoma,malignant,1 Diagnostic,"
        "https://a.example/3.jpg,a3",
    ]
    table(root / "fitzpatrick17k.csv", rows)
    images(root / "data/finalfitz17k", *(f"{row.split(',')[0]}.jpg" for row in rows[1:]))
    return root


PH2 = {"IMD003": ("0", "T", ""), "IMD009": ("1", "AT", ""), "IMD058": ("2", "AT", "Melanoma")}


def ph2(root: Path) -> Path:
    """Three images with masks and colour masks, the text file in place of the sheet."""
    release = root / "PH2Dataset"
    lines = ["||   Name ||  Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network || Colors ||"]
    for name, (code, network, tissue) in PH2.items():
        lines.append(f"|| {name} ||  {tissue:22} ||  {code}  ||  0  |  {network}  ||  4  ||")
    table(release / "PH2_dataset.txt", [*lines, "", "Clinical Diagnosis: ", "\t0 - Common Nevus; 1 - Atypical Nevus"])
    for name in PH2:
        place = release / "PH2 Dataset images" / name
        images(place, f"{name}_Dermoscopic_Image/{name}.bmp", f"{name}_lesion/{name}_lesion.bmp")
        images(place, f"{name}_roi/{name}_R1_Label4.bmp")
    return release


def ph2_sheet(root: Path) -> Path:
    """The same release with its sheet: twelve rows stand before the header, and one row ends early."""
    import openpyxl

    release = ph2(root)
    (release / "PH2_dataset.txt").unlink()
    book = openpyxl.Workbook(write_only=True)  # such a book does not say how wide its rows are
    rows = book.create_sheet()
    for _ in range(11):
        rows.append([])
    rows.append(["PH2 Dataset", "a legend"])
    classes = ["Common Nevus", "Atypical Nevus", "Melanoma"]
    header = ["Image Name", "Histological Diagnosis", *classes, "Asymmetry\n(0/1/2)", "Pigment Network\n(AT/T)"]
    rows.append([*header, "Colors"])
    for name, (code, network, tissue) in PH2.items():
        marks = ["X" if code == c else None for c in "012"]
        rows.append([name, tissue or None, *marks, 0, network, *([] if name == "IMD009" else [4])])
    book.save(release / "PH2_dataset.xlsx")
    return release


def mednode(root: Path) -> Path:
    """Two melanomas and a naevus, one of the same name as a melanoma; the system left files of its own."""
    release = root / "complete_mednode_dataset"
    images(release, "melanoma/1128640.jpg", "melanoma/1311120.JPG", "naevus/1128640.jpg")
    (release / "melanoma/Thumbs.db").write_bytes(b"\0")
    images(release / "__MACOSX/melanoma", "1.jpg")
    return release


def sd198(root: Path) -> Path:
    """Four images of two classes with spaces and apostrophes in their names, and two folds."""
    names = ["Acne_Vulgaris/010 a.jpg", "Acne_Vulgaris/011.jpg", "Beau's_Lines/020.jpg", "Beau's_Lines/021.jpg"]
    images(root / "images", *names)
    lines = [f"{names[0]} 0", f"{names[1]} 0", f"{names[2]} 1", f"{names[3]} 1"]
    for fold in (0, 1):
        table(root / f"8_2_split/train_{fold}.txt", [lines[fold], lines[2], lines[3]])
        table(root / f"8_2_split/val_{fold}.txt", [lines[1 - fold]])
    return root


def siim_covid(root: Path) -> Path:
    """Three images of two studies."""
    import pydicom

    studies = [
        "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance",
        "00086460a852_study,0,1,0,0",
        "000c9c05fd14_study,1,0,0,0",
    ]
    rows = [
        "id,boxes,label,StudyInstanceUID",
        "000a312787f2_image,\"[{'x': 789.28, 'y': 582.43, 'width': 1026.6, 'height': 1917.3}]\","
        "opacity 1 789.28 582.43 1815.94 2499.73,00086460a852",
        "000c3a3f293f_image,,none 1 0 0 1 1,000c9c05fd14",
        "0012ff7358bc_image,,none 1 0 0 1 1,00086460a852",
    ]
    table(root / "train_study_level.csv", studies)
    table(root / "train_image_level.csv", rows)
    for row in rows[1:]:
        name, study = row.split("_")[0], row.rsplit(",", 1)[1]
        path = root / f"train/{study}/9e8302230c91/{name}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        scan = pydicom.Dataset()
        scan.file_meta = pydicom.dataset.FileMetaDataset()
        scan.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        scan.SOPClassUID, scan.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", f"1.2.{int(name, 16)}"
        scan.Rows, scan.Columns, scan.SamplesPerPixel, scan.PixelRepresentation = 9, 12, 1, 0
        scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
        scan.PhotometricInterpretation = "MONOCHROME2"
        scan.PixelData = b"".join((n * 30).to_bytes(2, "little") for n in range(108))
        scan.save_as(path, enforce_file_format=True)
    return root


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def chexpert(root: Path) -> Path:
    """Frontal images: one finding, several, an unsure one, none; a lateral one, and one that nothing is said of."""
    release = root / "CheXpert-v1.0-small"
    place = "CheXpert-v1.0-small/{}/patient{}/study{}/view{}.jpg"
    rows = [  # path, who, labels from No Finding to Support Devices
        (("train", "00001", 1, "1_frontal"), "Female,68,Frontal,AP", "1.0,,,,,,,,,0.0,,,,1.0"),
        (("train", "00002", 2, "1_frontal"), "Male,87,Frontal,PA", ",,,,,,,,,1.0,,,,1.0"),
        (("train", "00002", 2, "2_lateral"), "Male,87,Lateral,", ",,,,,,,,,1.0,,,,1.0"),
        (("train", "00002", 1, "1_frontal"), "Male,87,Frontal,AP", ",,1.0,,,,,1.0,,,,,,"),
        (("train", "00003", 1, "1_frontal"), "Unknown,0,Frontal,AP", ",,,,,,,-1.0,,,,,,"),
        (("train", "00004", 1, "1_frontal"), "Male,41,Frontal,AP", ",,,,,,0.0,,,,0.0,,,"),
        (
            ("valid", "64541", 1, "1_frontal"),
            "Male,73,Frontal,AP",
            ",".join(["0.0"] * 2 + ["1.0"] + ["0.0"] * 11),
        ),
    ]
    for split in ("train", "valid"):
        lines = [f"{place.format(*path)},{who},{labels}" for path, who, labels in rows if path[0] == split]
        table(release / f"{split}.csv", [CHEXPERT, *lines])
    images(release, *(place.format(*path).split("/", 1)[1] for path, _, _ in rows))
    return release


def chestxray14(root: Path) -> Path:
    """Four images of three patients in two folders, the official split, and a box."""
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    rows = [
        "00000001_000.png,Cardiomegaly,0,1,57,M,PA",
        "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA",
        "00000002_000.png,No Finding,0,2,414,M,PA",
        "00000003_000.png,Hernia,0,3,81,F,AP",
    ]
    size = "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    table(root / "Data_Entry_2017.csv", [f"{header},{size}", *(f"{row},2682,2749,0.143,0.143," for row in rows)])
    names = [row.split(",")[0] for row in rows]
    images(root, *(f"images_00{1 + i // 2}/images/{name}" for i, name in enumerate(names)))
    table(root / "train_val_list.txt", names[:3])
    table(root / "test_list.txt", names[3:])
    table(
        root / "BBox_List_2017.csv",
        ["Image Index,Finding Label,Bbox [x,y,w,h],,,", "", f'"{names[0]}",Cardiomegaly,225.08,547.02,86.78,79.19,,,'],
    )
    return root


def folder(root: Path) -> Path:
    """Three images in two class folders, one of them deeper, and files that are none of the user's data."""
    images(root, "mel/a.jpg", "nev/a.jpg", "nev/visit 2/B.PNG")
    table(root / "readme.txt", ["my images"])
    images(root / ".cache", "mel/x.jpg")
    (root / "nev/Thumbs.db").write_bytes(b"\0")
    return root


NONE = Columns()
CSV = Columns(
    images={"derm": "Dermoscopy", "clinic": "Photo"},
    labels=("Diagnosis", "Grade"),
    case="Case",
    lesion="Lesion",
    patient="Patient",
    split="Part",
    mask="Outline",
    metadata=("Age", "Sex", "Ward"),
)


def csv(root: Path) -> Path:
    """A hospital's table: semicolons, a path from Windows, values that are missing in several words."""
    rows = [
        "Case;Patient;Lesion;Dermoscopy;Photo;Outline;Diagnosis;Grade;Age;Sex;Ward;Part",
        "c1;p1;l1;derm\\a.jpg;photo/a.png;masks/a.png;nevus;2;51;M;B 4;Training",
        'c2;p1;l2;DERM/b.jpg;;;"melanoma; in situ";10;;f;7;valid',
        "c3;;;derm/c.jpg;photo/c.png;;NA;1;n/a;;;TEST",
    ]
    table(root / "cases.csv", rows)
    images(root, "derm/a.jpg", "photo/a.png", "masks/a.png", "derm/b.jpg", "derm/c.jpg", "photo/c.png")
    return root


@dataclass(frozen=True)
class Copy:
    """How a source is tried: its release, its table with the first id as written there, and a user's columns."""

    name: str
    write: Callable[[Path], Path]
    table: str | None = None
    first: str = ""
    columns: Columns = NONE

    def __str__(self) -> str:
        return self.write.__name__


COPIES: Sequence[Copy] = (
    Copy("derm7pt", derm7pt, "meta/meta.csv", "\n1"),
    Copy("ham10000", ham10000, "HAM10000_metadata.csv", "ISIC_0027419"),
    Copy("isic2019", isic2019, "ISIC_2019_Training_GroundTruth.csv", "ISIC_0000000"),
    Copy("isic2020", isic2020, "ISIC_2020_Training_GroundTruth.csv", "ISIC_2637011"),
    Copy("pad_ufes_20", pad_ufes_20, "metadata.csv", "PAT_46_881_939"),
    Copy("slice3d", slice3d, "train-metadata.csv", "ISIC_0015671"),
    Copy("slice3d", slice3d_archive, "ISIC_2024_Training_Metadata.csv", "ISIC_0015671"),
    Copy("hiba", hiba, "metadata.csv", "ISIC_0000001"),
    Copy("bcn20000", bcn20000, "metadata.csv", "ISIC_0053453"),
    Copy("fitzpatrick17k", fitzpatrick17k, "fitzpatrick17k.csv", "5e82a45bc5d78bd24ae9202d194423f8"),
    Copy("ph2", ph2, "PH2_dataset.txt", "IMD003"),
    Copy("ph2", ph2_sheet),
    Copy("mednode", mednode),
    Copy("sd198", sd198, "8_2_split/train_0.txt", "Acne_Vulgaris/010 a"),
    Copy("siim_covid", siim_covid, "train_image_level.csv", "000a312787f2"),
    Copy("chexpert", chexpert, "train.csv", "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"),
    Copy("chestxray14", chestxray14, "Data_Entry_2017.csv", "00000001_000.png"),
    Copy("folder", folder),
    Copy("csv", csv, "cases.csv", "c1", CSV),
)


def fields(**given: Any) -> Columns:
    """Columns of a user's table, one image column unless the test says otherwise."""
    return Columns(**({"images": {"derm": "image"}} | given))
