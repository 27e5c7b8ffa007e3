"""Do the readers of CheXpert and ChestX-ray14 find in the releases' own tables what was counted there without them?

    pip download --no-deps torchxrayvision==1.5.7
    python benchmarks/chest_labels.py torchxrayvision-1.5.7-py3-none-any.whl

That package carries both tables (CheXpert's of training cases), and no image is needed. Told are cases and patients, in
all and with each finding alone, under every policy for labels that a report is not sure of. The exit code is 1 where a
number is another than was counted with a few lines of pandas.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import zipfile
from pathlib import Path

from dermsearch.data.domain import FINDINGS
from dermsearch.data.sources.base import SOURCES, CaseRecord, Columns
from dermsearch.delimited import rows_of
from dermsearch.storage.files import Folder

NAMES = FINDINGS["finding"]
TABLES = {"chexpert": ("chexpert_train.csv.gz", "train.csv"), "chestxray14": ("Data_Entry_2017_v2020.csv.gz",) * 2}
# By source and policy: (cases, patients) in all, then of each finding alone. CheXpert's are frontal, devices beside.
COUNTED = {
    ("chexpert", "absent"): [(188267, 62997), (16974, 14001), (4487, 2556), (533, 507), (2978, 2399)],
    ("chexpert", "present"): [(188267, 62997), (16974, 14001), (4331, 2513), (544, 513), (2927, 2429)],
    ("chestxray14", None): [(112120, 30805), (60361, 24907), (2194, 934), (322, 286), (1093, 800)],
}


def laid(wheel: zipfile.ZipFile, source: str, folder: Path) -> Folder:
    """A release of that table alone, its images empty files where the reader looks for them."""
    packed, name = TABLES[source]
    text = gzip.decompress(wheel.read(f"torchxrayvision/data/{packed}")).decode()
    place = folder / source
    (place / "images").mkdir(parents=True)
    (place / name.removesuffix(".gz")).write_text(text)
    if source == "chestxray14":
        for _, (image, *_) in list(rows_of(text, packed))[1:]:
            (place / "images" / image).touch()
    return Folder(str(place))


def counted(records: list[CaseRecord]) -> list[tuple[int, int]]:
    """Cases and patients, in all and with each finding alone."""
    parts = [records, *([r for r in records if r.labels["finding"] == name] for name in NAMES)]
    return [(len(part), len({r.patient for r in part})) for part in parts]


def main() -> int:
    """Print what is found, and what was counted where that is another number."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        print(__doc__)
        return 2
    same = True
    with zipfile.ZipFile(sys.argv[1]) as wheel, tempfile.TemporaryDirectory() as folder:
        releases = {source: laid(wheel, source, Path(folder)) for source in TABLES}
        for (source, policy), wanted in COUNTED.items():
            found = counted(SOURCES.find(source).read(releases[source], Columns(uncertain=policy)).records)
            told = "  ".join(f"{name} {n:,} of {p:,}" for name, (n, p) in zip(("all", *NAMES), found, strict=True))
            print(f"{source} {policy or '':<8} {told}", "" if found == wanted else f"instead of {wanted}")
            same &= found == wanted
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
