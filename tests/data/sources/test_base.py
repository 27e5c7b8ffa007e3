"""The rules that all sources share: ids, paths, words, tables and the search for a release."""

from pathlib import Path

import pytest
from data import releases

from dermsearch.data.sources.base import (
    CaseRecord,
    Collector,
    ImageFiles,
    Problem,
    hidden,
    inside,
    locate,
    number,
    read_table,
    sex,
    skin_type,
    truth,
    word,
    wrong_id,
)
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder


@pytest.mark.parametrize("case", ["1", "ISIC_0000001", "a b", "Ä-1.jpg", "x" * 200, "é" * 100])
def test_an_id(case: str) -> None:
    assert wrong_id(case) is None


@pytest.mark.parametrize(
    "case", ["", "  ", "a/b", "a\\b", "..", "a..b", ".hidden", "a\0", "a\nb", "a\u202eb", "x" * 201, "é" * 101]
)
def test_what_is_no_id(case: str) -> None:
    assert wrong_id(case)


@pytest.mark.parametrize("path", ["a.jpg", "a/b c/d.jpg", "a..b/c.jpg", "...jpg"])
def test_a_path_inside(path: str) -> None:
    assert inside(path)


@pytest.mark.parametrize("path", ["/a.jpg", "../a.jpg", "a/../../b", "a/..", "C:/a.jpg", "a\\b.jpg", "a\0.jpg"])
def test_a_path_that_may_leave(path: str) -> None:
    assert not inside(path)


def test_words_and_numbers() -> None:
    assert [word(t) for t in ("", "NaN", "unknown", "UNK", "-1", "None", "back")] == [None] * 6 + ["back"]
    assert [number(t) for t in ("55.0", "-1", "nan", "inf", "1e999", "", "old")] == [55.0, -1.0] + [None] * 5
    assert [sex(t) for t in ("M", "Female", "MALE", "", "2")] == ["male", "female", "male", None, None]
    assert [skin_type(t) for t in ("3.0", "6", "0", "7", "-1", "2.5", "")] == [3.0, 6.0] + [None] * 5
    assert [truth(t) for t in ("True", "no", "1", "UNK", "")] == ["true", "false", "true", None, None]


def test_hidden_files() -> None:
    assert [hidden(p) for p in (".a", "b/.c/d.jpg", "__MACOSX/b.jpg", "b/c.jpg")] == [True, True, True, False]


def test_the_collector_keeps_the_order_of_words_and_says_what_it_leaves_out() -> None:
    collector = Collector({"dx": {"nevus": "NEV", "Melanoma": "MEL", "dermal nevus": "NEV"}})
    collector.add(CaseRecord("1", {"derm": "a.jpg", "clinic": ""}, {"dx": "melanoma"}, where="t, line 2"))
    collector.add(CaseRecord("2", {"derm": "a.jpg"}, {"dx": "unknown"}, where="t, line 3"))
    collector.add(CaseRecord("1", {"derm": "a.jpg"}, {"dx": "nevus"}, where="t, line 4"))
    collector.add(CaseRecord("3", {"derm": "a.jpg"}, {"dx": "nevous"}, where="t, line 5"))
    release = collector.release()
    assert release.classes == {"dx": ("NEV", "MEL")}
    assert [(r.case, r.images, r.labels) for r in release.records] == [
        ("1", {"derm": "a.jpg"}, {"dx": "MEL"}),
        ("2", {"derm": "a.jpg"}, {"dx": None}),
    ]
    assert release.problems == [
        Problem("1", "t, line 4", "this case is already in t, line 2"),
        Problem("3", "t, line 5", "'nevous' is no class of dx; did you mean 'nevus'?"),
    ]


def test_a_problem_can_be_printed() -> None:
    problem = Problem("a\x1b[31m\n" + "b" * 300, "t, line 2", "bad \x00 word")
    assert problem.case == "a [31m " + "b" * 93 and problem.reason == "bad   word"


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'a, b\r\n1,"x, y"\r\n\r\n , \r\n2\r\n"3\n4", z ,5\r\n6,w')
    problems: list[Problem] = []
    rows = list(read_table(Folder(tmp_path), "t.csv", ["b"], problems))
    assert rows == [("t.csv, line 2", {"a": "1", "b": "x, y"}), ("t.csv, line 8", {"a": "6", "b": "w"})]
    assert problems == [
        Problem("2", "t.csv, line 5", "1 field where the header has 2"),
        Problem("3 4", "t.csv, line 7", "3 fields where the header has 2"),
    ]


@pytest.mark.parametrize("text", ["", "\n", " , \nx,y\n"])
def test_a_table_without_a_header(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=r"t.csv is empty"):
        list(read_table(Folder(tmp_path), "t.csv", [], []))


def test_a_field_without_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"' + "x" * 200_000)
    with pytest.raises(UserError, match=r"t.csv, line 2: field larger than field limit"):
        list(read_table(Folder(tmp_path), "t.csv", [], []))


def test_locating_a_release(tmp_path: Path) -> None:
    releases.table(tmp_path / "in/meta/t.csv", ["a"])
    assert locate(Folder(tmp_path), ["meta/t.csv"], ["out", "in"]) == ("in/", "in/meta/t.csv")
    assert locate(Folder(tmp_path / "in"), ["u.csv", "meta/t.csv"], ["in"]) == ("", "meta/t.csv")
    with pytest.raises(
        UserError, match=f"{tmp_path}: has no a.csv or b.csv, nor in its c or d; name the folder of the"
    ):
        locate(Folder(tmp_path), ["a.csv", "b.csv"], ["c", "d"])
    with pytest.raises(UserError, match="there is no folder"):
        locate(Folder(tmp_path / "in/meta/t.csv"), ["a.csv"])


def test_images_are_found_whatever_their_case(tmp_path: Path) -> None:
    releases.images(tmp_path, "a/One.JPG", "b/two.png", "b/.three.png", "b/TWO.PNG")
    images = ImageFiles(Folder(tmp_path), "a", "b", "nowhere")
    assert images.names == ["a/One.JPG", "b/TWO.PNG", "b/two.png"]
    assert images.path("A/one.jpg") == "a/One.JPG"
    assert images.path("b/two.png") == "b/two.png" and images.path("b/TWO.PNG") == "b/TWO.PNG"
    assert images.path("c/four.png") == "c/four.png"
    assert images.stem("two") == "b/TWO.PNG"  # the first of the list
    assert images.stem("ONE") == "a/One.JPG" and images.stem("three") is None
