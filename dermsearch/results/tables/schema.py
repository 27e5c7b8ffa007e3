"""The Arrow tables of a study: their schemas, and how they are written and read. Knows neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.errors import UserError, first_line, nearest
from dermsearch.results.tables.file import OPENED, checksum, mended, read, write

__all__ = ["SCHEMAS", "Results", "build", "complete", "load", "read", "write"]

# Columns that every row carries: where the number comes from, and what speaks against it, such as a split by image.
PROVENANCE = [(name, pa.string()) for name in ("study", "version", "commit", "stores", "caveats")]
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


def schema_of(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    """Of a table with these columns."""
    return pa.schema([*fields, *PROVENANCE])


NUMBER = [
    ("label", pa.string()),  # "mean" for the mean over labels
    ("class", pa.string()),  # "" where the metric is of the whole label
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("ci_low", pa.float64()),  # 95 % bootstrap interval over `groups`
    ("ci_high", pa.float64()),
    ("n", pa.int32()),
    ("groups", pa.string()),  # patients; lesions or images where patients are not known
]
SAID = [  # of a case and a class
    ("label", WORDS),
    ("case", WORDS),
    ("group", pa.int32()),  # equal for cases of one patient, else of one lesion
    ("truth", WORDS),  # null where it is not known
    ("class", WORDS),
    ("probability", pa.float32()),
]
PREDICTED = [*words(JUDGED), *SAID, *words(PROVENANCE)]
SCHEMAS: dict[str, pa.Schema] = {
    # One row per proposal of the brain: a whole curriculum with its settings.
    "trials": schema_of(
        ("trial", pa.int32()),
        ("root", pa.string()),
        ("curriculum", pa.string()),  # "odc > moco_v2"
        ("settings", pa.string()),  # JSON: {"moco_v2.lr": 0.03}; {} where nothing is searched
        ("keys", pa.list_(pa.string())),  # the last stage's key, one per seed
        ("status", pa.string()),  # done | failed | pruned | dropped (an earlier stage failed)
        ("value", pa.float64()),  # the objective: mean over the seeds
        ("seeds", pa.int32()),
        ("seconds", pa.float64()),  # spent training its stages, whoever did
        ("error", pa.string()),  # of a pruned one: by what and at which score
    ),
    # One row per stage of the tree: one pretext task trained from one parent, or one predictor fitted to labels.
    "stages": schema_of(
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
        ("process", pa.string()),  # who trained and judged it; null where that was not a run into this folder
        ("began", pa.float64()),  # seconds since 1970, of the job with its judging
        ("ended", pa.float64()),
        ("libraries", pa.string()),  # and their versions
        ("error", pa.string()),
    ),
    # One row per epoch of a stage.
    "epochs": schema_of(
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
        ("val_parts", pa.string()),  # then too: JSON, as parts
        ("knn", pa.float64()),  # balanced accuracy on validation cases, in the epochs that train.knn_every names
    ),
    # One row per number: what a protocol says of a stage's (or the root's) encoders, or of a fit's predictions.
    "scores": schema_of(*JUDGED, *NUMBER),
    # One row per cell of a confusion matrix that is not 0.
    "confusions": schema_of(
        *JUDGED,
        ("label", pa.string()),
        ("truth", pa.string()),
        ("predicted", pa.string()),
        ("count", pa.int32()),  # cases
    ),
    # One row per held-out case and class: what a classifier or fit said of it.
    "predictions": pa.schema(PREDICTED),
    "test_predictions": pa.schema(PREDICTED),
    # One row per number on the test split: of the curricula that it was opened for.
    "tests": schema_of(
        ("opening", pa.int32()),  # which one of this data set's test split it was, of those that its store knows
        ("when", pa.string()),  # in UTC
        ("rule", pa.string()),  # why it was chosen
        *JUDGED,
        *NUMBER,
    ),
    # One row per judgement: what became of it.
    "judgements": schema_of(
        *JUDGED,
        ("status", pa.string()),  # done | failed
        ("reused", pa.bool_()),  # not made by this run
        ("seconds", pa.float64()),
        ("reason", pa.string()),  # why it failed
    ),
    # One row per segment: the first epochs of a stage, after which a rate was chosen or a pruner asked.
    "segments": schema_of(
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
    ),
}

GOES_ON, NOT_CHOSEN, CUT = "goes on", "not chosen", "pruned"  # what becomes of a segment
ENDED = (NOT_CHOSEN, CUT)  # of these nothing is needed but the result
PRETEXT, FIT = "pretext", "fit"  # kinds of stages
# What a row, or a table of an earlier version, means where it does not say it.
DEFAULTS: dict[str, Any] = {"root": "", "data": "data", "labelled": "all", "draw": 0, "kind": PRETEXT}
# Tables that studies of earlier versions lack: there they are empty.
LATER = ("segments", "confusions", "judgements", "predictions", *OPENED)


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the named schema; what a row lacks is its default, else null."""
    rows, schema = list(rows), SCHEMAS[name]
    columns = [pa.array([row.get(f.name, DEFAULTS.get(f.name)) for row in rows], f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def complete(name: str, table: pa.Table) -> pa.Table:
    """A table with the columns of its schema: those that an earlier version lacked hold their default, else null."""
    schema = SCHEMAS[name]
    columns = [
        (table[f.name] if table[f.name].type == f.type else table[f.name].cast(f.type))
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
    resampled: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # by measure, see board/differences

    def __getattr__(self, name: str) -> pa.Table:
        try:
            return self.__dict__["tables"][name]
        except KeyError:
            raise AttributeError(f"no table '{name}': {nearest(name, SCHEMAS)}") from None

    @property
    def origin(self) -> str:
        """Which code made these tables, and what tells them from others: figures carry it."""
        made = {(row["version"] or "", row["commit"] or "") for row in self.stages.to_pylist()}
        code = ", ".join(f"dermsearch {v}".strip() + f" ({commit[:9]})" * bool(commit) for v, commit in sorted(made))
        # A later version adds columns, and they are empty here: that makes no other tables of these.
        named = zip(self.scores.column_names, self.scores.columns, strict=True)
        told = [name for name, column in named if column.null_count < len(column)]
        return f"{code}; scores {checksum(self.scores.select(told))}"

    def pandas(self, name: str) -> Any:
        """The named table as a pandas DataFrame."""
        return getattr(self, name).to_pandas()


def load(folder: str | Path) -> Results:
    """The tables of a study's folder, in one line."""
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"there is no folder '{folder}'; name that of a study's results")
    files = {name: folder / "tables" / f"{name}.arrow" for name in SCHEMAS}
    missing = [name for name, file in files.items() if not file.is_file() and name not in LATER]
    if missing:
        raise UserError(f"{folder}: not the folder of a study: it has no tables/{missing[0]}.arrow")
    study = read_study(folder)
    tables = {name: whole(name, f) if f.is_file() else build(name, []) for name, f in files.items()}
    return Results(folder, study, tables)


def whole(name: str, file: Path) -> pa.Table:
    """The table of that name from its file, which holds no other: what a later version adds no table of ours has."""
    table = read(file)
    known, ours = set[str]().union(*(schema.names for schema in SCHEMAS.values())), SCHEMAS[name].names
    strange = [column for column in table.column_names if column in known and column not in ours]
    try:
        if strange or ours[0] not in table.column_names:
            raise ValueError(f"it has {strange[0]}" if strange else f"it has no {ours[0]}")
        return complete(name, table)
    except (pa.ArrowException, ValueError) as error:
        said = f"{file}: is no table of {name} ({first_line(error)})"
        raise UserError(f"{said}; {mended(file)}") from None


# What tables are read by, of a study; a file that says something else is none.
SHAPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "published": (str, list),
    **dict.fromkeys(("data", "encoder", "curriculum", "downstream", "objective", "search"), dict),
}


def read_study(folder: Path) -> dict[str, Any]:
    """The study of a folder of results as plain data; nothing where it does not say. UserError if that is no study."""
    import yaml

    path = folder / "study.yaml"
    if not path.is_file():
        return {}
    try:
        study = yaml.safe_load(path.read_text("utf-8"))
        why = wrong(study)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else first_line(error)
    if why:
        raise UserError(f"{path}: is not a study ({why}); run the study again with --out {folder}, or take it away")
    return dict(study)


def wrong(study: Any) -> str:
    """What of it is not as a study has it."""
    if not isinstance(study, dict):
        return "not a mapping"
    for name, kind in SHAPES.items():
        if study.get(name) is not None and not isinstance(study[name], kind):
            return f"{name} is {type(study[name]).__name__}"
    named = study.get("published") or []
    words = [("published", word) for word in (named if isinstance(named, list) else [named])]
    objective = study.get("objective") or {}
    mean = objective.get("mean")
    words += [(name, word) for name, word in objective.items() if name != "mean"]
    words += [("mean", word) for word in (mean if isinstance(mean, list | tuple) else [mean])]
    odd = [(name, word) for name, word in words if not isinstance(word, str | int | None)]
    return next((f"{str(name)[:40]!r} is no name but {type(word).__name__}" for name, word in odd), "")
