import csv
import math
import re
from dataclasses import replace
from statistics import stdev

import pytest
from conftest_sm3 import sm3_study
from scipy import stats

from dermsearch.data.domain import SKIN
from dermsearch.errors import UserError
from dermsearch.papers.published import named_tables, published_rows
from dermsearch.results.papers.files import escape, interval, latex, markdown, write_files
from dermsearch.results.papers.picture import picture
from dermsearch.results.papers.sm3 import FORMS, LABELS
from dermsearch.results.papers.table import Cell, PaperTable, TableColumn, TableLine, TableSection, Value, fill, finding
from dermsearch.results.pictures.figures import curriculum_figure, figures
from dermsearch.study.config import Study

pytestmark = pytest.mark.slow

ALL = ["sm3_table1", "sm3_table2", "sm3_table3"]
WEIGHTS = {"encoder": {"weights": "imagenet.safetensors"}}


def cells(path):
    """The rows of a written CSV file by line and column of the table."""
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["section"], row["row"], row["column"]): row for row in csv.DictReader(file)}


def written(results, name, path):
    """All three files of a table: CSV rows, Markdown, LaTeX."""
    paths = write_files(fill(results, FORMS[name]), path / name)
    assert [p.name for p in paths] == [f"{name}.csv", f"{name}.md", f"{name}.tex"]
    return cells(paths[0]), paths[1].read_text(encoding="utf-8"), paths[2].read_text(encoding="utf-8")


def md_lines(text, title):
    """The numbers of one line of a Markdown table: whose -> texts."""
    rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    start = next(i for i, row in enumerate(rows) if row[0] == title)
    end = next((i for i in range(start + 1, len(rows)) if rows[i][0]), len(rows))
    return {row[1]: row[2:] for row in rows[start:end]}


def words(path):
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


RELATED = "Relation between labels, after sep_sep"


def test_the_columns_are_the_named_classes():
    assert {label: cls for _, label, cls in LABELS.values()} == SKIN.named


@pytest.mark.parametrize("name", ALL)
def test_every_declared_number_is_in_the_csv_of_the_paper(name):
    printed = {(row["row"], row["column_metric"]) for row in published_rows(name)}
    shown = {
        (line.printed, column.printed)
        for section in FORMS[name].sections
        for line in section.lines
        for column in section.columns
        if line.printed and column.printed
    }
    assert shown <= printed
    assert shown == printed


def test_one_seed_keeps_the_interval_of_its_score(tmp_path):
    found, text, tex = written(sm3_study(tmp_path, values={"tel": [0.8]}), "sm3_table2", tmp_path)
    row = found[RELATED, "tel", "DaG"]  # 0.8 + 0.001 x 6, the label's place in SKIN.named
    assert [row[k] for k in ("paper", "here", "low", "high", "seeds")] == ["76.5", "80.600", "76.600", "84.600", "1"]
    assert [row[k] for k in ("protocol", "split", "metric", "label")] == ["linear", "val", "auc", "dots_and_globules"]
    assert found[RELATED, "tel", "AVG"]["here"] == "80.000" and found[RELATED, "tel", "AVG"]["paper"] == "80.4"
    lines = md_lines(text, "tel")
    assert lines["paper"] == ["90.4", "76.5", "80.4", "78.2", "77.4", "75.4", "79.4", "85.0", "80.4"]
    assert lines["here"] == ["80.2", "80.6", "80.4", "80.1", "80.7", "80.5", "80.3", "80.0", "80.0"]
    assert lines["95 % interval"][:2] == ["76.2–84.2", "76.6–84.6"]
    assert r"tel & paper & 90.4 & 76.5 & 80.4 & 78.2 & 77.4 & 75.4 & 79.4 & 85.0 & 80.4 \\" in tex
    assert r" & here & 80.2 & 80.6 & 80.4 & 80.1 & 80.7 & 80.5 & 80.3 & 80.0 & 80.0 \\" in tex
    assert r"\scriptsize 76.2--84.2" in tex
    assert "measured here: bootstrap over patients." in text and "Student" not in text


def test_several_seeds_have_their_mean_and_a_t_interval(tmp_path):
    aucs = [0.8, 0.83, 0.79]
    results = sm3_study(tmp_path, values={"tel": aucs}, seeds=(0, 1, 2))
    found, text, _ = written(results, "sm3_table2", tmp_path)
    row, others = found[RELATED, "tel", "AVG"], 8 * 2 * 0.02**2  # the other curricula's seeds are 0.02 apart
    spread = ((others + 2 * stdev(aucs) ** 2) / 18) ** 0.5
    half = 100 * math.hypot(0.04, stats.t(18).ppf(0.975) * spread / 3**0.5)
    assert (row["here"], row["seeds"]) == ("80.667", "3")
    assert (row["low"], row["high"]) == (f"{80.66667 - half:.3f}", f"{80.66667 + half:.3f}") == ("75.983", "85.351")
    assert md_lines(text, "tel")["95 % interval"][-1] == "76.0–85.4"
    assert "Student's t" in text


def test_seeds_that_all_agree_are_one_measurement(tmp_path):
    results = sm3_study(tmp_path, seeds=(0, 1, 2), study=WEIGHTS)  # weights from a file, judged three times
    row = written(results, "sm3_table2", tmp_path)[0]["Without the two tasks", "ImageNet", "AVG"]
    assert [row[k] for k in ("paper", "here", "low", "high", "seeds")] == ["77.4", "55.000", "51.000", "59.000", "3"]


def test_the_root_is_imagenet_only_where_the_study_gives_weights(tmp_path):
    section = "Without the two tasks"
    bare = written(sm3_study(tmp_path / "a"), "sm3_table2", tmp_path)[0]
    assert (bare[section, "ImageNet", "AVG"]["here"], bare[section, "ImageNet", "AVG"]["status"]) == ("", "not run")
    assert (bare[section, "random weights", "AVG"]["here"], bare[section, "random weights", "AVG"]["paper"]) == (
        "55.000",
        "",
    )
    given = written(sm3_study(tmp_path / "b", study=WEIGHTS), "sm3_table2", tmp_path)[0]
    assert given[section, "ImageNet", "AVG"]["here"] == "55.000"
    assert given[section, "random weights", "AVG"]["here"] == "50.000"


def test_what_was_not_run_and_what_the_paper_has_not(tmp_path):
    results = sm3_study(
        tmp_path, fusions=("none", "concat"), relations=("tel",), after="concat", other=[("byol", 0.6), ("byol", 0.65)]
    )
    found, text, _ = written(results, "sm3_table2", tmp_path)
    assert {row["here"] for (_, title, _), row in found.items() if title == "sep_sep"} == {""}
    assert list(md_lines(text, "sep_sep")) == ["paper"]
    # The paper's tel follows sep_sep: after concat it is another curriculum.
    assert found[RELATED, "tel", "AVG"]["status"] == "not run"
    own = "paired contrast [concat] → pseudo labels [tel]"
    assert found[RELATED, own, "AVG"]["here"] == "72.000" and found[RELATED, own, "AVG"]["paper"] == ""
    assert list(md_lines(text, own)) == ["here", "95 % interval"]
    assert found["Without the two tasks", "BYOL", "AVG"]["here"] == "65.000"
    assert "BYOL: the best of 2 settings by the study's objective." in text


def test_failures_are_told(tmp_path):
    failed = {"msa": "the loss is 100 % NaN & more_of_it"}
    results = sm3_study(tmp_path, failed=failed)
    found, text, tex = written(results, "sm3_table2", tmp_path)
    assert found[RELATED, "msa", "BWV"]["status"] == "failed" and found[RELATED, "msa", "BWV"]["here"] == ""
    assert found[RELATED, "msa", "BWV"]["paper"] == "89.3"
    assert list(md_lines(text, "msa")) == ["paper", "here: failed"]
    assert "paired contrast [sep_sep] → pseudo labels [msa]: the loss is 100 % NaN & more_of_it." in text
    assert r"sep\_sep] $\to$ pseudo labels [msa]: the loss is 100 \% NaN \& more\_of\_it." in tex
    _, svg = picture(fill(results, FORMS["sm3_table2"]), tmp_path / "t")
    assert "msa  × failed" in words(svg)


def test_a_number_that_is_none_is_left_out(tmp_path):
    found, text, _ = written(sm3_study(tmp_path, values={"tel": [math.nan]}), "sm3_table2", tmp_path)
    assert found[RELATED, "tel", "BWV"]["here"] == "" and found[RELATED, "tel", "BWV"]["paper"] == "90.4"
    assert "nan" not in text.lower().replace("no_pre", "")


def test_table_one_has_protocols_of_its_own(tmp_path):
    results = sm3_study(tmp_path, values={"tel": [0.8], "none": [0.7]}, study=WEIGHTS)
    found, text, _ = written(results, "sm3_table1", tmp_path)
    auc = {title: row for (section, title, column), row in found.items() if (section, column) == ("AUC", "AVG")}
    here = {title: row for title, row in auc.items() if row["here"]}
    assert {title: row["paper"] for title, row in auc.items() if title not in here} == {
        "Inception-Combined (C)": "81.5",
        "HcCNN (D)": "82.5",
        "GIIN (E)": "83.5",
        "AMFAM (B)": "84.5",
        "F4M-FS (A)": "83.6",
        "FM4-FS + SM3 (A)": "84.6",
        "SSD-KD (A)": "79.6",
    }
    assert {title: (row["protocol"], row["paper"], row["here"]) for title, row in here.items()} == {
        "Baseline-50-ImageNet, fine-tuned": ("finetune", "81.3", "57.000"),
        "SimCLR": ("linear", "78.2", "70.000"),
        "SM3-linear": ("linear_handover", "80.4", "81.000"),
        "SM3-linear, classifier alone": ("linear", "", "80.000"),
        "SM3-finetune": ("finetune", "82.9", "82.000"),
        "given weights, linear": ("linear", "", "55.000"),
        "random weights, linear": ("linear", "", "50.000"),
        "random weights, fine-tuned": ("finetune", "", "52.000"),
        "random predictions": ("stratified", "", "59.000"),
        "majority class": ("majority", "", "58.000"),
    }
    for section, metric, paper, value in [
        ("Sensitivity", "recall", "34.9", "51.000"),
        ("Specificity", "specificity", "93.6", "101.000"),
        ("Precision", "precision", "61.5", "71.000"),
    ]:
        row = found[section, "SM3-linear", "AVG"]
        assert (row["metric"], row["paper"], row["here"]) == (f"named_{metric}", paper, value)
    assert "(E) known by its abstract alone: our design." in text


def test_table_three_shows_both_splits_and_chance(tmp_path):
    results = sm3_study(tmp_path, values={"sep_sep": [0.9]})
    found, text, _ = written(results, "sm3_table3", tmp_path)
    row = found["Training cases", "sep_sep", "mean rank"]
    assert [row[k] for k in ("paper", "here", "low", "high", "n")] == ["7.23", "5.0000", "2.0000", "8.0000", "560"]
    assert found["Training cases", "sep_sep", "Acc@1"]["here"] == "0.4500"
    row = found["Validation cases", "sep_sep", "mean rank"]
    assert (row["paper"], row["here"], row["n"], row["class"]) == ("", "5.0000", "120", "derm to clinic")
    assert md_lines(text, "sep_sep")["paper"] == ["7.23", "0.42", "0.73"]
    assert "mean rank†" in text and "† paper: caption wrongly says metrics are mean AUC." in text
    rank, at_1, at_5 = FORMS["sm3_table3"].sections[0].columns
    assert (rank.chance(413), rank.chance(3)) == (207, 2)
    assert at_1.chance(413) == pytest.approx(0.0024, abs=5e-5) and at_5.chance(413) == pytest.approx(0.0121, abs=5e-5)


def test_the_protocol_of_the_objective_and_the_test_split_are_shown(tmp_path):
    objective = {"protocol": "linear_handover", "metric": "balanced_accuracy", "label": "mean"}
    results = sm3_study(
        tmp_path,
        values={"tel": [0.9]},
        splits=("val", "test"),
        study={"objective": objective},
        caveats="split by image",
    )
    found, text, _ = written(results, "sm3_table2", tmp_path)
    row = found[RELATED, "tel", "AVG"]  # one point up for the protocol, ten down on test
    assert (row["protocol"], row["split"], row["here"]) == ("linear_handover", "test", "81.000")
    assert "linear with heads handed over on test cases" in text and "* Caution: split by image." in text


def test_an_objective_of_pairs_leaves_the_labels_to_linear(tmp_path):
    objective = {"protocol": "pairs", "metric": "acc_at_1", "label": "pairs"}
    results = sm3_study(tmp_path, other=[("byol", 0.9), ("byol", 0.6)], study={"objective": objective})
    row = written(results, "sm3_table2", tmp_path)[0]["Without the two tasks", "BYOL", "AVG"]
    assert (row["protocol"], row["here"]) == ("linear", "90.000")  # the one whose pairs match best


def test_findings_of_single_cells_are_marked_and_told(tmp_path):
    assert finding("strategy=SSL + Fine-tuning; marked best Prec; audit: 74.2 if STR precision is 59.3") == (
        "74.2 if STR precision is 59.3"
    )
    assert finding("strategy=Supervised; italic in source") == "" == finding("")
    assert finding("ordering=C; delta vs first task alone") == ""
    assert finding("header prints DAIG for DIAG") == "header prints DAIG for DIAG"
    table = fill(sm3_study(tmp_path), FORMS["sm3_table1"])
    text, tex = markdown(table), latex(table)
    start = text.index("**Precision**")
    told = md_lines(text[start:], "FM4-FS + SM3 (A)")
    assert told["paper"][5:] == ["73.2‖", "100.0", "84.2", "76.0#"]
    assert told["paper, corrected"] == ["", "", "", "", "", "59.3", "", "", "74.2"]
    assert "‖ paper: counts from Sens and Spec give 59.3; 73.2 repeats the PIG value." in text
    assert "# paper: 74.2 if STR precision is 59.3." in text
    assert r"& 73.2$\|$ & 100.0 & 84.2 & 76.0\# \\" in tex
    assert md_lines(text[text.index("**Sensitivity**") :], "HcCNN (D)")["paper, corrected"][-1] == "50.9"
    assert "GIIN is of other test cases" in text and "one run of five" in text


def test_a_finding_of_a_whole_column_marks_its_heading(tmp_path):
    _, text, tex = written(sm3_study(tmp_path), "sm3_table2", tmp_path)
    assert text.count("†") == 2 and "DIAG†" in text and "† paper: header prints DAIG for DIAG." in text
    assert r"& DIAG\dag{} & AVG \\" in tex


@pytest.mark.parametrize("name", ALL)
def test_latex_is_well_formed(tmp_path, name):
    study = {"name": "a_b.c-d", "published": ALL} | WEIGHTS
    results = sm3_study(tmp_path, study=study, caveats="100 % of #1 & {x}_y ~ 2^3 \\ <a|b>", failed={"proj": "$x$"})
    tex = latex(fill(results, FORMS[name]))
    assert tex.isascii()
    opened = re.findall(r"\\begin\{(\w+\*?)\}", tex)
    assert opened == ["table*" if name != "sm3_table3" else "table", "tabular", "minipage"]
    assert re.findall(r"\\end\{(\w+\*?)\}", tex) == [*opened[1:], opened[0]]
    bare = re.sub(r"\\[{}&%$#_]", "", tex)  # without what is escaped
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")].replace(r"\&", "").splitlines()
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", tex)[1])
    rows = [line for line in body if "&" in line]
    assert len(rows) > 10 and {line.count("&") for line in rows} == {columns - 1}
    assert all(re.search(r"\\\\( \\addlinespace)?$", line) for line in rows)
    assert {i for i, line in enumerate(tex.splitlines()) if re.search(r"(?<!\\)%", line)} == {0}
    assert r"study a\_b.c-d" in tex
    told = r"100 \% of \#1 \& \{x\}\_y \textasciitilde{} 2\textasciicircum{}3 \textbackslash{} $<$a$|$b$>$"
    assert told in tex and r"\usepackage{booktabs}" in tex.splitlines()[0]


def test_escape_and_interval():
    assert escape("a_b 5 % → {†}") == r"a\_b 5 \% $\to$ \{\dag{}\}"
    column = TableColumn("x", "", "auc", "y")
    cell = Cell(column, "", "", Value(0.0, -0.04, 1.25, 1, 5), "linear", "val")
    assert interval(cell) == "0.0–1.2"  # "-0.0" reads as a negative number
    assert interval(replace(cell, value=Value(0, -1, 2, 1, 5))) == "-1.0 to 2.0"
    assert interval(replace(cell, value=Value(0, None, 2, 1, 5))) == "" == interval(replace(cell, value=None))


def test_another_papers_table_joins_as_data(make_study, tmp_path):
    column = TableColumn("balanced accuracy", "Balanced accuracy percent", "balanced_accuracy", "diagnosis", digits=2)
    lines = (
        TableLine("ODC > MoCo v2", "ODC > MoCo v2", "odc > moco_v2"),
        TableLine("Rel. loc.", "Rel. loc.", "relative_location"),
    )
    form = PaperTable(
        "aiseeme_table1", "AISEEME D4, Table 1", "ISIC-2019", (TableSection("Skin", "%", lines, (column,)),), {}
    )
    results = make_study(values={"odc > moco_v2": 0.7, "relative_location": 0.6})  # on test cases 2 points less
    table = fill(results, form)
    (section, entries), text = table.blocks[0], markdown(table)
    assert section.title == "Skin" and len(entries) == 15  # 2 of the table, the other 13 of this study
    assert md_lines(text, "ODC > MoCo v2") == {"paper": ["75.44"], "here": ["68.00"], "95 % interval": ["65.00–70.80"]}
    assert md_lines(text, "Rel. loc.")["paper"] == ["69.52"]
    assert list(md_lines(text, "MoCo v2")) == ["here", "95 % interval"]


def test_all_tables_of_a_folder(tmp_path):
    sm3_study(tmp_path, study={"published": ["sm3_table3", "sm3_table1"], **WEIGHTS})
    paths = figures(tmp_path)
    folder = tmp_path / "tables_of_paper"
    endings = ("csv", "md", "tex", "png", "svg")
    assert {p.name for p in folder.iterdir()} == {f"sm3_table{n}.{e}" for n in (1, 3) for e in endings}
    assert {p for p in paths if p.parent == folder} == set(folder.iterdir())
    assert all(p.stat().st_size > 20_000 for p in folder.glob("*.png"))
    text = words(folder / "sm3_table3.svg")
    assert {"Training cases", "no fusion (SimCLR)", "sep_sep", "rank of the own image (log scale)"} <= set(text)
    assert "chance, paper's number of cases" in text and text.count("mean rank†") == 1 == text.count("mean rank")
    text = words(folder / "sm3_table1.svg")
    assert {"AUC (%)", "sensitivity (%)", "specificity (%)", "precision (%)", "SM3-linear"} <= set(text)


def test_same_tables_same_files(tmp_path):
    table = fill(sm3_study(tmp_path, seeds=(0, 1)), FORMS["sm3_table2"])
    first, second = (picture(table, tmp_path / n)[1].read_bytes() for n in "ab")
    assert first == second


def test_a_curriculum_table_may_stand_in_the_same_list(make_study, tmp_path):
    results = make_study(study={"published": ["sm3_table2", "aiseeme_table1"]})
    _, svg = curriculum_figure(results, tmp_path / "c")
    assert "published: AISEEME D4, Table 1" in words(svg)
    alone = make_study(study={"published": "sm3_table2"})
    assert not any(text.startswith("published:") for text in words(curriculum_figure(alone, tmp_path / "d")[1]))


def test_a_study_without_a_table_has_none(make_study):
    for study in ({}, {"published": None}, {"published": "aiseeme_table1"}):
        folder = make_study(study=study).folder
        figures(folder)
        assert not (folder / "tables_of_paper").exists()


def test_names_of_tables_in_a_study():
    assert named_tables({}) == [] == named_tables({"published": None})
    assert named_tables({"objective": {"published": "aiseeme_table2"}}) == ["aiseeme_table2"]
    assert named_tables({"published": ("sm3_table2", "aiseeme_table1")}, FORMS) == ["sm3_table2", "aiseeme_table1"]
    with pytest.raises(UserError, match="published: 'sm3_tabel2' is not a published table; did you mean 'sm3_table2'"):
        named_tables({"published": ["sm3_table1", "sm3_tabel2"]}, FORMS)


BASE = {"name": "x", "curriculum": {"tasks": ["simclr"], "length": [1, 1]}}


@pytest.mark.parametrize(
    ("given", "kept"),
    [(None, None), ("sm3_table1", "sm3_table1"), (["sm3_table2", "sm3_table3"], ("sm3_table2", "sm3_table3"))],
)
def test_a_study_names_one_table_or_a_list(given, kept):
    study = Study.model_validate(BASE | {"published": given})
    assert study.published == kept
    again = study.model_dump(mode="json")
    assert again["published"] == given and Study.model_validate(BASE | {"published": again["published"]}) == study


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "must be a published table or a list such as"),
        (True, "must be a published table or a list"),
        ([], "must be a published table or a list"),
        ({"a": 1}, "must be a published table or a list"),
        (["sm3_table1", 2], "must be a published table or a list"),
        (["sm3_table1", "../x"], "must hold names such as sm3_table2, not '../x'"),
        ("a b", "must hold names such as sm3_table2, not 'a b'"),
        (["sm3_table1", "sm3_table1"], "names 'sm3_table1' twice"),
    ],
)
def test_what_is_no_name_of_a_table_is_refused(given, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        Study.model_validate(BASE | {"published": given})
    assert len(error.value.errors()) == 1 and error.value.errors()[0]["loc"] == ("published",)
