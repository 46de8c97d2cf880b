"""CSV and Parquet files with lines, headers, pages and values that cannot be right, and odd ones that can."""

from decimal import Decimal

import pyarrow as pa

from tests.finetuning.dataset.malformed_case import (
    ALL,
    GOOD,
    ROWS,
    TABLE,
    TURNS,
    Case,
    in_csv,
    in_parquet,
    qa,
    read,
    whole,
)


def _csv_line(bad: bytes, reason: str) -> Case:
    return Case("a.csv", in_csv(bad), unreadable={GOOD + 2: reason})


def _with(column: pa.Array) -> pa.Table:
    """The good rows with one column more."""
    return pa.Table.from_pylist(ROWS).append_column("more", column)


def _deep(depth: int) -> pa.Array:
    column = pa.array(["x"] * GOOD)
    for _ in range(depth):
        column = pa.StructArray.from_arrays([column], names=["a"])
    return column


CSV = {
    "too many fields": _csv_line(b"1,2,3", "3 fields, the header has 2"),
    "too few fields": _csv_line(b"1", "1 field, the header has 2"),
    "a quote that is never closed": whole(
        "a.csv", in_csv(b'"x,y\nz,'), "cannot be read beyond line 14: a quote that is never closed"
    ),
    "text after a closing quote": _csv_line(b'"x"y,z', "text after a closing quote"),
    "quotes escaped by backslashes": _csv_line(b'"x \\"y\\" z",1', "text after a closing quote"),
    "Latin-1 in a field": _csv_line("ä,1".encode("latin-1"), "not valid UTF-8"),
    "a NUL byte in a field": _csv_line(b"x\0,1", "a NUL byte"),
    "a carriage return within a line": _csv_line(b"x\ry,1", "a carriage return within a line"),
    "a semicolon instead of a comma": _csv_line(b"x;1", "1 field, the header has 2"),
    "a field over the limit": Case(
        "a.csv",
        lambda path: path.write_bytes(in_csv(b"x" * (65 << 20) + b",1")),
        unreadable={14: "longer than 64 MiB"},
    ),
    "embedded newlines": read("a.csv", in_csv(b'"x,\ny\r\n\nz?",1'), GOOD + 1, said={14: "x,\ny\r\n\nz?"}),
    "doubled quotes": read("a.csv", in_csv(b'"say ""hi""?",1'), GOOD + 1, said={14: 'say "hi"?'}),
    "a byte order mark before a header": read("a.csv", b"\xef\xbb\xbf" + in_csv()),
    "carriage returns and newlines": read("a.csv", in_csv(end=b"\r\n")),
    "blank lines": read("a.csv", in_csv(b"", b"   ", b"\r")),
    "a field of 200 KiB": Case("a.csv", in_csv(b"x" * 200_000 + b",1"), dropped={14: ("longer than 256 tokens", "")}),
    "a null as text": read("a.csv", in_csv(b"NA,null"), GOOD + 1, said={14: "NA"}),
    "an empty field": Case("a.csv", in_csv(b"x,"), dropped={14: ("empty answer", "turn 1")}),
    "only a header": whole("a.csv", b"question,answer\n", "holds no rows. Fill it, or leave it out."),
    "a header twice the same": whole("a.csv", in_csv(header=b"answer,answer"), "its header has 'answer' twice"),
    "a column without a name": whole("a.csv", in_csv(header=b"question,"), "column 2 of its header has no name"),
    "an empty header": whole("a.csv", in_csv(header=b'"",""'), "column 1 of its header has no name; it has '', ''"),
    "semicolons in the header alone": whole("a.csv", in_csv(header=b"question;answer"), "none of its lines is a row"),
    "a line break in the name of a column": read(
        "a.csv", b'question,answer,"more\nwords"\n' + b"".join(b"%d?,5,\n" % n for n in range(GOOD))
    ),
    "semicolons": read("a.csv", in_csv().replace(b",", b";")),
    "commas in a .tsv file": read("a.tsv", in_csv()),
    "no header": whole("a.csv", in_csv(header=b"x?,5"), "no format has them"),
    "a header with a quote that is never closed": whole("a.csv", b'"question,answer\n1,2\n', "its header has a quote"),
    "carriage returns alone": whole("a.csv", in_csv(end=b"\r"), "its header has a carriage return within a line"),
    "a header in Latin-1": whole("a.csv", in_csv(header="question,r\u00e9ponse".encode("latin-1")), "its header"),
    "a header with spaces": whole(
        "a.csv", in_csv(header=b"question, answer"), "has no column 'answer'; it has", format="question-answer"
    ),
    "a NUL byte in a header": whole("a.csv", in_csv(header=b"question,ans\0wer"), "its header"),
}
TABLES = {
    "a table that is cut short": whole("a.parquet", TABLE[:-20], "it is no whole Parquet file"),
    "a table with another beginning": whole("a.parquet", ALL, "it is no whole Parquet file"),
    "a table that is encrypted": whole("a.parquet", b"PARE" + TABLE[4:-4] + b"PARE", "it is no whole Parquet file"),
    "a table with a damaged page": whole(
        "a.parquet", TABLE[:4] + b"\xff" * 60 + TABLE[64:], "it is no whole Parquet file"
    ),
    "a table with a damaged footer": whole(
        "a.parquet", TABLE[:-200] + b"\xff" * 150 + TABLE[-50:], "it is no whole Parquet file"
    ),
    "a table without rows": whole("a.parquet", in_parquet(pa.table({"question": [], "answer": []})), "holds no rows"),
    "a table without columns": whole("a.parquet", in_parquet(pa.table({})), "holds no rows"),
    "a table with a column twice": whole(
        "a.parquet", in_parquet(pa.table([["x"], ["y"]], names=["answer", "answer"])), "has two columns 'answer'"
    ),
    "a table of nulls": whole(
        "a.parquet", in_parquet([{"question": None, "answer": None}] * 9), "9 rows were dropped: empty user turn"
    ),
    "a null in a table": Case(
        "a.parquet", in_parquet([*ROWS, {"question": "x", "answer": None}]), dropped={13: ("empty answer", "turn 1")}
    ),
    "text that is no UTF-8 in a table": Case(
        "a.parquet",
        in_parquet(
            pa.table(
                {
                    name: pa.array([row[name].encode() for row in ROWS] + [b"\xff"], pa.binary()).view(pa.string())
                    for name in ROWS[0]
                }
            )
        ),
        unreadable={13: "not valid UTF-8"},
    ),
    "bytes that are text": read(
        "a.parquet", in_parquet([{"question": q.encode(), "answer": a} for q, a in map(qa, ROWS)])
    ),
    "bytes that are no text": Case(
        "a.parquet",
        in_parquet(
            [{"question": q.encode(), "answer": a} for q, a in map(qa, ROWS)] + [{"question": b"\xff", "answer": "x"}]
        ),
        dropped={13: ("bytes", "question")},
    ),
    "a list of records": read("a.parquet", in_parquet([{"messages": turns} for turns in TURNS])),
    "a map instead of a list of records": whole(
        "a.parquet",
        in_parquet(pa.table({"messages": pa.array([[("user", "x")]] * 3, pa.map_(pa.string(), pa.string()))})),
        "3 rows were dropped: a list, not a record",
        format="messages",
    ),
    "numbers and dates as questions": whole(
        "a.parquet",
        in_parquet([{"question": Decimal("1.5"), "answer": 7.5}] * 9),
        "9 rows were dropped: a number in the",
    ),
    "a date beyond the calendar": Case(
        "a.parquet",
        in_parquet(_with(pa.array([0] * 11 + [2**62], pa.timestamp("us")))),
        kept=11,
        unreadable={12: "a value that cannot be read: "},
    ),
    "a day beyond the calendar": Case(
        "a.parquet",
        in_parquet(_with(pa.array([0] * 11 + [2**31 - 1], pa.date32()))),
        kept=11,
        unreadable={12: "a value that cannot be read: "},
    ),
    "a duration beyond all bounds": Case(
        "a.parquet",
        in_parquet(_with(pa.array([0] * 11 + [2**62], pa.duration("s")))),
        kept=11,
        unreadable={12: "a value that cannot be read: "},
    ),
    "a time in nanoseconds": read(
        "a.parquet",
        in_parquet(_with(pa.array([1] * GOOD, pa.timestamp("ns")))),
    ),
    "a time zone that nobody knows": whole(
        "a.parquet", in_parquet(_with(pa.array([1] * GOOD, pa.timestamp("us", "Mars/X")))), "a.parquet cannot be read"
    ),
    "a time of day in nanoseconds": read(
        "a.parquet",
        in_parquet(_with(pa.array([1] * GOOD, pa.time64("ns")))),
    ),
    "a record with a field twice": whole(
        "a.parquet",
        in_parquet(
            pa.Table.from_pylist(ROWS).append_column(
                "more", pa.StructArray.from_arrays([pa.array(["x"] * GOOD)] * 2, names=["a", "a"])
            )
        ),
        "a.parquet",
    ),
    "a table of deep nesting": whole("a.parquet", in_parquet(_with(_deep(300))), "schema too deeply nested"),
    "a table of some nesting": read("a.parquet", in_parquet(_with(_deep(60)))),
    "a pointer of git in place of a table": whole(
        "a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\n", "is a Git LFS pointer"
    ),
}
