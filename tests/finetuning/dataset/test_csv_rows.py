"""A CSV file gives the text of its fields, whatever separates them, and a line that is no row is told by its place."""

import pytest

from finetuning.dataset.raw_rows import Unreadable
from tests.finetuning.dataset.read_rows import mistake, read, rows_of, write_csv

CSV_LINES = {
    "too many fields": (b"1,2,3", "3 fields, the header has 2"),
    "too few fields": (b"1", "1 field, the header has 2"),
    "text after a quote": (b'"1"x,2', "text after a closing quote"),
    "Latin-1": ("é,2".encode("latin-1"), "not valid UTF-8"),
    "a NUL": (b"\0,2", "a NUL byte"),
    "a carriage return": (b"a\rb,2", "a carriage return within a line"),
}


@pytest.mark.parametrize("line,reason", CSV_LINES.values(), ids=CSV_LINES.keys())
def test_a_line_of_csv_that_is_no_row_is_told_with_its_place_and_the_others_are_read(tmp_path, line, reason):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n" + line + b"\n5,6\n")
    first, second, third = read(tmp_path / "a.csv")
    assert (first.text, third.text, third.line) == (b'{"a":"1","b":"2"}', b'{"a":"5","b":"6"}', 4)
    assert isinstance(second, Unreadable) and (second.line, second.reason) == (3, reason)
    assert second.text == line.decode(errors="replace").strip()


def test_a_quote_that_is_never_closed_is_told_with_the_line_that_it_begins_on(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n1,2\n3,"4\n5,6\n7,8\n')
    assert "beyond line 3: a quote that is never closed takes in the lines after it: '3,\"4'" in mistake(
        tmp_path / "a.csv"
    )


def test_values_of_a_csv_file_stay_the_text_that_they_are_over_several_lines(tmp_path):
    rows = [
        {"question": "NA", "answer": "05"},
        {"question": "", "answer": "1.0"},
        {"question": 'a,\n"b"\r\n\nc', "answer": "5"},
        {"question": "\\u0000", "answer": " x "},
    ]
    write_csv(rows, tmp_path / "a.csv")
    assert rows_of(tmp_path / "a.csv") == rows
    assert [item.line for item in read(tmp_path / "a.csv")] == [2, 3, 4, 8]


def test_blank_lines_of_a_csv_file_are_no_rows(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf\r\na,b\r\n\r\n1,2\r\n   \r\n3,4\r\n\r\n")
    assert [(item.line, item.text) for item in read(tmp_path / "a.csv")] == [
        (4, b'{"a":"1","b":"2"}'),
        (6, b'{"a":"3","b":"4"}'),
    ]


HEADERS = {
    "twice": ("a,b,a\n1,2,3\n", "its header has 'a' twice; it has 'a', 'b', 'a'"),
    "no name": (",a,b\n0,1,2\n", "column 1 of its header has no name; it has '', 'a', 'b'"),
    "an open quote": ('"a,b\n1,2\n', "its header has a quote that is never closed"),
}


@pytest.mark.parametrize("content,words", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_can_not_be_right_is_an_error(tmp_path, content, words):
    (tmp_path / "a.csv").write_text(content)
    assert words in mistake(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_columns_are_separated_by_what_separates_the_header(tmp_path, name, sign):
    (tmp_path / name).write_text(f'"que,stion"{sign}answer{sign}"more"\n2 + 3{sign}"5{sign}0"{sign}"1,5"\n')
    (found,) = rows_of(tmp_path / name)
    assert found == {"que,stion": "2 + 3", "answer": f"5{sign}0", "more": "1,5"}


def test_a_header_of_one_column_is_one(tmp_path):
    (tmp_path / "a.csv").write_text("text\nyes; or no\n")
    assert rows_of(tmp_path / "a.csv") == [{"text": "yes; or no"}]


def test_lines_in_another_encoding_are_told_with_how_to_convert_them(tmp_path):
    (tmp_path / "a.csv").write_bytes("question,answer\nwie groß?,größer\n".encode("latin-1"))
    assert "`iconv -f cp1252 -t UTF-8 OLD > NEW`" in mistake(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Москва да", "cp1251"), ("東京ソ", "shift_jis"), ("grün “x”", "cp1252"), ("żółw", "cp1250"), ("grün", "cp850")],
)
@pytest.mark.parametrize("place", ["header", "rows"])
def test_an_encoding_that_is_not_sure_is_not_named(tmp_path, text, encoding, place):
    lines = f"question,{text}\na,b\n" if place == "header" else f"question,answer\n{text},a\n"
    (tmp_path / "a.csv").write_bytes(lines.encode(encoding))
    said = mistake(tmp_path / "a.csv")
    assert "`iconv -f ENCODING -t UTF-8 OLD > NEW`" in said and "latin1" not in said


@pytest.mark.parametrize("encoding", ["latin1", "cp1252", "cp1250"])
def test_an_encoding_that_is_sure_is_named(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("question,answer\nZürich,grüßt Öl\n".encode(encoding))
    assert "`iconv -f cp1252 -t UTF-8 OLD > NEW`" in mistake(tmp_path / "a.csv")
