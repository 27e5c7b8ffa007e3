"""A folder of your own images, sorted into folders by class.

    PATH/<class>/*.jpg                                       classes are the folders' names, sorted
    PATH/{train,val,test}/<class>/*.jpg                      the same with a split of your own
    PATH/*.jpg                                               images without a label, for pre-training

The id of a case is its path with __ for /. Deeper folders are searched too. Hidden files, texts and tables are passed
over; a file of another kind in a class folder is listed as a problem, as it may be an image that cannot be read.
"""

from __future__ import annotations

from dermsearch.data.sources import base
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder

PASSED_OVER = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".xlsx", ".db", ".ini"),
    *(".arrow", ".part"),  # of a store that lies in the folder
)


def read(folder: Folder, columns: base.Columns) -> base.Release:
    """Every image below the folder."""
    if folder.kind() != "folder":
        raise UserError(f"there is no folder '{folder.where}'")
    names = [name for name in folder.names() if not base.hidden(name) and not name.lower().endswith(PASSED_OVER)]
    if not any(name.lower().endswith(base.IMAGES) for name in names):
        raise UserError(f"{folder.where}: has no image in it or in its folders ({', '.join(base.IMAGES)})")
    tops = {name.split("/")[0] for name in names if "/" in name}
    splits = sorted(top for top in tops if top.lower() in base.SPLIT_WORDS)
    if splits and len(splits) < len(tops):
        other = min(tops - set(splits))
        raise UserError(
            f"{folder.where}: '{splits[0]}' is a split and '{other}' a class; have folders of one kind there"
        )
    depth = 1 if splits else 0  # where in a path the class stands
    classes = sorted({parts[depth] for name in names if len(parts := name.split("/")) > depth + 1})
    collector = base.Collector({"diagnosis": {name: name for name in classes}} if classes else {})
    for name in names:
        parts = name.split("/")
        if not name.lower().endswith(base.IMAGES):
            collector.problem(base.path_id(name), name, "is no image of a kind that is read")
            continue
        collector.add(
            base.CaseRecord(
                case=base.path_id(name),
                images={columns.modality: name},
                labels={"diagnosis": parts[depth] if len(parts) > depth + 1 else None} if classes else {},
                split=base.SPLIT_WORDS[parts[0].lower()] if splits and len(parts) > 1 else None,
                where=name,
            )
        )
    return collector.release()


SOURCE = base.Source(
    name="folder",
    title="a folder of images, sorted into folders by class",
    licence="yours",
    citation="",
    home="",
    read=read,
    domain=None,
    notes=(
        "Neither patients nor lesions are known: if one has several images, use `csv`, which can name them.",
        "A class folder named unknown, none or na holds images without a label.",
    ),
)
