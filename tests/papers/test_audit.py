"""The audit finds what is known to be wrong in SM3's Table I, and calls nothing wrong that is right."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest
import warm
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dermsearch.errors import UserError
from dermsearch.papers.audit import CONSISTENT, READINGS, Claim, RowAudit, audit_row, judge
from dermsearch.papers.claims import audit_table, read_counts
from dermsearch.papers.counts import Counts, Fits, Printed, other_positives, rates
from dermsearch.papers.published import published_folder
from dermsearch.results.papers.audit_text import audit_lines

COUNTS = published_folder() / "derm7pt_test_counts.csv"
TABLE = {audit.row: audit for audit in audit_table("sm3_table1")}
LABELS = ("BWV_PRS", "DaG_IR", "PIG_IR", "PN_ATP", "RS_PRS", "STR_IR", "VS_IR", "DIAG_MEL")
GOOD = ("Inception-Combined", "Baseline-50-ImageNet", "SimCLR", "SSD-KD", "SM3-linear", "SM3-finetune")


def verdicts(audit: RowAudit) -> dict[str, str]:
    """The verdict of every label that has one worth telling."""
    return {f.claim.label: f.verdict for f in audit.findings if f.verdict != CONSISTENT}


def corrected(row: str, label: str) -> tuple[float, ...]:
    """What the counts give for one label, as a paper would print it."""
    finding = next(f for f in TABLE[row].findings if f.claim.label == label)
    return tuple(round(100 * finding.true[name], 1) for name in ("sens", "spec", "prec"))


def mean_with(row: str, kind: str) -> tuple[float, ...]:
    return tuple(round(TABLE[row].means[0].repaired[kind][name], 1) for name in ("sens", "spec", "prec"))


def matrix(row: str, label: str) -> tuple[int, ...] | None:
    return next(f.matrix for f in TABLE[row].findings if f.claim.label == label)


def test_the_counts_are_those_of_395_cases() -> None:
    named = [label for label in read_counts(COUNTS) if label.named]
    assert [label.counts.positive for label in named] == [101, 93, 75, 30, 124, 94, 177, 106]
    for label in named:
        assert label.counts.positive + sum(count for _, count in label.counts.others) == label.counts.total == 395


@pytest.mark.parametrize("row", GOOD)
def test_rows_that_are_right(row: str) -> None:
    assert [f.claim.label for f in TABLE[row].findings] == list(LABELS)
    assert TABLE[row].consistent and all(f.fits >= 1 and f.matrix for f in TABLE[row].findings)


def test_every_other_row_is_not() -> None:
    assert {row for row, audit in TABLE.items() if not audit.consistent} == set(TABLE) - set(GOOD)


def test_one_last_digit() -> None:
    assert verdicts(TABLE["F4M-FS"]) == {"RS_PRS": "last digit"}
    assert corrected("F4M-FS", "RS_PRS")[0] == 47.2 and matrix("F4M-FS", "RS_PRS") == (50, 11, 56, 278)


def test_a_row_with_a_transposed_matrix() -> None:
    assert verdicts(TABLE["AMFAM"]) == dict.fromkeys(LABELS, "transposed")
    assert mean_with("AMFAM", "transposed") == (53.5, 88.1, 57.9)
    assert matrix("AMFAM", "DIAG_MEL") == (77, 40, 24, 254)


def test_a_row_with_the_other_class_as_positive() -> None:
    found = verdicts(TABLE["HcCNN"])
    assert [label for label, kind in found.items() if kind == "other class positive"] == ["BWV_PRS", "RS_PRS"]
    assert corrected("HcCNN", "BWV_PRS") == (65.3, 92.2, 66.2)
    assert corrected("HcCNN", "RS_PRS") == (41.5, 95.2, 75.9)
    assert matrix("HcCNN", "BWV_PRS") == (49, 25, 26, 295)  # Sens as printed: 295 of 320
    assert mean_with("HcCNN", "other class positive") == (50.9, 88.9, 62.0)


def test_two_more_cells_of_that_row() -> None:
    found = verdicts(TABLE["HcCNN"])
    assert (found["PIG_IR"], found["DIAG_MEL"], len(found)) == ("last digit", "transposed", 4)
    assert corrected("HcCNN", "PIG_IR") == (55.6, 86.3, 65.1)
    # 55 of 101 found with 25 false alarms, read the wrong way: 55/80, 269/315 and 55/101 are what is printed.
    assert matrix("HcCNN", "DIAG_MEL") == (55, 25, 46, 269)


def test_a_row_from_other_counts() -> None:
    assert verdicts(TABLE["GIIN"]) == dict.fromkeys(LABELS, "other counts")
    fits = {f.claim.label: other_positives(f.claim.triple, f.claim.counts) for f in TABLE["GIIN"].findings}
    first = {label: found[0] for label, found in fits.items()}
    assert first == dict(zip(LABELS, (83, 187, 130, 80, 114, 91, 28, 100), strict=True))
    assert not any(f.true for f in TABLE["GIIN"].findings) and not TABLE["GIIN"].means[0].repaired


def test_a_cell_repeated_from_another_label() -> None:
    row = "FM4-FS + SM3"
    assert verdicts(TABLE[row]) == {"STR_IR": "one cell wrong"}
    assert corrected(row, "STR_IR")[2] == 59.3 and matrix(row, "STR_IR") == (35, 24, 59, 277)
    assert mean_with(row, "one cell wrong") == (40.6, 93.3, 74.2)
    note = next(f.note for f in TABLE[row].findings if f.note)
    assert "Prec must be 59.3" in note and "Prec 73.2 repeat PIG_IR" in note


def test_every_mean_is_that_of_its_printed_cells() -> None:
    assert all(len(audit.means) == 1 and not audit.means[0].wrong for audit in TABLE.values())
    assert all(len(audit.means[0].plain) == 4 for audit in TABLE.values())


@pytest.mark.parametrize("name", ["sm3_code_linear", "sm3_code_finetune"])
def test_the_authors_result_files(name: str) -> None:
    (audit,) = audit_table(name)
    assert audit.consistent and len(audit.findings) == 24
    assert {mean.label for mean in audit.means} == {"8 all avg", "8 avg", "7 all avg", "7 avg", "DIAG avg"}
    assert all(len(mean.plain) == 5 for mean in audit.means)


MATRICES = st.tuples(*[st.integers(0, 300)] * 4).filter(lambda m: m[0] + m[2] and m[1] + m[3])


def printed(hits: int, alarms: int, counts: Counts, reading: str, digits: int = 1) -> dict[str, Printed]:
    """The three cells that a reading prints of a matrix."""
    found = rates(hits, alarms, counts)
    cells = zip(("sens", "spec", "prec"), READINGS[reading], strict=True)
    return {name: Printed.of(f"{100 * found[rate]:.{digits}f}") for name, rate in cells}


@given(MATRICES, st.integers(0, 4))
@example((0, 0, 30, 365), 1)
@example((0, 300, 1, 0), 1)
def test_what_is_true_is_never_called_wrong(cells: tuple[int, int, int, int], digits: int) -> None:
    hits, alarms, missed, _ = cells
    counts = Counts(hits + missed, sum(cells))
    claim = Claim("r", "l", printed(hits, alarms, counts, CONSISTENT, digits), counts)
    finding = judge(claim)
    assert finding.verdict == CONSISTENT
    assert (hits, alarms) in list(Fits({n: c.bounds() for n, c in claim.cells.items()}, counts))
    for name, cell in claim.cells.items():
        assert abs(100 * finding.true[name] - cell.value) <= cell.unit / 2 + 1e-6


@given(MATRICES, st.sampled_from(["transposed", "other class positive"]))
def test_a_matrix_read_the_wrong_way_is_called_so(cells: tuple[int, int, int, int], reading: str) -> None:
    hits, alarms, missed, _ = cells
    counts = Counts(hits + missed, sum(cells))
    claim = Claim("r", "l", printed(hits, alarms, counts, reading), counts)
    found = judge(claim).verdict
    bounds = {name: cell.bounds() for name, cell in claim.cells.items()}
    assume(not len(Fits(bounds, counts)))  # it could be true as it stands, and then nothing tells
    if reading == "transposed":
        assert found == "transposed"
    else:
        assert found in ("transposed", reading)


@settings(max_examples=30)
@given(
    st.dictionaries(st.sampled_from(["sens", "spec", "prec", "npv"]), st.floats(0, 1)),
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0, 0.2),
)
def test_fits_are_those_of_trying_every_pair(
    centres: dict[str, float], positive: int, negative: int, half: float
) -> None:
    counts = Counts(positive, positive + negative)
    bounds = {name: (value - half - 1e-7, value + half + 1e-7) for name, value in centres.items()}
    tried = {
        (hits, alarms)
        for hits in range(positive + 1)
        for alarms in range(negative + 1)
        if all(low <= rates(hits, alarms, counts)[name] <= high for name, (low, high) in bounds.items())
    }
    found = Fits(bounds, counts)
    assert tried <= set(found) and len(found) == len(set(found))
    assert len(set(found) - tried) <= 1  # rounding at an edge


def test_a_row_that_is_cut_off_instead_of_rounded_has_last_digits_wrong() -> None:
    claims = []
    for i, (hits, alarms, positive) in enumerate([(50, 11, 106), (57, 40, 124), (45, 35, 94), (110, 46, 177)]):
        found = rates(hits, alarms, Counts(positive, 395))
        cut = {name: Printed.of(str(int(1000 * found[name]) / 10)) for name in ("sens", "spec", "prec")}
        claims.append(Claim("r", str(i), cut, Counts(positive, 395)))
    assert {f.verdict for f in audit_row(claims, []).findings} <= {CONSISTENT, "last digit"}
    assert not audit_row(claims, []).consistent


def table(folder: Path, *lines: str, name: str = "table.csv") -> str:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / name)


def test_numbers_of_another_class_of_the_label(tmp_path: Path) -> None:
    counts = table(tmp_path, "label,class,positive,total", "D,a,40,200", "D,b,61,200", "D,c,99,200", name="counts.csv")
    found = rates(47, 23, Counts(61, 200))
    cells = ",".join(f"{100 * found[name]:.2f}" for name in ("sens", "spec", "prec"))
    (audit,) = audit_table(table(tmp_path, "row,label,class,sens,spec,prec", f"m,D,a,{cells}"), counts)
    assert audit.findings[0].verdict == "another class" and audit.findings[0].note == "fits b"


def test_a_mean_that_is_none(tmp_path: Path) -> None:
    head = "row,label,sens,spec,prec,positive,total"
    body = ["m,a,50.0,50.0,50.0,10,20", "m,b,100.0,90.0,90.9,10,20"]
    good = audit_table(table(tmp_path, head, *body, "m,AVG,75.0,70.0,70.5,,"))
    assert good[0].consistent and set(good[0].means[0].plain) == {"sens", "spec", "prec"}
    (bad,) = audit_table(table(tmp_path, head, *body, "m,AVG,75.0,70.4,70.5,,"))
    assert not bad.consistent and bad.means[0].wrong == ("spec",)
    assert "m: AVG is not the mean of its row" in audit_lines([bad])


@pytest.mark.parametrize("nothing", ["-", "–", "—"])
def test_a_dash_of_any_width_is_an_empty_cell(tmp_path: Path, nothing: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"row,label,sens,spec,prec,positive,total\nm,a,{nothing},75,80,5,9\n", encoding="utf-8")
    (audit,) = audit_table(str(path))
    assert set(audit.findings[0].claim.triple) == {"spec", "prec"}


def test_fractions_are_read_as_such(tmp_path: Path) -> None:
    path = table(tmp_path, "row,label,recall,ppv,positive,total", "m,a,0.773,.630,75,395", "m,b,1,0.5,5,395")
    (audit,) = audit_table(path)
    assert audit.consistent and [str(c) for c in audit.findings[0].claim.triple.values()] == ["77.3", "63.0"]


def test_a_table_of_fractions_with_one_decimal_is_not_accused(tmp_path: Path) -> None:
    """0.8 stands for all from 0.75 to 0.85 there: 81 of 101 found, 30 of 294 taken for it."""
    head = "row,label,sens,spec,prec,positive,total"
    (audit,) = audit_table(table(tmp_path, head, "m,a,0.8,0.9,0.7,101,395", "m,b,0.8,1,0.9,101,395"))
    assert audit.consistent and [str(c) for c in audit.findings[0].claim.triple.values()] == ["80", "90", "70"]
    (wrong,) = audit_table(table(tmp_path, head, "m,a,0.8,0.9,0.2,101,395"))
    assert not wrong.consistent
    (finer,) = audit_table(table(tmp_path, head, "m,a,0.8,0.9,0.7,101,395", "m,b,0.81,0.98,0.93,101,395"))
    assert not finer.consistent, "a spreadsheet left the last digit of 0.80 away"


def test_claims_against_counted_predictions(tmp_path: Path) -> None:
    cells = ["m,D,a,a,42", "m,D,a,b,33", "m,D,b,a,14", "m,D,b,b,306"]
    matrices = Path(table(tmp_path, "row,label,true,predicted,count", *cells, name="matrix.csv"))
    head = "row,label,sens,spec,prec"
    right = audit_table(table(tmp_path, head, "m,D_a,56.0,95.6,75.0"), None, matrices)
    turned = audit_table(table(tmp_path, head, "m,D_a,75.0,90.3,56.0"), None, matrices)
    invented = audit_table(table(tmp_path, head, "m,D_a,56.0,95.6,80.0"), None, matrices)
    assert [a[0].findings[0].verdict for a in (right, turned, invented)] == [CONSISTENT, "transposed", "unexplained"]
    assert invented[0].findings[0].matrix == (42, 14, 33, 306)
    with pytest.raises(UserError, match="m, D_c: no counted predictions of this class; did you mean 'D_"):
        audit_table(table(tmp_path, head, "m,D_c,1,2,3"), None, matrices)


LONG = "row,column_metric,value"
WIDE = "row,label,sens,spec,prec,positive,total"
DAMAGED = {
    "": "is empty",
    "\n \n": "is empty",
    WIDE: "has a header but no line below it",
    "row,value\nm,3": "has no column 'label'; it has row, value",
    "row,label,colour\nm,a,3": "has none of the columns sens, spec, prec, auc",
    "row;label;sens\nm;a;3": "its columns are separated by semicolons; save it with commas",
    f"{WIDE}\nm,a,77.3%,1,1,5,9": "line 2, sens: write 77.3 without the sign, not '77.3%'",
    f'{WIDE}\nm,a,"77,3",1,1,5,9': "line 2, sens: write 77.3 with a decimal point, not '77,3'",
    f"{WIDE}\nm,a,good,1,1,5,9": "line 2, sens: 'good' must be a number such as 77.3, or empty",
    f"{WIDE}\nm,a,nan,1,1,5,9": "line 2, sens: 'nan' must be a number such as 77.3, or empty",
    f"{WIDE}\nm,a,-3,1,1,5,9": "line 2, sens: '-3' must be a number such as 77.3, or empty",
    f"{WIDE}\nm,a,104.2,1,1,5,9": "line 2, sens: 104.2 is not between 0 and 100",
    f"{WIDE}\nm,a,50,1": "line 2: has 4 cells, its header 7",
    f"{WIDE}\nm,a,50,1,1,9,9": "line 2, positive: 9 must be more than none and less than all 9",
    f"{WIDE}\nm,a,50,1,1,4.5,9": "line 2, positive: '4.5' must be a whole number of cases",
    f"{WIDE}\nm,a,50,1,1,5,": "line 2, total: is empty",
    f"{WIDE}\n,a,50,1,1,5,9": "line 2, row: is empty",
    f"{WIDE}\nm,a,50,1,1,5,9\nm,a,50,1,1,5,9": "line 3: sens of m, a stands there twice",
    f"{WIDE}\nm,a,,,,5,9": "row 'm': has no sensitivity, specificity or precision of any label",
    f"{WIDE},sens\nm,a,1,1,1,5,9,1": "has two columns 'sens'",
    f"{WIDE},recall\nm,a,1,1,1,5,9,1": "has more than one column for sens",
    f'{WIDE}\nm,"a,50,1,1,5,9': "is not CSV",
    f"{LONG}\nm,Sens,4": "line 2, column_metric: 'Sens' must be METRIC|LABEL, such as Sens|MEL",
    f"{LONG}\nm,Sens|BWV,4": "has no counts of 'BWV'; did you mean 'BWV_",
    "row,label,sens\nm,a,50": "no counts to compare with; give --counts FILE",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_table_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = table(tmp_path, text)
    long = "column_metric" in text
    with pytest.raises(UserError) as error:
        audit_table(path, str(COUNTS) if long else None)
    assert DAMAGED[text] in str(error.value) and "\n" not in str(error.value)


def test_other_encodings(tmp_path: Path) -> None:
    text = f"{WIDE}\r\nm,a,50.0,50.0,50.0,10,20\r\n"
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # what spreadsheets write
    assert audit_table(str(path))[0].consistent
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match=r"t\.csv, line 1: is not UTF-8 text; save it as UTF-8"):
        audit_table(str(path))


@settings(max_examples=150)
@given(st.integers(0, 10**9), st.binary(max_size=3))
def test_a_file_with_bytes_replaced_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, other: bytes
) -> None:
    source = (f"{WIDE}\nm,a,77.3,89.4,63.0,75,395\nm,b,62.1,78.9,70.5,177,395\nm,AVG,69.7,84.1,66.7,,\n").encode()
    place %= len(source)
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(source[:place] + other + source[place + 1 :])
    try:
        assert audit_lines(audit_table(str(path)))
    except UserError as error:
        assert len(str(error)) < 400


def test_large_counts_take_no_time_and_no_memory() -> None:
    counts = Counts(400_000, 1_000_000)
    claim = Claim(
        "r", "l", {"sens": Printed.of("61.2345"), "spec": Printed.of("80.1234"), "prec": Printed.of("9.9")}, counts
    )
    finding = judge(claim)
    assert finding.verdict not in READINGS


def test_unknown_tables_are_named() -> None:
    with pytest.raises(UserError, match="sm3_tabel1: no such file or published table; did you mean 'sm3_table1'"):
        audit_table("sm3_tabel1")
    with pytest.raises(UserError, match="aiseeme_table1: has no sensitivities to audit"):
        audit_table("aiseeme_table1")
    with pytest.raises(UserError, match="no such file or published table"):
        audit_table("x" * 300)


def audit(*words: str) -> subprocess.CompletedProcess[str]:
    return warm.run(["results", "audit", *words], Path.cwd(), timeout=60)


def test_the_command(tmp_path: Path) -> None:
    wrong = audit("sm3_table1")
    assert wrong.returncode == 1 and "6 of 11 rows are consistent." in wrong.stdout and not wrong.stderr
    assert max(map(len, wrong.stdout.splitlines())) <= 140
    right = audit("sm3_code_linear", "--json")
    assert right.returncode == 0 and json.loads(right.stdout)["consistent"] is True
    copy = tmp_path / "edited.csv"
    lines = (published_folder() / "sm3_table1.csv").read_text(encoding="utf-8").replace("|BWV_PRS", "|BVW_PRS")
    copy.write_text(lines, encoding="utf-8")
    bad = audit(str(copy), "--counts", "derm7pt_test_counts")
    assert bad.returncode == 2 and not bad.stdout
    assert bad.stderr == "dermsearch: derm7pt_test_counts: has no counts of 'BVW_PRS'; did you mean 'BWV_PRS'?\n"


def test_the_notes_of_the_published_table_say_the_same() -> None:
    noted: dict[str, set[str]] = {}
    with (published_folder() / "sm3_table1.csv").open(newline="", encoding="utf-8") as file:
        for cell in csv.DictReader(file):
            label = cell["column_metric"].split("|")[1]
            if "audit:" in cell["note"] and label != "AVG":
                noted.setdefault(cell["row"], set()).add(label)
    for row, labels in noted.items():
        assert labels <= verdicts(TABLE[row]).keys()
