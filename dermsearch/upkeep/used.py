"""What the studies with results in some folders need of a stage store. One that cannot say it stops the question."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.errors import UserError
from dermsearch.regular import bytes_of
from dermsearch.results.tables.schema import ENDED, LATER, read
from dermsearch.upkeep.inventory import shown

STUDY, SEGMENTS = "study.yaml", "segments"


@dataclass
class Used:
    """What the tables of some studies name."""

    stages: dict[str, set[str]] = field(default_factory=dict)  # key -> studies
    segments: dict[str, bool] = field(default_factory=dict)  # key -> may a stage go on from it?
    judged: set[tuple[str, str]] = field(default_factory=set)  # (stage, protocol)
    data: list[dict[str, Any]] = field(default_factory=list)  # the data sections of the studies


def used_by(folders: Iterable[Path]) -> Used:
    """What the studies with results in these folders, or anywhere below, have used."""
    used = Used()
    for folder in folders:
        studies = list(_studies(folder))
        if not studies:
            raise UserError(f"--studies: there are no results of a study in '{folder}' or below")
        for study in studies:
            try:
                _add(used, study)
            except (OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, RecursionError):
                raise UserError(
                    f"--studies: {STUDY} or tables of '{shown(str(study))}' are missing or damaged, so nobody can tell "
                    "what it needs; run the study again, or take its folder away"
                ) from None
    return used


def _studies(folder: Path) -> Iterator[Path]:
    """The folders that look like a study's results, there and below, behind links too; each once."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            about = here.stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            names = sorted(os.listdir(here))
        except NotADirectoryError:
            continue
        except OSError as error:
            if here == folder and isinstance(error, FileNotFoundError):
                continue
            raise UserError(
                f"--studies: '{shown(str(here))}' cannot be read ({error.strerror}), so nobody can tell what studies "
                "behind it need; mend it, or take it away"
            ) from None
        if STUDY in names or ("tables" in names and any(n.endswith(".arrow") for n in _listed(here / "tables"))):
            yield here
        waiting += [here / name for name in reversed(names) if (here / name).is_dir() or _leads_nowhere(here / name)]


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _leads_nowhere(path: Path) -> bool:
    """Is it a link to what is not there? A study's results may have been."""
    return path.is_symlink() and not path.exists()


def _add(used: Used, study: Path) -> None:
    """Note what a study's tables name; whatever is raised says that they do not."""
    import yaml

    try:
        about = yaml.safe_load(bytes_of(study / STUDY))
    except yaml.YAMLError as error:
        raise ValueError(error) from None
    name, data = about["name"], about["data"]
    if not isinstance(name, str):
        raise TypeError(name)
    stages, scores = _table(study, "stages"), _table(study, "scores")
    tables = {table: (study / "tables" / f"{table}.arrow").is_file() for table in LATER}
    segments = []
    if any(tables.values()):  # else of an earlier version, which had none of them
        segments = list(_segments(_table(study, SEGMENTS).to_pylist()))
    data = list(data.values()) if all(isinstance(each, dict) for each in data.values()) else [data]
    judged = list(zip(scores["stage"].to_pylist(), scores["protocol"].to_pylist(), strict=True))
    fits = zip(stages["key"].to_pylist(), stages["task"].to_pylist(), strict=True)  # judged for themselves
    keys = {*stages["key"].to_pylist(), *stages["parent"].to_pylist(), *(s for s, _ in judged)}
    for key, more in segments:
        used.segments[key] = used.segments.get(key, False) or more
    used.data += data
    used.judged |= {*judged, *fits}
    for key in keys:
        used.stages.setdefault(key, set()).add(name)


def _table(study: Path, name: str) -> pa.Table:
    """A table, looked at closely: what is damaged must not be taken for what is needed, or end the process."""
    table = read(study / "tables" / f"{name}.arrow")
    table.validate(full=True)
    return table


def _segments(rows: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Each segment, and whether its stage may go on from it: only from the longest, and only while it is not ended."""
    longest = {row["stage"]: row["key"] for row in sorted(rows, key=lambda row: row["until"])}
    for row in rows:
        yield row["key"], row["key"] == longest[row["stage"]] and row["verdict"] not in ENDED
