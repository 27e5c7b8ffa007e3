"""Borrowed rows: against numbers made by hand, on stores, in a study's data, and refused where they are another's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest_search import make_study
from rich.console import Console

from dermsearch.data.case import SPLITS, Case, columns
from dermsearch.data.open import open_cases
from dermsearch.data.prepare.build import write_store
from dermsearch.data.store import borrowed
from dermsearch.data.store.case_store import CaseStore
from dermsearch.errors import UserError
from dermsearch.evaluate.nearest import NONE, nearest
from dermsearch.run.run import run_study
from dermsearch.study.data import Data
from dermsearch.work.borrow import UNKNOWN, Lending, borrow, mean_of, path_of, share_of, vote, votes
from dermsearch.work.eye import Eye, open_eye

# slimp.md 4.6
KEYS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0], [0.6, 0.8]])
AGES = (30.0, 50.0, None, 70.0, 40.0)
SITES = ("face", "back", "back", None, "face")
QUERIES = np.array([[2, 0.9], [-3, 2], [0.1, -1]])
COLUMNS = (*columns("patient", ["age"]), *columns("lesion", words=["site"]))
NAMES = ("age", "site")


def store(
    folder: Path, rows: list[tuple[float | None, str | None]], patients: str = "", split: str = "train"
) -> CaseStore:
    """One case for each row, whose picture is its number."""
    cases = []
    for i, (age, site) in enumerate(rows):
        image = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        patient = f"p{patients[i]}" if patients else f"{folder.name}{i}"
        cases.append(Case(f"c{i}", "", patient, {"derm": image}, {"diagnosis": i % 2}, {"age": age, "site": site}))
    named = {c.case: split if split in SPLITS else SPLITS[int(split[i])] for i, c in enumerate(cases)}
    return write_store(folder, cases, named, {"diagnosis": ("a", "b")}, {"source": folder.name}, COLUMNS)


@dataclass(frozen=True)
class Told(Eye):
    """An eye that sees what a test says, by store."""

    features_of: dict[str, np.ndarray]  # type: ignore[misc]

    def features(self, cases: CaseStore, rows: np.ndarray) -> np.ndarray:
        return self.features_of[cases.folder.name][rows]


def eye(**features: np.ndarray) -> Told:
    return Told("s" * 32, None, Data(size=32), features)  # type: ignore[arg-type]


@pytest.fixture
def two(tmp_path: Path) -> tuple[CaseStore, CaseStore, Told]:
    """Three cases of which nothing is known, and the five of the oracle."""
    target = store(tmp_path / "target", [(None, None)] * 3)
    reference = store(tmp_path / "reference", list(zip(AGES, SITES, strict=True)))
    return target, reference, eye(target=QUERIES, reference=KEYS)


def told(table: pa.Table) -> tuple[list, list]:
    return [None if a is None else round(a, 6) for a in table["age"].to_pylist()], table["site"].to_pylist()


@pytest.mark.parametrize(
    ("how", "ages", "sites"),
    [
        (Lending(), [50, 70, 30], ["back", None, "face"]),
        (Lending(k=3), [40, 55, 50], ["face", "back", "face"]),
        (Lending(k=3, weights="near"), [42.490020, 69.995806, 34.837876], ["back", "back", "face"]),
        (Lending(least=0.9), [50, None, None], ["back", None, None]),
    ],
)
def test_the_oracle(two, how: Lending, ages: list, sites: list, tmp_path: Path) -> None:
    table = borrow(*two, how, tmp_path / "rows.arrow")["nearest"]
    found, words = told(table)
    assert words == sites
    assert found == (ages if None in ages else pytest.approx(ages, abs=1e-5))
    assert table["similarity"].to_pylist() == pytest.approx([0.975756, 0.832050, 0.099504], abs=1e-6)
    lenders = ["c1", "c3", "c0"] if how.least < 0.9 else ["c1", "", ""]
    assert table["reference"].to_pylist() == lenders
    lacking = [[n for n, v in zip(NAMES, row, strict=True) if v is None] for row in zip(found, words, strict=True)]
    assert table["missing"].to_pylist() == lacking


def test_orders_and_votes_of_the_oracle() -> None:
    """Back is 0, face 1, and nothing is known of the fourth case."""
    places, cosines = nearest(QUERIES, KEYS, 3)
    assert places.tolist() == [[1, 0, 4], [3, 2, 4], [0, 3, 1]]
    codes = np.array([1, 0, 0, UNKNOWN, 1])[places]
    share = share_of(places != NONE, cosines, "near")
    given = [[1, 0.894902, 0.894902], [UNKNOWN, 0.062443, 0.000140], [1, UNKNOWN, 0.002093]]
    np.testing.assert_allclose(votes(codes, share), given, atol=1e-6)
    equal = votes(codes, share_of(places != NONE, cosines, "equal"))
    assert equal.tolist() == [[1, 2, 2], [UNKNOWN, 1, 1], [1, UNKNOWN, 1]]


def test_a_tie_goes_to_the_nearer_case_and_what_is_unknown_has_no_vote() -> None:
    equal = np.ones((3, 3))
    assert vote(np.array([[1, 0, 2], [-1, 0, 2], [2, 0, 0]]), equal).tolist() == [1, 0, 0]
    assert vote(np.array([[-1, -1, -1]]), equal[:1]).tolist() == [-1]
    assert mean_of(np.array([[1.0, np.nan, 4.0], [np.nan] * 3]), equal[:2]).tolist()[0] == 2.5
    assert np.isnan(mean_of(np.array([[np.nan]]), np.ones((1, 1))))[0]


def test_the_controls_beside_it(two, tmp_path: Path) -> None:
    tables = borrow(*two, Lending(), tmp_path / "rows.arrow")
    assert told(tables["means"]) == ([47.5] * 3, ["back"] * 3)  # two of each: the first in the alphabet
    assert set(tables["random"]["reference"].to_pylist()) <= {f"c{i}" for i in range(5)}
    for kind, table in tables.items():
        told_, read = borrowed.read(path_of(tmp_path / "rows.arrow", kind))
        assert told_["kind"] == kind and read.drop_columns([]).equals(table) and told_["stage"] == "s" * 32
    reference, target = two[1], store(tmp_path / "many", [(None, None)] * 200)
    many = borrow(target, reference, eye(many=np.ones((200, 2)), reference=KEYS), Lending(), tmp_path / "m.arrow")
    counts = np.unique(many["random"]["reference"].to_pylist(), return_counts=True)[1]
    assert len(counts) == 5 and counts.min() > 20  # any of them


def test_only_training_cases_lend(tmp_path: Path) -> None:
    target = store(tmp_path / "target", [(None, None)] * 3)
    reference = store(tmp_path / "reference", list(zip(AGES, SITES, strict=True)), split="00012")
    given = eye(target=QUERIES, reference=KEYS)
    tables = borrow(target, reference, given, Lending(), tmp_path / "rows.arrow")
    assert {*tables["nearest"]["reference"].to_pylist(), *tables["random"]["reference"].to_pylist()} <= {
        "c0",
        "c1",
        "c2",
    }
    assert told(tables["means"])[0] == [40.0] * 3


def test_of_one_store_nobody_lends_to_his_own_patient(tmp_path: Path) -> None:
    one = store(tmp_path / "one", list(zip(AGES, SITES, strict=True)), patients="aabbb")
    tables = borrow(one, one, eye(one=KEYS), Lending(), tmp_path / "rows.arrow")
    assert tables["nearest"]["reference"].to_pylist() == ["c4", "c4", "c1", "c1", "c1"]


def test_a_case_without_such_an_image_borrows_nothing(two, tmp_path: Path) -> None:
    target, reference, given = two
    blind = replace(given, data=Data(size=32, modalities=("derm",)))
    target.has = lambda modality: np.array([True, False, True])  # type: ignore[method-assign]
    table = borrow(target, reference, blind, Lending(k=2), tmp_path / "rows.arrow")["nearest"]
    assert table["reference"].to_pylist()[1] == "" and told(table)[0][1] is None
    assert table["similarity"].to_pylist()[1] is None


def test_no_column_that_may_not_be_an_input(two, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'patient' is no metadata of "):
        borrow(*two, Lending(columns=("patient",)), tmp_path / "rows.arrow")
    table = borrow(*two, Lending(columns=("site",)), tmp_path / "rows.arrow")["nearest"]
    assert table.column_names == ["case", "reference", "similarity", "missing", "site"]


def test_a_study_reads_them_in_the_references_columns(two, tmp_path: Path) -> None:
    target, reference, _ = two
    for where in ("rows.arrow", "again.arrow"):
        borrow(*two, Lending(), tmp_path / where)
    data = Data(source="store", path=str(target.folder), size=32, table=str(tmp_path / "rows.arrow"))
    opened = open_cases(data, tmp_path)
    assert opened.columns == reference.columns and opened.metadata("age") == [50, 70, 30]
    table = opened.table(["age", "site"], np.arange(3))
    spread = reference.columns["age"].spread
    assert table.values[:, 0] == pytest.approx((np.array([50, 70, 30]) - 47.5) / spread, abs=1e-6)
    assert table.known.tolist() == [[True, True], [True, False], [True, True]]
    same = open_cases(data.model_copy(update={"table": str(tmp_path / "again.arrow")}), tmp_path)
    control = open_cases(data.model_copy(update={"table": str(tmp_path / "rows-means.arrow")}), tmp_path)
    keys = {target.fingerprint, opened.fingerprint, control.fingerprint}
    assert len(keys) == 3 and same.fingerprint == opened.fingerprint
    assert target.columns["age"].spread == 1 and target.metadata("age") == [None] * 3  # which is as it was


def test_a_table_of_another_store_or_a_damaged_one_is_refused(two, tmp_path: Path) -> None:
    target, reference, _ = two
    path = tmp_path / "rows.arrow"
    borrow(*two, Lending(), path)
    data = Data(source="store", path=str(reference.folder), size=32, table=str(path))
    with pytest.raises(UserError, match=r"^data.table: .*rows.arrow was borrowed for another store than .*reference;"):
        open_cases(data, tmp_path)
    twin = store(tmp_path / "twin", [(None, None)] * 3)  # whose cases have the same names
    with pytest.raises(UserError, match=r"^data.table: .*rows.arrow was borrowed for another store than .*twin;"):
        open_cases(data.model_copy(update={"path": str(twin.folder)}), tmp_path)
    mine = data.model_copy(update={"path": str(target.folder)})
    open_cases(mine, tmp_path)
    whole = path.read_bytes()
    at = whole.index(np.float64(70).tobytes())
    for bits, message in (
        (whole[:at] + np.float64(71).tobytes() + whole[at + 8 :], "is damaged or no table of borrowed rows"),
        (whole[:50], "is damaged"),
        (b"", "is damaged"),
        (None, "there is no file"),
    ):
        path.unlink()
        if bits is not None:
            path.write_bytes(bits)
        with pytest.raises(UserError, match=f"^data.table: .*{message}"):
            open_cases(mine, tmp_path)
        path.touch()


def test_a_study_with_a_table_of_another_store_starts_nothing(two, tmp_path: Path) -> None:
    borrow(*two, Lending(), tmp_path / "rows.arrow")
    data = {"source": "store", "path": str(two[1].folder), "size": 32, "table": str(tmp_path / "rows.arrow")}
    tasks = {"tasks": {"rotation": {}}, "length": [1, 1]}
    compute = {"engine": "inline", "store": str(tmp_path / "stages")}
    study = make_study(data=data, curriculum=tasks, compute=compute)
    with pytest.raises(UserError, match=r"^data.table: .* was borrowed for another store than"):
        run_study(study, tmp_path / "out", None, Console(quiet=True))
    assert not (tmp_path / "out").exists() and not (tmp_path / "stages").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stage": "f" * 32}, "--stage: .* has no finished stage ffff"),
        ({"modality": "clinic"}, "--modality: the stage sees derm, clinic, the stores hold derm"),
        ({"size": 64}, "--size: must be at most 32"),
        ({"normalise": "other"}, "--normalise: must be one of imagenet, derm7pt, not 'other'"),
    ],
)
def test_an_eye_that_cannot_be_opened(given: dict, message: str, two, stages: tuple[str, str]) -> None:
    where, key = stages
    seen = open_eye(where, key, two[:2])
    assert seen.modality == "derm" and seen.features(two[0], np.arange(3)).shape == (3, seen.encoders.dim)
    with pytest.raises(UserError, match=message):
        open_eye(**{"store": where, "stage": key, "cases": two[:2], **given})


@pytest.fixture
def stages(tmp_path: Path) -> tuple[str, str]:
    from dermsearch.models.encoders import Encoders
    from dermsearch.storage.stages import StageStore

    kept, key = StageStore(str(tmp_path / "stages")), "a" * 32
    encoders = Encoders.random("test_resnet", ("derm", "clinic"), "shared", 0)
    kept.commit(key, {"encoders": encoders.part()}, [{"epoch": 1, "loss": 0.5}], {"task": "simclr", "parent": "b" * 32})
    return str(tmp_path / "stages"), key


def test_the_commands(two, stages: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from typer.testing import CliRunner

    from dermsearch.cli.data import data_app

    target, reference = two[0].folder, two[1].folder
    wanted = ["--stage", stages[1], "--store", stages[0]]
    rows = tmp_path / "out" / "rows.arrow"
    done = CliRunner().invoke(
        data_app, ["borrow", str(target), "--from", str(reference), *wanted, "-o", str(rows), "-k", "2"]
    )
    assert done.exit_code == 0, done.output
    assert "rows-random.arrow: 3 rows, random" in done.output and "cosine of the nearest: median " in done.output
    open_cases(Data(source="store", path=str(target), size=32, table=str(rows)), tmp_path)
    both = store(tmp_path / "both", list(zip(AGES, SITES, strict=True)), split="00011")
    picture = tmp_path / "found.png"
    done = CliRunner().invoke(
        data_app, ["found", str(both.folder), *wanted, "-o", str(picture), "-k", "2", "--count", "2"]
    )
    assert done.exit_code == 0, done.output
    from PIL import Image

    colours = {colour for _, colour in Image.open(picture).convert("RGB").getcolors(1 << 20) or ()}
    assert {(0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)} & colours
    done = CliRunner().invoke(data_app, ["found", str(both.folder), *wanted, "--label", "diagnose"])
    assert isinstance(done.exception, UserError) and "did you mean 'diagnosis'" in str(done.exception)
