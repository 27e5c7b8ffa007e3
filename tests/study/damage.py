"""What can be wrong with a study, and what the command says of it: shared by the tests of this folder."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from hypothesis import assume
from hypothesis import strategies as st

from dermsearch.cli.main import main
from dermsearch.evaluate.base import PROTOCOLS
from dermsearch.pretext.base import find_task, task_names
from dermsearch.study.config import Study, Train
from dermsearch.study.reading import DEEPEST, LARGEST
from dermsearch.study.wording import models_in

STUDY = Path(__file__).parent / "study.yaml"  # the shape of the shipped study, which may change without these tests
TEXT = STUDY.read_text()
BASE: dict[str, Any] = yaml.safe_load(TEXT)


def dermsearch(*words: str) -> tuple[int, str]:
    """The console script in this process: exit code and stderr. Whatever would train fails the test instead."""
    said = io.StringIO()
    started = AssertionError("started")
    with (
        patch.object(sys, "argv", ["dermsearch", *words]),
        patch("dermsearch.run.run.run_engine", side_effect=started),
        patch("dermsearch.run.run.Proposer", side_effect=started),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as leaving:
            return int(leaving.code or 0), said.getvalue()
    return 0, said.getvalue()


def refused(text: str | bytes, *overrides: str) -> str:
    """What `run` says of a study that it must refuse, in a folder that must stay as it was."""
    had_ray = "ray" in sys.modules
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        code, said = dermsearch("run", "study.yaml", *overrides)
        assert os.listdir() == ["study.yaml"], "something was written"
    assert code == 2, (code, said)
    assert had_ray or "ray" not in sys.modules
    assert said.startswith("dermsearch: ") and said.endswith("\n") and said.count("\n") == 1, said
    assert "Traceback" not in said and said.strip().isprintable() and len(said) < 1000, said
    return said.removeprefix("dermsearch: ").strip()


@dataclass(frozen=True)
class Damage:
    """A study that is wrong, and a pattern that the message about it must contain."""

    text: str | bytes
    named: str
    overrides: tuple[str, ...] = ()


def field(name: str) -> str:
    """The message names this field or a part of it."""
    return rf": {re.escape(name)}(\.\w+)*: \S"


def changed(changes: dict[str, Any], named: str) -> Damage:
    """The shipped study with other values at dotted paths."""
    raw = copy.deepcopy(BASE)
    for path, value in changes.items():
        *sections, last = path.split(".")
        at = raw
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = value
    return Damage(yaml.safe_dump(raw, sort_keys=False), named)


def sections(at: Any = BASE, path: str = "") -> list[str]:
    """The dotted path of every mapping of the shipped study."""
    inner = [s for k, v in at.items() if isinstance(v, dict) for s in sections(v, f"{path}.{k}".strip("."))]
    return [path, *inner]


def allowed_in(section: str) -> set[str]:
    """The keys that a section of a study may have."""
    parts = section.split(".") if section else []
    if parts[:2] == ["curriculum", "tasks"]:
        return {*find_task(parts[2]).Config.model_fields, *Train.model_fields} if len(parts) == 3 else {*task_names()}
    if parts[:1] == ["downstream"]:
        own = {*PROTOCOLS.find(parts[1]).Config.model_fields, "labelled", "repeats"} if len(parts) == 2 else set()
        return own or {*PROTOCOLS.names()}
    models = models_in(Study.model_fields[section].annotation if section else Study)
    return {name for model in models for name in model.model_fields}


TASK = "curriculum.tasks"


def under(section: str, names: str) -> list[str]:
    """The dotted paths of some fields of one section."""
    return [f"{section}.{name}" for name in names.split()]


WHOLE = [
    *under("data", "cases size seed"),
    *under("train", "epochs batch accumulate patience knn_every"),
    *under("search", "sampler_seed lag"),
    *under("compute", "workers threads retries"),
    *under(TASK, "moco_v2.queue moco_v2.epochs odc.clusters"),
]
WHOLE_UNBOUNDED = under("downstream", "knn.k linear.max_iter")
REAL = [
    "compute.gpus",
    *under(TASK, "moco_v2.temperature odc.dropout"),
    *under("downstream", "knn.temperature linear.c"),
]
REAL_OR_NONE = [
    *under("train", "lr weight_decay weight_decay_end momentum warmup final_lr factor clip"),
    f"{TASK}.odc.lr",
]
WORD = ["data.source", "encoder.branches", "train.precision", "objective.metric", "search.sampler", "compute.engine"]
WORD_OR_NONE = ["train.optimizer", "train.schedule", f"{TASK}.odc.optimizer"]
BOOL = ["data.transductive", "compute.compile", "curriculum.repeats", "downstream.knn.balanced"]
LIST = ["data.modalities", "search.seeds", "curriculum.length"]
SECTION = ["data", "encoder", "curriculum", TASK, "train", "downstream", "objective", "search", "compute"]
SECTION_OR_NONE = [f"{TASK}.odc", "downstream.knn"]
NAME = ["name", "encoder.name", "published", "objective.protocol", "objective.label"]
PATH = ["compute.store", "data.path"]

BAD_TEXT = ["many", "12", "", "0x10", "\x00", "a\nb", "\x1b[31mred", "'; rm -rf /", "x" * 5000]
BAD_NAMES = ["../../x", "a/b", "", "..", ".hidden", "a\nb", "a\x00b", "x" * 65, "ü", " a", "-rf", "a b", "~", "C:\\x"]
BAD_PATHS = ["", " ", "a\nb", "a\x00b", "x" * 1001, "x" * 300, "~nobody-of-that-name/x", "\x1b[31m", "a\u2028b"]
NUMBERS = [10**30, float("inf"), float("-inf"), float("nan"), 10**400, -(10**400), -1, -0.5]


@st.composite
def wrong_values(draw: st.DrawFn) -> Damage:
    """A value of the wrong type, or out of bounds."""
    odd: list[Any] = [[1], {"a": 1}, [[]], {"a": {"b": None}}]
    path, bad = draw(
        st.sampled_from(
            [(p, [*BAD_TEXT, *NUMBERS, 1.5, True, None, *odd]) for p in WHOLE]
            + [(p, [*BAD_TEXT, -1, 1.5, True, None, *odd]) for p in WHOLE_UNBOUNDED]
            + [(p, [*BAD_TEXT, -1, float("nan"), True, *odd]) for p in REAL_OR_NONE]
            + [(p, [*BAD_TEXT, -1, float("nan"), True, None, *odd]) for p in REAL]
            + [(p, [*BAD_TEXT, *NUMBERS, True, *odd]) for p in WORD_OR_NONE]
            + [(p, [*BAD_TEXT, *NUMBERS, True, None, *odd]) for p in WORD]
            + [(p, [*BAD_TEXT, 0, 1, None, *odd]) for p in BOOL]
            + [(p, [*BAD_TEXT, 3, True, None, [], [None], [["a"]], [-1], {"a": 1}]) for p in LIST]
            + [(p, [*BAD_TEXT, 3, True, None, [3]]) for p in SECTION]
            + [(p, [*BAD_TEXT, 3, True, [3]]) for p in SECTION_OR_NONE]
            + [(p, [*BAD_NAMES, 3, True, *odd]) for p in NAME]
            + [(p, [*BAD_PATHS, 3, True, *odd]) for p in PATH]
        )
    )
    source = {"data.source": "store"} if path == "data.path" else {}
    return changed({**source, path: draw(st.sampled_from(bad))}, field(path))


@st.composite
def unknown_keys(draw: st.DrawFn) -> Damage:
    """A key that does not exist, or one that exists, misspelt."""
    section = draw(st.sampled_from(sections()))
    inside = f"{section}." if section else ""
    if draw(st.booleans()):
        key = draw(st.from_regex(r"[a-z]{1,12}_x[a-z0-9]{0,3}", fullmatch=True))
        return changed({inside + key: draw(st.sampled_from([1, "x", None, {}, [1]]))}, field(inside + key))
    at = BASE
    for part in section.split(".") if section else []:
        at = at[part]
    assume(at)
    key = draw(st.sampled_from(list(at)))
    i = draw(st.integers(0, len(key) - 1))
    typo = draw(st.sampled_from([key[:i] + key[i:][:1] + key[i:], key[:i] + "q" + key[i + 1 :], key.upper()]))
    assume(typo not in allowed_in(section))
    raw = copy.deepcopy(BASE)
    there = raw
    for part in section.split(".") if section else []:
        there = there[part]
    there[typo] = there.pop(key)
    named = field(inside + typo)
    if inside + key == "downstream.linear":  # what the objective wants is then missing
        named = field("objective.protocol")
    return Damage(yaml.safe_dump(raw, sort_keys=False), named)


@st.composite
def removed_keys(draw: st.DrawFn) -> Damage:
    """A study without what it cannot do without."""
    path, named = draw(
        st.sampled_from([(p, p) for p in ("name", "curriculum", "curriculum.tasks")] + [("downstream.linear", "")])
    )
    raw = copy.deepcopy(BASE)
    *parts, last = path.split(".")
    at = raw
    for part in parts:
        at = at[part]
    del at[last]
    return Damage(yaml.safe_dump(raw, sort_keys=False), field(named or "objective.protocol"))


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    *(({"curriculum.length": v}, "curriculum.length") for v in ([2, 1], [1, 4], [0, 1], [1, 9], [1], [1, 2, 3])),
    ({"curriculum.repeats": True, "curriculum.length": [1, 9]}, "curriculum.length"),
    ({TASK: ["odc"]}, "curriculum.length"),
    ({TASK: ["odc", "odc", "moco_v2"]}, TASK),
    ({f"{TASK}.jigsaw": {}}, f"{TASK}.jigsaw"),
    ({TASK: {"../../x": {}}}, f"{TASK}.../../x"),
    ({"objective.protocol": "svm"}, "objective.protocol"),
    ({"downstream": {"knn": None}}, "objective.protocol"),
    ({"downstream.svm": {}}, "downstream.svm"),
    ({"objective.label": "melanoma"}, "objective.label"),
    ({"train.batch": 100, "compute.workers": 3}, "train.batch"),
    ({f"{TASK}.odc.batch": 65, "compute.workers": 2}, f"{TASK}.odc.batch"),
    ({"train.batch": 64, "compute.workers": 64}, "compute.workers"),
    ({"compute.engine": "inline", "compute.workers": 2}, "compute.workers"),
    *(({f"{TASK}.moco_v2.queue": v}, f"{TASK}.moco_v2.queue") for v in (100, 448, 4096)),
    ({f"{TASK}.moco_v2": {}, "train.batch": 60}, f"{TASK}.moco_v2.queue"),
    ({"data.cases": 100}, f"{TASK}.moco_v2.queue"),
    *(({f"{TASK}.odc.clusters": v}, f"{TASK}.odc.clusters") for v in (22, 64)),  # 420 images, 20 for each
    ({f"{TASK}.odc.small": 40}, f"{TASK}.odc.clusters"),
    ({f"{TASK}.moco_v2.lr": {"log": [0.01, 0.1]}}, f"{TASK}.moco_v2.lr"),  # the sampler is grid
    ({f"{TASK}.moco_v2.precision": "bf16"}, f"{TASK}.moco_v2.precision"),
    ({"search.sampler": "tpe"}, "search.trials"),
    ({"search.sampler": "random"}, "search.trials"),
    ({"search.seeds": [1, 1]}, "search.seeds"),
    ({"search.seeds": [2**31]}, "search.seeds"),
    ({"data.modalities": ["derm", "derm"]}, "data.modalities"),
    ({"data.modalities": ["derm", "sonogram"]}, "data.modalities"),
    ({"data.source": "store"}, "data.path"),
    ({"data.path": "cases"}, "data.path"),
    ({"data.size": 600}, "data.size"),
    ({"published": "aiseeme_table9"}, "published"),
    ({"encoder.name": "resnet19"}, "encoder.name"),
    ({"encoder.name": "mixer_b16_224"}, "encoder.name"),  # takes 224 px, the study has 64
    (
        {f"{TASK}.moco_v2": {"queue": {"choice": [64, 128]}, "batch": {"choice": [64, 128]}}},
        f"{TASK}.moco_v2.queue",
    ),
    (
        {f"{TASK}.moco_v2.queue": {"range": [64, 256]}, "search.sampler": "tpe", "search.trials": 4},
        f"{TASK}.moco_v2.queue",
    ),
]
NAN = float("nan")
FORMS: list[Any] = [
    *({}, {"choice": []}, {"choice": 3}, {"choice": None}, {"choise": [1]}, {"choice": [1], "log": [1, 2]}),
    *({"choice": [None]}, {"choice": [[1]]}, {"choice": [{}]}, {"choice": ["a"]}, {"choice": [-1]}, {"choice": [NAN]}),
    *({"log": [1]}, {"log": [2, 1]}, {"log": [1, 1]}, {"log": [0, 1]}, {"log": [-1, 1]}, {"log": 3}, {"log": [NAN, 1]}),
    *({"range": [1, "a"]}, {"range": [1, 2, 3]}, {"range": [True, 2]}, {"range": [1, 10**400]}, {"range": "1-2"}),
]


@st.composite
def dimensions(draw: st.DrawFn) -> Damage:
    """A dimension of the search in a form that does not exist, or with values that cannot be."""
    path = draw(st.sampled_from([f"{TASK}.moco_v2.queue", f"{TASK}.odc.dropout", f"{TASK}.odc.lr"]))
    search = draw(st.sampled_from([{}, {"search.sampler": "tpe", "search.trials": 3}]))
    return changed({**search, path: draw(st.sampled_from(FORMS))}, field(path))


LINE = r"^study\.yaml:\d+: "
LINES = [
    *("\tx: 1", "x: !!python/object/apply:os.system [ls]", "x: !!int '3'", "x: *a", "x: &a [*a]", "name: again"),
    *("data: {}", "? [a, b]\n: 1", "1: 2", "true: 2", "<<: {name: x}", "x: 'never closed", "x: [1, 2", "x: {a: 1", "@"),
    *("x: 2020-13-45", "x: 0x_", "x: " + "9" * 5000, "- 3", "x: y: z", "}", "---\nname: x", " x: 3", ": 3", "x"),
]


@st.composite
def broken_texts(draw: st.DrawFn) -> Damage:
    """Text that is no YAML, or YAML that no study needs."""
    kind = draw(st.sampled_from(["cut", "line", "bytes", "deep", "not a mapping", "large"]))
    if kind == "cut":
        return draw(truncated())
    if kind == "line":
        starts = [m.start() for m in re.finditer(r"^[a-z]", TEXT, re.MULTILINE)][1:]
        at = draw(st.sampled_from([*starts, len(TEXT)]))
        return Damage(TEXT[:at] + draw(st.sampled_from(LINES)) + "\n" + TEXT[at:], LINE)
    if kind == "bytes":
        bad, at = draw(st.sampled_from([b"\xff", b"\x00", b"\x80abc", b"\x07"])), draw(st.integers(0, len(TEXT)))
        return Damage(TEXT.encode()[:at] + bad + TEXT.encode()[at:], LINE)
    if kind == "deep":
        many = draw(st.integers(DEEPEST, 3000))
        block = "".join(" " * i + "x:\n" for i in range(min(many, 200)))
        return Damage(TEXT + draw(st.sampled_from(["x: " + "[" * many, "x: " + "[" * many + "]" * many, block])), LINE)
    if kind == "large":
        return Damage(TEXT + "#" * LARGEST, "is larger than 1000 kB")
    return Damage(
        draw(st.sampled_from(["", "# nothing", "3", "[1, 2]", "text", "null", "--- \n..."])), "a mapping of sec"
    )


@st.composite
def truncated(draw: st.DrawFn) -> Damage:
    """The file up to some character, where what is left is not a whole study by chance."""
    text = TEXT[: draw(st.integers(0, len(TEXT) - 1))]
    try:
        left = yaml.safe_load(text)
    except yaml.YAMLError:
        return Damage(text, LINE + "not valid YAML")
    if not isinstance(left, dict):
        return Damage(text, "a mapping of sections")
    whole = {"name", "curriculum"} <= left.keys() and all(BASE[k] == v for k, v in left.items() if k in BASE)
    assume(not whole)
    return Damage(text, r"^study\.yaml(:\d+)?: [a-z_]+(\.\w+)*: \S")


BAD_OVERRIDES = [
    *(("epochs=3", ": epochs: "), ("train.epoch=3", ": train.epoch: "), ("train.epochs=abc", ": train.epochs: ")),
    *(("noequals", "'noequals'"), ("=3", "'=3'"), (".=3", "'.=3'"), ("train..epochs=3", "'train..epochs=3'")),
    ("train.lr={select: [0.1, 1]}", ": train.lr: must be a number, .*only what stands under a task"),
    *(("train.epochs=[1", ": train.epochs: "), ("train.epochs.x=3", ": train.epochs.x: "), ("train=3", ": train: ")),
    *(("train.epochs=", ": train.epochs: "), ("data.modalities.0=derm", ": data.modalities.0: ")),
    *(("moco_v2.que=3", f": {TASK}.moco_v2.que: "), ("moco_v2.queue=300", f": {TASK}.moco_v2.queue: ")),
    *(("moco_v3.queue=256", ": moco_v3: "), ("odc=off", f": {TASK}.odc: "), ("name=../../x", ": name: ")),
    *(("train.lr=!!python/name:os.system", ": train.lr: "), ("train.lr=*a", ": train.lr: "), ("a\nb=3", ": a.b: ")),
    ("curriculum.tasks=[-x]", f": {TASK}.-x: must be a name "),
    *(("compute.store=~nobody-of-that-name", ": compute.store: "), ("train.lr=" + "[" * 500, ": train.lr: ")),
]


damages = st.one_of(
    wrong_values(),
    unknown_keys(),
    removed_keys(),
    st.sampled_from(IMPOSSIBLE).map(lambda c: changed(c[0], field(c[1]))),
    dimensions(),
    broken_texts(),
    st.sampled_from(BAD_OVERRIDES).map(lambda o: Damage(TEXT, o[1], (o[0],))),
)
