"""The test split, opened for what validation chose: each is judged there by all protocols of its study, and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from dermsearch.curriculum import ROOT_CURRICULUM
from dermsearch.data.mixed import open_sets
from dermsearch.data.open import open_cases
from dermsearch.errors import UserError, nearest
from dermsearch.results.board.leaderboard import Row, leaderboard
from dermsearch.results.board.row import contenders
from dermsearch.results.tables.file import turn
from dermsearch.results.tables.schema import OPENED, PRETEXT, SCHEMAS, Results, build, load, write
from dermsearch.results.tables.writer import joined
from dermsearch.run.folder import stages_of
from dermsearch.run.record import provenance, told
from dermsearch.run.roots import starts
from dermsearch.run.run import cache_folder, sets_of
from dermsearch.search.tree.jobs import Jobs
from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.look_up import LookUp
from dermsearch.search.tree.node import Node
from dermsearch.search.tree.roots import plant
from dermsearch.search.tree.tree import Tree
from dermsearch.storage.stages import StageStore
from dermsearch.study.config import Study
from dermsearch.study.load import load_study
from dermsearch.training.precision import resolve
from dermsearch.work.worker import run_job

WHOSE = ["stage", "protocol", "data", "labelled", "draw"]  # a judgement
BEST, SINGLE, NAMED = "best on validation", "best single task", "named"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Opening:
    """The test split was opened: for the how-manieth time, as far as the stage store and the tables know."""

    number: int
    curricula: list[str]


def open_test(folder: Path, curricula: Sequence[str], where: str | None, say: Say) -> Opening:
    """Judge what validation chose, or the curricula that are named, on the test split; `where` is the stage store."""
    results = load(folder)
    study = load_study(str(folder / "study.yaml"))
    store = stages_of(study, where)
    chosen = choose(leaderboard(results), curricula)
    cache = cache_folder(store)
    cases = open_sets(study.sets, cache, lambda data: open_cases(data, cache))
    judged = {entry.data for entry in study.entries.values()}
    for name in judged:
        if not len(cases[name].split("test")):
            raise UserError(f"{cases[name].folder}: has no test split, so '{name}' cannot judge on it")
    precision = resolve(study.train.precision, study.compute.gpus)
    sets, tree = sets_of(study, cases), Tree()
    planted = plant(tree, study, next(iter(sets.values())), starts(study))
    judges = Judges(study, sets, precision, "test")
    jobs = Jobs(study, judges, store.address, str(cache.absolute()), planted)
    look_up = LookUp(store, judges)
    nodes = [(rule, node) for rule, row in chosen for node in regrow(tree, results, row, judges)]
    for _, node in nodes:
        if node.parent is not None and store.manifest(node.key) is None:
            raise UserError(
                f"{store.where}: lacks what '{node.curriculum}' of seed {node.seed} came to, or it is damaged; "
                "`dermsearch run` makes it again, and --store names another store"
            )
    names = [row.name for _, row in chosen]
    when, number = opened(store, study, sorted({sets[name].fingerprint for name in judged}), names)
    number = max(number, 1 + max(results.tests["opening"].to_pylist(), default=0))  # the store may be another one
    scores: list[dict[str, Any]] = []
    predictions: list[tuple[Mapping[str, Any], pa.Table]] = []
    about = {**provenance(study, sets), "caveats": results.scores["caveats"][0].as_py()}
    for done, (rule, node) in enumerate(nodes, 1):
        say(f"[{done}/{len(nodes)}] {node.curriculum}, seed {node.seed}" + (f", {node.judge}" if node.judge else ""))
        record = run_job(jobs.of(node))
        failed = [record.error, *(each.reason for each in record.judged if each.status == "failed")]
        if any(failed):
            raise UserError(f"{node.curriculum}, seed {node.seed}: {'; '.join(filter(None, failed))}")
        for verdict in look_up.verdicts(node):
            own = {"opening": number, "when": when, "rule": rule, **told(node, verdict.judge), **about}
            own["groups"] = cases[verdict.judge.data].grouped
            scores += [{**own, **row} for row in (verdict.judgement or {})["rows"]]
            said = store.predictions(judges.key(node, verdict.judge))
            predictions += [(own, said)] if said is not None else []
    keep(folder, scores, predictions)
    return Opening(number, names)


def choose(rows: Sequence[Row], curricula: Sequence[str]) -> list[tuple[str, Row]]:
    """Those that are named, else the best one and the best single task; always with what they began with."""
    scored = contenders(rows)
    if not scored:
        raise UserError("no curriculum has a score on validation, so none can be chosen")
    if curricula:
        known = {row.name: row for row in reversed(scored)}  # of several settings the best
        for name in curricula:
            if name not in known:
                raise UserError(f"--curriculum: '{name}' has no score on validation; {nearest(name, known)}")
        found = [(NAMED, known[name]) for name in dict.fromkeys(curricula)]
    else:
        singles = [(SINGLE, row) for row in scored if row.length == 1][:1]
        found = [(BEST, scored[0]), *(each for each in singles if each[1] is not scored[0])]
    roots = {row.root for _, row in found}
    beginnings = [row for row in rows if row.curriculum == ROOT_CURRICULUM and row.root in roots]
    if not scored[0].length:
        beginnings = [row for row in rows if row.score is not None and not row.given]
    beginnings = [row for row in beginnings if all(row is not chosen for _, chosen in found)]
    return found + [(ROOT_CURRICULUM, row) for row in beginnings]


def regrow(tree: Tree, results: Results, row: Row, judges: Judges) -> Iterator[Node]:
    """The nodes of a row of the leaderboard, a stage or root for each seed with its fits, from the tables."""
    stages = {stage["key"]: stage for stage in results.stages.to_pylist()}

    def node(key: str) -> Node:
        stage = stages.get(key)
        if stage is None or stage["kind"] != PRETEXT:
            if key not in tree.nodes:
                raise UserError(f"{results.folder}: its tables are of other data, or of another encoder; run it again")
            return tree.nodes[key]
        return tree.child(node(stage["parent"]), key, stage["task"], json.loads(stage["settings"]))

    for key in row.keys:
        own = node(key)
        yield own
        for judge in judges.fits:
            fit = stages.get(judges.fit_key(own, judge))
            if fit is not None:
                yield tree.child(own, fit["key"], fit["task"], json.loads(fit["settings"]), judge=judge)


def opened(store: StageStore, study: Study, fingerprints: Sequence[str], names: Sequence[str]) -> tuple[str, int]:
    """Write down that these data sets' test splits are opened: when, and which opening in this store it is."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    for fingerprint in fingerprints:
        store.note_opening(fingerprint, {"study": study.name, "curricula": list(names), "when": when})
    return when, max(store.openings(fingerprint) for fingerprint in fingerprints)


def keep(folder: Path, scores: list[dict[str, Any]], predictions: list[tuple[Mapping[str, Any], pa.Table]]) -> None:
    """Add to what others left, those too that ended since this one began: nothing that was seen is forgotten.

    What a judge said of a case at another opening, it says again: that stands once.
    """
    with turn(folder / "tables"):  # or of two at once one would be forgotten
        add(folder, scores, predictions)


def add(folder: Path, scores: list[dict[str, Any]], predictions: list[tuple[Mapping[str, Any], pa.Table]]) -> None:
    """Behind what is there now."""
    before = load(folder).tables
    said = before["test_predictions"].unify_dictionaries().group_by(WHOSE).aggregate([]).to_pylist()
    there = {tuple(row[name] for name in WHOSE) for row in said}
    fresh = [(own, table) for own, table in predictions if tuple(own[name] for name in WHOSE) not in there]
    new = {"tests": build("tests", scores), "test_predictions": joined("test_predictions", fresh)}
    for name in OPENED:
        table = pa.concat_tables([before[name].cast(SCHEMAS[name]), new[name]]).unify_dictionaries()
        write(table.combine_chunks(), folder / "tables" / f"{name}.arrow")
