"""MED-NODE: 170 clinical images, taken with a camera, of 70 melanomas and 100 naevi.

    complete_mednode_dataset/melanoma/*.jpg
    complete_mednode_dataset/naevus/*.jpg

The id of a case is its folder and its file's name, for example melanoma_1128640.
"""

from __future__ import annotations

from dermsearch.data.sources.base import (
    CaseRecord,
    Collector,
    Columns,
    Expected,
    ImageFiles,
    Release,
    Source,
    locate,
    stem,
)
from dermsearch.storage.files import Folder

COUNTS = {"melanoma": 70, "naevus": 100}


def read(folder: Folder, columns: Columns) -> Release:
    """Every image of the two folders."""
    collector = Collector({"diagnosis": {name: name for name in COUNTS}})
    for name in COUNTS:
        _, place = locate(folder, [name], ["complete_mednode_dataset"])
        for path in ImageFiles(folder, place).names:
            labels: dict[str, str | None] = {"diagnosis": name}
            collector.add(CaseRecord(case=f"{name}_{stem(path)}", images={"clinic": path}, labels=labels, where=path))
    return collector.release()


SOURCE = Source(
    name="mednode",
    title="MED-NODE: non-dermoscopic images of melanoma and naevus",
    licence="for research, from the University Medical Center Groningen; none is stated",
    citation="Giotis et al.: MED-NODE: A computer-assisted melanoma diagnosis system using non-dermoscopic images. "
    "Expert Systems with Applications 42, 2015",
    home="https://www.cs.rug.nl/~imaging/databases/melanoma_naevi/",
    read=read,
    expected=Expected(cases=170, classes={"diagnosis": COUNTS}),
    notes=("There is no published split, no metadata, and neither patients nor lesions are named.",),
)
