"""Names of files from any text, and tables as people's programs write them."""

import unicodedata
from pathlib import Path

import pytest

from sightline.errors import FolderHeld, LayoutError
from sightline.io.files import (
    hold_folder,
    hold_new_folder,
    make_file_name,
    make_safe_name,
    make_unique_name,
    mark_whole,
    parse_json,
    require_empty,
    require_place_for_results,
    rewrite_folder,
    write_text,
)
from sightline.io.tables import find_path_inside, read_table, require_even_rows

TEXTS = [
    *("s/1", "s_1", "s 1", "s:1", "S_1", "..", ".", "../../x", "a\0b", "CON", "nul.txt", "a.", " a", "a "),
    *("u\u0308", "\u00fc", "\udcff", "x" * 400, "x" * 400 + "y", "\U0001f980" * 90, "", "a\\b", "-", "a\nb"),
]


def test_every_text_has_a_file_of_its_own(tmp_path):
    taken: set[str] = set()
    for text in TEXTS:
        name = make_unique_name(text, taken)
        file = tmp_path / f"{name}.png"
        assert file.resolve().parent == tmp_path.resolve(), text
        assert not file.exists(), text
        file.write_bytes(b"x")
        assert len(name.encode()) <= 130
        assert name.split(".")[0].casefold() not in ("con", "nul")
        assert not name.endswith((".", " "))
    assert len(list(tmp_path.iterdir())) == len(TEXTS)
    # a file system that takes letters of one form for the same would not lose one either
    forms = {unicodedata.normalize("NFKC", f.name).casefold() for f in tmp_path.iterdir()}
    assert len(forms) == len(TEXTS)


def test_percent_encoded_names_stay_apart_and_fit():
    names = {text: make_file_name(text) for text in TEXTS if text}
    assert len(set(names.values())) == len(names)
    assert all(len(name.encode()) <= 120 and "/" not in name and name == name.strip() for name in names.values())
    assert make_file_name("s 1") == "s 1"
    assert make_safe_name("..") == "case"


@pytest.mark.parametrize(
    "text",
    ["a;b;c\n1;2,5;3\n", "a,b,c\n1,\"2,5\",3\n", "a\tb\tc\n1\t2,5\t3\n", "a,b,c\n1,\"2,5\",3,\n", "a;b;c;\n1;2,5;3;\n",
     "a|b|c\n1|2,5|3\n", '"a","b","c"\n"1","2,5","3"\n', '"a";"b";"c"\r"1";"2,5";"3"\r', "sep=;\ra;b;c\r1;2,5;3\r"],
)  # fmt: skip
def test_tables_are_read_whatever_separates_their_cells(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    (row,) = read_table(tmp_path / "t.csv", ("a", "b"))
    assert dict(row.cells) == {"a": "1", "b": "2,5", "c": "3"}


@pytest.mark.parametrize("row", ["1,2,3,4", "1,2", "1,2,3,,x"])
def test_rows_of_another_length_are_refused_by_name(tmp_path, row):
    (tmp_path / "t.csv").write_text(f"a,b,c\n1,2,3\n{row}\n")
    with pytest.raises(LayoutError, match="row 3 has"):
        read_table(tmp_path / "t.csv", ("a",))
    with pytest.raises(LayoutError, match="row 3 has"):
        require_even_rows(tmp_path / "t.csv", short=True)


def test_a_large_table_that_names_a_column_twice_is_refused_where_that_one_is_read(tmp_path):
    (tmp_path / "t.csv").write_text("x,time,x,note,note\n1,2,3,,\n")
    require_even_rows(tmp_path / "t.csv", columns=("time",))
    with pytest.raises(LayoutError, match="names the column 'x' 2 times"):
        require_even_rows(tmp_path / "t.csv", columns=("time", "x"))


@pytest.mark.parametrize("row", ["a,b,c", "a,b,c,", ' a,"b",c '])
def test_joined_tables_are_refused(tmp_path, row):
    (tmp_path / "t.csv").write_text(f"a,b,c\n1,2,3\n{row}\n4,5,6\n")
    with pytest.raises(LayoutError, match="row 3 repeats the header"):
        read_table(tmp_path / "t.csv", ("a",))


def test_a_name_twice_in_one_object_is_refused():
    assert parse_json('{"a": {"b": 1}, "b": [{"a": 1}, {"a": 2}]}') == {"a": {"b": 1}, "b": [{"a": 1}, {"a": 2}]}
    with pytest.raises(ValueError, match="'annotations' stands twice"):
        parse_json('[{"annotations": [1], "x": 2, "annotations": []}]')


def test_numbers_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a whole number of 400 digits"):
        parse_json('{"a": 1' + "0" * 399 + "}")
    assert parse_json("[1" + "0" * 40 + "]") == [10**40]
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1_5,1_5\n")
    (row,) = read_table(path, ["a"])
    for read in (row.integer, row.number_of):
        with pytest.raises(LayoutError, match="'1_5', expected a"):
            read("a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["a\tb\nä\t2\n", "sep=;\na;b\nä;2\n", "sep=,\r\na,b\r\nä,2\r\n", "sep=\t\na\tb\nä\t2\n"]
)
def test_what_excel_saves_is_read(tmp_path, encoding, text):
    """Unicode text has tabs, UTF-16 and a mark; `sep=;` stands above the header of what opens in every country."""
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "t.csv").write_bytes(mark + text.encode(encoding))
    (row,) = read_table(tmp_path / "t.csv", ("a", "b"))
    assert (row["a"], row["b"], row.number) == ("ä", "2", 3 if text.startswith("sep") else 2)


def test_other_encodings_are_refused(tmp_path):
    for data in ("a,b\nä,2\n".encode("latin-1"), "a,b\n1,2\n".encode("utf-16")[:-1]):
        (tmp_path / "t.csv").write_bytes(data)
        with pytest.raises(LayoutError, match="UTF-8 or UTF-16"):
            read_table(tmp_path / "t.csv", ("a", "b"))


def test_paths_in_tables_stay_inside_and_find_what_is_written_otherwise(tmp_path):
    (tmp_path / "Mu\u0308ller").mkdir()
    file = tmp_path / "Mu\u0308ller" / "12:30.png"
    file.write_bytes(b"")
    assert find_path_inside(tmp_path, "M\u00fcller/12:30.png") == file
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(b"")
    assert find_path_inside(tmp_path, "sub\\a.png") == tmp_path / "sub" / "a.png"
    (tmp_path / "12:30:01.png").write_bytes(b"")
    assert find_path_inside(tmp_path, "12:30:01.png").is_file()
    for outside in ("../x", "/x", "\\x", "C:/x", "C:\\x", "", "a/../../x", "a\0b"):
        assert find_path_inside(tmp_path, outside) is None, outside


def test_a_folder_that_must_be_empty_is_held_from_beside_it(tmp_path):
    with hold_new_folder(tmp_path / "new"):
        assert not (tmp_path / "new").exists()
        with pytest.raises(FolderHeld), hold_new_folder(tmp_path / "new"):
            pass
        with hold_new_folder(tmp_path / "other"), hold_folder(tmp_path / "third"):
            pass
    assert not list(tmp_path.iterdir())


def test_what_was_begun_may_be_begun_again_and_nothing_else(tmp_path):
    require_empty(tmp_path / "a")
    (tmp_path / "a" / "half.png").write_bytes(b"x")
    require_empty(tmp_path / "a")
    mark_whole(tmp_path / "a")
    with pytest.raises(LayoutError, match="not an empty folder"):
        require_empty(tmp_path / "a")


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_text(tmp_path / "taken", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("failing", range(5))
def test_a_folder_whose_exchange_fails_is_what_it_was(tmp_path, monkeypatch, failing):
    """Five moves: the head aside; the old file aside and its successor in place; a new file; the new head."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    old = {"head.json": "old head", "a.csv": "old"}
    for name, text in old.items():
        (folder / name).write_text(text)
    calls, move = iter(range(100)), Path.replace

    def replace_or_fail(self, target):
        if next(calls) == failing:
            raise OSError(5, "Input/output error")
        return move(self, target)

    def rewrite():
        with rewrite_folder(folder, "head.json") as place:
            for name in (*old, "b.csv"):
                (place / name).unlink(missing_ok=True)
                (place / name).write_text(f"new {name}")
            monkeypatch.setattr(Path, "replace", replace_or_fail)

    with pytest.raises(OSError, match="Input/output"):
        rewrite()
    monkeypatch.setattr(Path, "replace", move)
    assert {name: (folder / name).read_text() for name in old} == old
    assert {path.name for path in folder.iterdir()} <= {*old, "b.csv"}
    rewrite()
    monkeypatch.setattr(Path, "replace", move)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {n: f"new {n}" for n in (*old, "b.csv")}


def test_results_do_not_go_among_the_files_of_a_cohort_nor_over_what_is_read(tmp_path):
    cohort, plain = tmp_path / "cohort", tmp_path / "plain"
    for folder in (cohort / "images", cohort / "run", plain):
        folder.mkdir(parents=True)
    for name in ("cohort.json", "images.csv", "run/recipe.json", "run/cohort.json"):
        (cohort / name).touch()
    (tmp_path / "link").symlink_to(cohort / "images")
    for out in (cohort, cohort / "images" / "new", tmp_path / "link" / "new", cohort / "new", cohort / "x.csv"):
        with pytest.raises(LayoutError, match="among the files of the cohort"):
            require_place_for_results(out)
    table = plain / "studies.csv"
    table.touch()
    for out in (table, plain):
        with pytest.raises(LayoutError, match="is read, and would be written over"):
            require_place_for_results(out, ["studies.csv"], [None, plain, table])
    for out in (plain, plain / "new", cohort / "run", cohort / "run" / "evaluation"):
        require_place_for_results(out, ["predictions.csv"], [plain, table])


def test_a_full_disk_is_named_by_the_folder_that_was_written(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*out'"), hold_folder(tmp_path / "out"):
        raise OSError(28, "No space left on device")
