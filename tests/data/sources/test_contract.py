"""What every source keeps to, on a small copy of its release."""

from pathlib import Path

import pytest
from data.releases import COPIES, Copy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dermsearch.data.sources.base import SOURCES, Release, wrong_id
from dermsearch.errors import UserError
from dermsearch.storage.files import Folder
from dermsearch.testing import check_source

each = pytest.mark.parametrize("copy", COPIES, ids=str)
with_table = pytest.mark.parametrize("copy", [c for c in COPIES if c.table], ids=str)
in_top = ("derm7pt", "ph2", "ph2_sheet", "mednode")  # copies below the folder that the archive unpacks to


def read(copy: Copy, folder: Path | Folder) -> Release:
    place = folder if isinstance(folder, Folder) else Folder(folder)
    return SOURCES.find(copy.name).read(place, copy.columns)


def test_every_source_has_a_copy() -> None:
    assert {copy.name for copy in COPIES} == set(SOURCES.shipped)


def test_a_source_that_is_none() -> None:
    with pytest.raises(UserError, match="'ham1000' is not a data set that dermsearch knows; did you mean 'ham10000'"):
        SOURCES.find("ham1000")


@pytest.mark.parametrize("name", SOURCES.shipped)
def test_what_a_source_says_of_itself(name: str) -> None:
    source = SOURCES.find(name)
    assert source.name == name
    assert source.title and source.licence
    assert source.home.startswith("http") or name in ("folder", "csv")
    assert all(note.endswith(".") for note in source.notes)
    for label, counts in source.expected.classes.items():
        if (name, label) != ("isic2020", "condition"):  # known for 6,002 of the 33,126 images
            assert sum(counts.values()) == source.expected.cases, label
    assert sum(source.expected.splits.values()) in (0, source.expected.cases)


@each
def test_a_whole_release(copy: Copy, tmp_path: Path) -> None:
    folder = copy.write(tmp_path)
    check_source(copy.name, folder, copy.columns)
    assert len(read(copy, folder).records) >= 3


@pytest.mark.parametrize("copy", [c for c in COPIES if str(c) in in_top], ids=str)
def test_the_folder_that_holds_the_release_does_as_well(copy: Copy, tmp_path: Path) -> None:
    inner = copy.write(tmp_path)
    deep, outer = read(copy, inner), read(copy, tmp_path)
    assert [r.case for r in outer.records] == [r.case for r in deep.records]
    assert outer.problems == []
    assert all((tmp_path / path).is_file() for r in outer.records for path in r.images.values())


@each
def test_a_folder_that_holds_no_release(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path}/other: has no ") as caught:
        read(copy, tmp_path / "other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("copy", [c for c in COPIES if c.name != "csv"], ids=str)
def test_a_folder_that_is_not_there(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no folder '{tmp_path}/nowhere'"):
        read(copy, tmp_path / "nowhere")


@with_table
def test_a_missing_table_is_named(copy: Copy, tmp_path: Path) -> None:
    folder = copy.write(tmp_path)
    assert copy.table
    (folder / copy.table).unlink()
    name = "table" if copy.name == "csv" else copy.table.rsplit("/", 1)[-1]
    with pytest.raises(UserError, match=f"has no .*{name}"):
        read(copy, folder)


@with_table
def test_line_ends_and_a_byte_order_mark_change_nothing(copy: Copy, tmp_path: Path) -> None:
    folder = copy.write(tmp_path)
    whole = read(copy, folder)
    assert copy.table
    text = (folder / copy.table).read_bytes().replace(b"\r\n", b"\n")
    for changed in (text, text.replace(b"\n", b"\r\n"), text.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + text):
        (folder / copy.table).write_bytes(changed)
        assert read(copy, folder) == whole


@with_table
def test_text_that_is_not_utf_8(copy: Copy, tmp_path: Path) -> None:
    folder = copy.write(tmp_path)
    assert copy.table
    text = (folder / copy.table).read_bytes()
    (folder / copy.table).write_bytes(text + b"\xe4\n")
    line = text.count(b"\n") + 1
    with pytest.raises(UserError, match=rf"{copy.table}, line {line}: is not UTF-8 text; save it as UTF-8"):
        read(copy, folder)


def change_first(copy: Copy, folder: Path, to: str) -> None:
    """Write another id in the place of the first."""
    assert copy.table
    text = (folder / copy.table).read_bytes()
    keep = "\n" if copy.first.startswith("\n") else ""
    assert copy.first.encode() in text
    (folder / copy.table).write_bytes(text.replace(copy.first.encode(), (keep + to).encode(), 1))


@with_table
@pytest.mark.parametrize("evil", ["../../secret", "/etc/passwd", "a\\b", "nul\0", "x" * 201])
def test_an_unsafe_id_is_a_problem(copy: Copy, evil: str, tmp_path: Path) -> None:
    folder = copy.write(tmp_path / "here")
    (tmp_path / "secret.jpg").write_bytes(b"private")
    whole = read(copy, folder)
    change_first(copy, folder, evil)
    release = read(copy, folder)
    gone = {r.case for r in whole.records} - {r.case for r in release.records}
    assert len(gone) == 1 and len(release.records) == len(whole.records) - 1
    assert release.problems and all(not r.case.startswith(".") for r in release.records)
    assert all(len(p.case) <= 100 for p in release.problems)
    assert all(".." not in path for r in release.records for path in r.images.values())


@with_table
def test_a_second_row_of_a_case_is_a_problem(copy: Copy, tmp_path: Path) -> None:
    folder = copy.write(tmp_path)
    whole = read(copy, folder)
    assert copy.table
    lines = (folder / copy.table).read_text().splitlines()
    again = next(line for line in lines if copy.first.strip() in line)
    at = next(n for n, line in enumerate(lines) if line.startswith("||")) if copy.name == "ph2" else len(lines) - 1
    (folder / copy.table).write_text("\n".join([*lines[: at + 1], again, *lines[at + 1 :], ""]))
    release = read(copy, folder)
    assert {r.case for r in release.records} == {r.case for r in whole.records}
    assert len(release.problems) == 1
    if copy.name != "derm7pt":  # there the row is in no split before its id is looked at
        assert "this case is already in" in release.problems[0].reason


class Damaged(Folder):
    """A folder one file of which reads as other bytes."""

    def __init__(self, where: Path, name: str, data: bytes) -> None:
        super().__init__(where)
        self.name, self.data = name, data

    def read(self, name: str) -> bytes:
        return self.data if name == self.name else super().read(name)


CUTS = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 60), st.one_of(st.binary(max_size=12), st.text(max_size=12))),
    min_size=1,
    max_size=4,
)


@with_table
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS)
def test_damage_ends_in_a_release_or_in_one_sentence(copy: Copy, cuts: list, tmp_path_factory) -> None:
    place = tmp_path_factory.getbasetemp() / f"damage_{copy}"
    folder = next(place.glob("**/.written"), None)
    if folder is None:
        folder = copy.write(place) / ".written"
        folder.touch()
    assert copy.table
    data = (folder.parent / copy.table).read_bytes()
    for start, length, put in cuts:
        start %= len(data) + 1
        data = data[:start] + (put.encode("utf-8", "replace") if isinstance(put, str) else put) + data[start + length :]
    try:
        release = read(copy, Damaged(folder.parent, copy.table, data))
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(wrong_id(r.case) is None for r in release.records)
        assert all(c is None or c in release.classes[la] for r in release.records for la, c in r.labels.items())
