"""The Arrow tables of a study: their schemas, and how they are written and read. Knows neither torch nor ray."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.errors import UserError, nearest

# Columns that every row carries: where the number comes from, and what speaks against it, such as a split by image.
PROVENANCE = [("study", pa.string()), ("version", pa.string()), ("commit", pa.string()), ("caveats", pa.string())]
# Who is judged, and by whom: a protocol on a data set, having learnt from so many labels.
JUDGED = [
    ("stage", pa.string()),
    ("curriculum", pa.string()),  # "no pre-training" for the root; or "random weights"
    ("root", pa.string()),  # what it begins with, where a study has several roots; else ""
    ("seed", pa.int64()),
    ("protocol", pa.string()),
    ("data", pa.string()),  # the data set that judges: "data" where there is one
    ("labelled", pa.string()),  # all, 20 of every class, or 10%
    ("draw", pa.int32()),  # which of the draws of the few, from 0
    ("split", pa.string()),
]

WORDS = pa.dictionary(pa.int32(), pa.string())  # of a table with so many rows that each word is written once


def words(fields: list[tuple[str, pa.DataType]]) -> list[tuple[str, pa.DataType]]:
    """The same columns, words as a dictionary."""
    return [(name, WORDS if kind == pa.string() else kind) for name, kind in fields]


PREDICTED = [
    *words(JUDGED),
    ("label", WORDS),
    ("case", WORDS),
    ("group", pa.int32()),  # equal for cases of one patient, else of one lesion
    ("truth", WORDS),  # null where it is not known
    ("class", WORDS),
    ("probability", pa.float32()),
    *words(PROVENANCE),
]
SCHEMAS: dict[str, pa.Schema] = {
    # One row per proposal of the brain: a whole curriculum with its settings.
    "trials": pa.schema(
        [
            ("trial", pa.int32()),
            ("root", pa.string()),
            ("curriculum", pa.string()),  # "odc > moco_v2"
            ("settings", pa.string()),  # JSON: {"moco_v2.lr": 0.03}; {} where nothing is searched
            ("keys", pa.list_(pa.string())),  # the last stage's key, one per seed
            ("status", pa.string()),  # done | failed | pruned | dropped (an earlier stage failed)
            ("value", pa.float64()),  # the objective: mean over the seeds
            ("seeds", pa.int32()),
            ("seconds", pa.float64()),  # training time of its stages that this run trained
            ("error", pa.string()),  # of a pruned one: by what and at which score
            *PROVENANCE,
        ]
    ),
    # One row per stage of the tree: one pretext task trained from one parent, or one predictor fitted to labels.
    "stages": pa.schema(
        [
            ("key", pa.string()),
            ("kind", pa.string()),  # pretext | fit
            ("parent", pa.string()),  # the parent stage's key, or the root's
            ("root", pa.string()),
            ("depth", pa.int32()),  # 1 for the first task of a curriculum
            ("curriculum", pa.string()),  # of a fit: that which it is fitted to
            ("task", pa.string()),  # of a fit: its name
            ("settings", pa.string()),  # JSON of the task's settings and training
            ("seed", pa.int64()),
            ("status", pa.string()),  # done | failed | pruned | dropped (an earlier stage failed)
            ("reused", pa.bool_()),  # not trained by this run
            ("seconds", pa.float64()),  # spent training it, whoever did
            ("epochs", pa.int32()),
            ("device", pa.string()),
            ("node", pa.string()),
            ("workers", pa.int32()),
            ("error", pa.string()),
            *PROVENANCE,
        ]
    ),
    # One row per epoch of a stage.
    "epochs": pa.schema(
        [
            ("stage", pa.string()),
            ("curriculum", pa.string()),
            ("root", pa.string()),
            ("task", pa.string()),
            ("seed", pa.int64()),
            ("epoch", pa.int32()),
            ("loss", pa.float64()),
            ("parts", pa.string()),  # JSON: what the loss consists of and what the task measures beside it
            ("lr", pa.float64()),
            ("grad_norm", pa.float64()),
            ("images_per_second", pa.float64()),
            ("embedding_std", pa.float64()),  # collapse: std of unit embeddings x sqrt(d), healthy near 1
            ("effective_rank", pa.float64()),
            ("seconds", pa.float64()),
            ("peak_memory", pa.float64()),  # MiB: of tensors on a GPU in this epoch, or of the CPU process so far
            ("val_loss", pa.float64()),  # where the stage has patience
            ("knn", pa.float64()),  # balanced accuracy on validation cases, in the epochs that train.knn_every names
            *PROVENANCE,
        ]
    ),
    # One row per number: what a protocol says of a stage's (or the root's) encoders, or of a fit's predictions.
    "scores": pa.schema(
        [
            *JUDGED,
            ("label", pa.string()),  # "mean" for the mean over labels
            ("class", pa.string()),  # "" where the metric is of the whole label
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("ci_low", pa.float64()),  # 95 % bootstrap interval over `groups`
            ("ci_high", pa.float64()),
            ("n", pa.int32()),
            ("groups", pa.string()),  # patients; lesions or images where patients are not known
            *PROVENANCE,
        ]
    ),
    # One row per cell of a confusion matrix that is not 0.
    "confusions": pa.schema(
        [
            *JUDGED,
            ("label", pa.string()),
            ("truth", pa.string()),
            ("predicted", pa.string()),
            ("count", pa.int32()),  # cases
            *PROVENANCE,
        ]
    ),
    # One row per held-out case and class: what a classifier or fit said of it.
    "predictions": pa.schema(PREDICTED),
    "test_predictions": pa.schema(PREDICTED),
    # One row per number on the test split: of the curricula that it was opened for.
    "tests": pa.schema(
        [
            ("opening", pa.int32()),  # which one of this data set's test split it was, of those that its store knows
            ("when", pa.string()),  # in UTC
            ("rule", pa.string()),  # why it was chosen
            *JUDGED,
            ("label", pa.string()),
            ("class", pa.string()),
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("n", pa.int32()),
            ("groups", pa.string()),
            *PROVENANCE,
        ]
    ),
    # One row per judgement: what became of it.
    "judgements": pa.schema(
        [
            *JUDGED,
            ("status", pa.string()),  # done | failed
            ("reused", pa.bool_()),  # not made by this run
            ("seconds", pa.float64()),
            ("reason", pa.string()),  # why it failed
            *PROVENANCE,
        ]
    ),
    # One row per segment: the first epochs of a stage, after which a rate was chosen or a pruner asked.
    "segments": pa.schema(
        [
            ("key", pa.string()),
            ("stage", pa.string()),  # the key of the stage that it is a part of, whether or not that went on
            ("parent", pa.string()),  # that stage's parent, or the root
            ("root", pa.string()),
            ("curriculum", pa.string()),
            ("task", pa.string()),
            ("settings", pa.string()),  # JSON of the stage's settings and training
            ("seed", pa.int64()),
            ("until", pa.int32()),  # the epoch after which it ends
            ("status", pa.string()),  # done | failed
            ("verdict", pa.string()),  # goes on | not chosen | pruned
            ("value", pa.float64()),  # the objective, where it was judged
            ("loss", pa.float64()),  # of its last epoch, as the two that follow
            ("embedding_std", pa.float64()),
            ("effective_rank", pa.float64()),
            ("reused", pa.bool_()),
            ("seconds", pa.float64()),
            ("epochs", pa.int32()),
            ("error", pa.string()),
            *PROVENANCE,
        ]
    ),
}

GOES_ON, NOT_CHOSEN, CUT = "goes on", "not chosen", "pruned"  # what becomes of a segment
ENDED = (NOT_CHOSEN, CUT)  # of these nothing is needed but the result
PRETEXT, FIT = "pretext", "fit"  # kinds of stages
# What a row, or a table of an earlier version, means where it does not say it.
DEFAULTS: dict[str, Any] = {"root": "", "data": "data", "labelled": "all", "draw": 0, "kind": PRETEXT}
OPENED = ("tests", "test_predictions")  # written by `dermsearch test` alone
LATER = (
    "segments",
    "confusions",
    "judgements",
    "predictions",
    *OPENED,
)  # tables that studies of earlier versions lack: there they are empty


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the named schema; what a row lacks is its default, else null."""
    rows, schema = list(rows), SCHEMAS[name]
    columns = [pa.array([row.get(f.name, DEFAULTS.get(f.name)) for row in rows], f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def write(table: pa.Table, path: str | Path) -> None:
    """Write a table so that a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    wordy = any(pa.types.is_dictionary(field.type) for field in table.schema)
    options = pa.ipc.IpcWriteOptions(compression="zstd" if wordy else None)  # what is not can be mapped
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    part.replace(path)


def read(path: str | Path) -> pa.Table:
    """One Arrow IPC file, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def complete(name: str, table: pa.Table) -> pa.Table:
    """A table with the columns of its schema: those that an earlier version lacked hold their default, else null."""
    schema = SCHEMAS[name]
    columns = [
        table[f.name]
        if f.name in table.column_names
        else pa.chunked_array([pa.repeat(pa.scalar(DEFAULTS.get(f.name), f.type), len(table))])
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True)
class Results:
    """A finished (or running) study's tables. `results.scores` is Arrow, `results.pandas('scores')` a DataFrame."""

    folder: Path
    study: dict[str, Any]
    tables: dict[str, pa.Table]

    def __getattr__(self, name: str) -> pa.Table:
        try:
            return self.__dict__["tables"][name]
        except KeyError:
            raise AttributeError(f"no table '{name}': {nearest(name, SCHEMAS)}") from None

    def pandas(self, name: str) -> Any:
        """The named table as a pandas DataFrame."""
        return getattr(self, name).to_pandas()


def load(folder: str | Path) -> Results:
    """The tables of a study's folder, in one line."""
    import yaml

    folder = Path(folder)
    files = {name: folder / "tables" / f"{name}.arrow" for name in SCHEMAS}
    missing = [name for name, file in files.items() if not file.is_file() and name not in LATER]
    if missing:
        raise UserError(f"{folder}: not the folder of a study: it has no tables/{missing[0]}.arrow")
    study = yaml.safe_load((folder / "study.yaml").read_text()) if (folder / "study.yaml").is_file() else {}
    tables = {name: complete(name, read(f)) if f.is_file() else build(name, []) for name, f in files.items()}
    return Results(folder, study, tables)
