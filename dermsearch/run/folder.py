"""The results folder of a run: new, empty, or that of a study of which this one is more of the same."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dermsearch.errors import UserError, first_line, public
from dermsearch.results.tables.schema import SCHEMAS, read
from dermsearch.run.extends import differences
from dermsearch.search.tree.budget import PAID
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.reading import read as read_yaml

STUDY, JOURNAL, TABLES = "study.yaml", "optuna.journal", "tables"
PART = f".{STUDY}.{{}}.part"
FILES = (STUDY, JOURNAL, PAID, *(f"{TABLES}/{name}.arrow" for name in SCHEMAS))
WHOLE = {"name", "data", "encoder", "curriculum", "train", "downstream", "search", "compute"}  # of a resolved study
HOUR = 3600  # seconds: nobody takes as long to write a file
FOLDERS = (TABLES, "figures", "errors", "tensorboard")


def stages_of(study: Study, where: str | None) -> StageStore:
    """The stage store of a finished study, or the one that is named; it is not made where it is not."""
    try:
        return StageStore(where or study.compute.store, create=False)
    except UserError as error:
        hint = "`dermsearch run` trains what the study needs, and --store names another store"
        raise UserError(f"{error}; {hint}") from None


def check_folder(out: Path, study: Study) -> None:
    """Refuse a folder in which results would take the place of something else, or have none. Leaves nothing."""
    if str(out).encode("utf-8", "replace") != os.fsencode(out):
        raise UserError(f"--out: '{out}' is no UTF-8; name another folder")
    try:
        there = sorted(path.name for path in out.iterdir()) if out.exists() or out.is_symlink() else []
        there = [name for name in there if not fnmatch(name, PART.format("*"))]  # what a killed run had begun to write
        if there and not (out / STUDY).exists() and not (out / STUDY).is_symlink():
            shown = ", ".join(there[:3]) + ", ..." * (len(there) > 3)
            raise UserError(f"--out: '{out}' holds other things ({shown}) and no study; name a new or an empty folder")
        check_kinds(out)
        check_room(out)
    except OSError as error:
        raise UserError(f"--out: '{out}' cannot be used: {error.strerror}") from None
    if not there:
        return
    if not has_rows(out):
        if not of_a_run(out / STUDY):
            raise UserError(f"--out: '{out / STUDY}' would be written over, and no run wrote it; name another folder")
        return
    try:
        differ = differences(earlier(out), json.loads(public(study.model_dump_json())))
    except (TypeError, AttributeError, LookupError):  # it was changed by hand, and is a study of no version
        raise UserError(
            f"--out: '{out / STUDY}' is no study any more, so nobody can tell whose results lie there; "
            "put it right, or name another folder with --out"
        ) from None
    if differ:
        told = "; ".join(differ[:3]) + f"; and {len(differ) - 3} more" * (len(differ) > 3)
        raise UserError(
            f"--out: '{out}' holds the results of another study of that name ({told}); name another folder with --out, "
            "or take that one away"
        )


def check_room(out: Path) -> None:
    """Whether a folder can be made there shows when one is made; it is taken away at once."""
    above = next(path for path in (out, *out.absolute().parents) if path.exists())
    trial = above / PART.format(uuid.uuid4().hex[:8])
    trial.mkdir()
    trial.rmdir()


def check_kinds(out: Path) -> None:
    """Each name that a run writes is what it should be, or not there."""
    for name in FILES:
        path = out / name
        if path.is_symlink():
            raise UserError(f"--out: '{path}' is a link, and what it leads to would be lost; name another folder")
        if path.exists() and not path.is_file():
            raise UserError(f"--out: '{path}' must be a file; take it away, or name another folder")
    for name in FOLDERS:
        if (out / name).is_symlink():
            raise UserError(f"--out: '{out / name}' is a link, and what it leads to would change; name another folder")
        if (out / name).exists() and not (out / name).is_dir():
            raise UserError(f"--out: '{out / name}' must be a folder; take it away, or name another folder")
    try:
        (out / PAID).read_text("utf-8")
    except FileNotFoundError:
        pass
    except UnicodeDecodeError:
        raise UserError(f"--out: '{out / PAID}' is not text in UTF-8; take it away, or name another folder") from None


def has_rows(out: Path) -> bool:
    """Is there anything to lose? Of a table that cannot be read nobody knows."""
    for name in ("stages", "trials", "scores"):
        try:
            if len(read(out / TABLES / f"{name}.arrow")):
                return True
        except FileNotFoundError:
            continue
        except (OSError, UserError):
            return True
    return False


def of_a_run(study: Path) -> bool:
    """Did a run write it? Then every section is there, and no comment."""
    try:
        raw = yaml.safe_load(study.read_text("utf-8"))
        return isinstance(raw, dict) and raw.keys() >= WHOLE and dumped(raw) == study.read_text("utf-8")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False


def dumped(study: dict[str, Any]) -> str:
    """As it stands in a results folder."""
    return public(yaml.safe_dump(study, sort_keys=False))


def earlier(out: Path) -> dict[str, Any]:
    """The study whose results lie there, resolved by this version if it can be."""
    raw, _ = read_yaml(out / STUDY)
    try:
        return Study.model_validate(raw).model_dump(mode="json")
    except ValidationError:
        return raw


def prepare_folder(out: Path, study: Study) -> None:
    """Make the folder, with the study as it was resolved."""
    part = out / PART.format(uuid.uuid4().hex[:8])
    try:
        out.mkdir(parents=True, exist_ok=True)
        part.write_text(dumped(study.model_dump(mode="json")), "utf-8")
        clear(out, part)
        os.replace(part, out / STUDY)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(f"--out: '{out}' cannot be written to: {first_line(error)}") from None


def clear(out: Path, now: Path) -> None:
    """Delete what killed runs had half written an hour before a file that is written now."""
    for left in (*out.glob(".*.part"), *out.glob("*/.*.part")):
        with suppress(OSError):
            if left.stat().st_mtime < now.stat().st_mtime - HOUR:
                left.unlink()
