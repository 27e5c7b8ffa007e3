"""MED-NODE: 170 clinical images, taken with a camera, of 70 melanomas and 100 naevi.

    complete_mednode_dataset/melanoma/*.jpg
    complete_mednode_dataset/naevus/*.jpg

The id of a case is its folder and its file's name, for example melanoma_1128640.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.storage.files import Folder

COUNTS = {"melanoma": 70, "naevus": 100}


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image of the two folders."""
    collector = base.Collector({"diagnosis": {name: name for name in COUNTS}})
    for name in COUNTS:
        _, place = base.locate(folder, [name], ["complete_mednode_dataset"])
        for path in base.ImageFiles(folder, place).names:
            case = f"{name}_{base.stem(path)}"
            collector.add(base.CaseRecord(case, {"clinic": path}, {"diagnosis": name}, where=path))
    return collector.release()


SOURCE = base.Source(
    name="mednode",
    title="MED-NODE: non-dermoscopic images of melanoma and naevus",
    licence="for research, from the University Medical Center Groningen; none is stated",
    citation="Giotis et al.: MED-NODE: A computer-assisted melanoma diagnosis system using non-dermoscopic images. "
    "Expert Systems with Applications 42, 2015",
    home="https://www.cs.rug.nl/~imaging/databases/melanoma_naevi/",
    read=read,
    expected=base.Expected(cases=170, classes={"diagnosis": COUNTS}),
    notes=("There is no published split, no metadata, and neither patients nor lesions are named.",),
)
