"""A fit leaves: the predictor whole, its labels by name, what validation says of its probabilities, and a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dermsearch.data.mixed import open_sets
from dermsearch.data.open import open_cases
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError, nearest
from dermsearch.fit.base import predictor
from dermsearch.models.artifact import PREDICTOR
from dermsearch.models.hub import CONFIG
from dermsearch.results.board.clinical import SPECIFICITIES, calibration
from dermsearch.results.board.leaderboard import points
from dermsearch.results.tables.measure import judge_of
from dermsearch.results.tables.said import Answers, parted
from dermsearch.results.tables.schema import Results
from dermsearch.run.export import CARD, Chosen, Exported, begin, config, data_of, make_folder, rights, scores
from dermsearch.run.formats import put_weights
from dermsearch.run.opening import regrow
from dermsearch.run.roots import starts
from dermsearch.run.run import cache_folder, sets_of
from dermsearch.search.tree.judges import Judges
from dermsearch.search.tree.node import Node
from dermsearch.search.tree.roots import plant
from dermsearch.search.tree.tree import Tree
from dermsearch.training.precision import resolve
from dermsearch.work.job import Judge

WEIGHTS = "predictor.safetensors"


def export_fit(
    folder: Path, out: Path, line: str, curriculum: str | None, stage: str | None, where: str | None
) -> Path:
    """Write the predictor that a line of downstream trained from the best curriculum, or from the one that is named."""
    given = begin(folder, out, curriculum, stage, where)
    cache = cache_folder(given.store)
    stores = open_sets(given.study.sets, cache, lambda data: open_cases(data, cache))
    node, judge = fitted(given, line, stores)
    if given.store.manifest(node.key) is None:
        raise UserError(
            f"{given.store.where}: lacks the fit {node.key}, or it is damaged; `dermsearch run` makes it again"
        )
    part = given.store.artifact(node.key)[PREDICTOR]
    cases, data, network = stores[judge.taught], given.study.sets[judge.taught], predictor(part)
    backbone: Any = next(iter(network.encoders.backbones.values()))
    about = config(backbone, network.encoders.name, given, data.modalities, cases, data)
    about["classes"] = {label: list(names) for label, names in cases.classes.items()}
    about["dermsearch"] |= {"judge": str(judge), "predictor": node.key, "normalise": data.normalise}
    about["predictor"] = part.config
    about["validation"] = validation(given.results, given.chosen, judge, cases)
    make_folder(out)
    put_weights(part.state, out / WEIGHTS)
    (out / CONFIG).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    (out / CARD).write_text("\n".join(card(about, given, judge, cases)) + "\n", "utf-8")
    return out


def fitted(given: Exported, line: str, stores: Mapping[str, CaseStore]) -> tuple[Node, Judge]:
    """The fit of that line, as finetune@ham:20, trained from what was chosen: of several draws of labels the first."""
    study, sets, tree = given.study, sets_of(given.study, stores), Tree()
    plant(tree, study, next(iter(sets.values())), starts(study))
    judges = Judges(study, sets, resolve(study.train.precision, study.compute.gpus))
    asked = judge_of(line)
    nodes = [n for n in regrow(tree, given.results, given.chosen.row, judges) if n.judge is not None]
    nodes = [n for n in nodes if n.parent is not None and n.parent.key == given.chosen.key]
    known = {f"{n.judge.protocol}@{n.judge.data}:{n.judge.labelled}": n for n in reversed(nodes) if n.judge}
    for name, node in sorted(known.items(), key=lambda each: each[0].endswith(":all"), reverse=True):
        own = judge_of(name)
        if node.judge and all(value in (None, own[part]) for part, value in asked.items()):
            return node, node.judge
    raise UserError(f"--fit: '{line}' was not trained from '{given.chosen.row.name}'; {nearest(line, known)}")


def validation(results: Results, chosen: Chosen, judge: Judge, cases: CaseStore) -> dict[str, Any]:
    """By label, for the class that is reported: how far its probability is off, and where to cut it."""
    own = {"stage": chosen.key, "protocol": judge.protocol, "data": judge.data, "labelled": judge.labelled}
    rows = results.predictions
    for name, value in {**own, "draw": judge.draw, "split": "val"}.items():
        rows = rows.filter(pc.field(name) == value)
    told = next(iter(parted(rows)), None)
    found: dict[str, Any] = {}
    for label, answers in (told.labels if told else {}).items():
        cls = cases.domain.named.get(label) or (answers.classes[1] if len(answers.classes) == 2 else "")
        if cls in answers.classes:
            numbers = cuts(answers, cls)
            found |= {label: {"class": cls, **numbers}} if numbers else {}
    return found


def cuts(answers: Answers, cls: str) -> dict[str, Any]:
    """The calibration error of a class's probability, and from which probability on so many others are left out."""
    known, of = answers.truth >= 0, answers.classes.index(cls)
    p, has = answers.probabilities[known, of], answers.truth[known] == of
    if has.all() or not has.any():
        return {}
    error = float(calibration(has, p, np.ones((len(p), 1), np.float32))[0])
    places, others = np.append(np.unique(p), np.inf), np.sort(p[~has])
    taken = 1 - np.searchsorted(others, places) / len(others)  # the share of the others at or above each place
    found = {}
    for specificity in SPECIFICITIES:
        cut = float(places[np.argmax(taken <= 1 - specificity + 1e-12)])
        if np.isfinite(cut):
            found[f"{specificity:.0%}"] = {"from": cut, "sensitivity": float((p[has] >= cut).mean())}
    return {"cases": int(known.sum()), "having": int(has.sum()), "calibration_error": error, "at_specificity": found}


def card(about: Mapping[str, Any], given: Exported, judge: Judge, cases: CaseStore) -> Iterator[str]:
    """The card of a predictor."""
    own, study = about["dermsearch"], given.study
    yield from ("---", "tags: [image-classification, dermsearch]", "---", "")
    yield f"# {judge} from {own['curriculum']}"
    yield ""
    yield f"Probabilities of {', '.join(about['classes'])} from {' and '.join(own['modalities'])} images, by a"
    yield f"predictor that study `{study.name}` of dermsearch {own['version']} trained on labelled cases."
    yield from ("", "## Use", "", "```", "dermsearch predict FOLDER IMAGES... -o predictions.csv", "```", "")
    yield from ("It takes dermsearch: the file holds the whole network by dermsearch's own names.", "", "## Labels", "")
    for label, names in about["classes"].items():
        yield f"* {label}: {', '.join(names)}"
    yield from ("", "## How it was made", "")
    yield f"* data: {data_of(study, cases, study.sets[judge.taught])}{rights(cases, study.sets[judge.taught])}"
    yield f"* labels: {judge.labelled}, draw {judge.draw}"
    yield f"* {judge.protocol}: {json.dumps(judge.config)}"
    yield f"* seed {own['seed']}; fit `{own['predictor']}` of stage `{own['stage']}`; {own['origin']}"
    yield from ("", "## What it scores", "")
    yield from scores(given.results, given.chosen.row, judge.protocol)
    if about["validation"]:
        yield ""
        yield "Probabilities on validation, of the class that is reported; where to cut them was chosen there too:"
        yield from ("", "| label | class | cases that have it | calibration error, % | cut: specificity, sensitivity |")
        yield "|---|---|---|---|---|"
    for label, found in about["validation"].items():
        at = [f"{each['from']:.3f}: {s}, {each['sensitivity']:.0%}" for s, each in found["at_specificity"].items()]
        error = points(found["calibration_error"])
        yield f"| {label} | {found['class']} | {found['having']} of {found['cases']} | {error} | {'; '.join(at)} |"
    if given.chosen.row.measure.caveats:
        yield from ("", f"Caution: {given.chosen.row.measure.caveats}.")
    yield from ("", "Not for diagnosis: it was judged on the cases of this study alone.")
