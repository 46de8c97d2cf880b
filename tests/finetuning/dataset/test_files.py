import functools
import gzip
import http.server
import json
import threading
import uuid
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.dataset.file_rows import read_files
from finetuning.dataset.files import SourceFile, matching_files
from finetuning.errors import FinetuningError

WHERE = "recipes/x.yaml: dataset.sources[0]"
ROWS = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(5)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def names(*patterns) -> list[str]:
    return [file.name for file in matching_files(tuple(map(str, patterns)), WHERE)]


def rows_of(*patterns) -> list[dict]:
    return [json.loads(item.text) for item in read_files(tuple(map(str, patterns)), WHERE)]


def mistake(*patterns) -> str:
    with pytest.raises(FinetuningError) as error:
        rows_of(*patterns)
    assert str(error.value).startswith(f"{WHERE}.files: ")
    return str(error.value).removeprefix(f"{WHERE}.files: ")


@pytest.fixture
def memory():
    """The address of an empty folder of fsspec's file system in memory."""
    address = f"memory://{uuid.uuid4().hex}"
    yield address
    fsspec.filesystem("memory").rm(address, recursive=True)


@pytest.fixture
def website(tmp_path):
    """A folder, and the address that it is served at."""
    folder = tmp_path / "website"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("data/a.jsonl", "jsonl", None),
        ("A.JSON.GZ", "json", "gzip"),
        ("a.b.ndjson.zst", "jsonl", "zstd"),
        ("https://host/a.csv.bz2", "csv", "bzip2"),
        ("zip://in/a.tsv.xz::https://host/b.zip", "tsv", "xz"),
        ("a.parquet", "parquet", None),
        ("a.gz", None, "gzip"),
        ("jsonl", None, None),
    ],
)
def test_the_kind_of_a_file_is_in_its_name(name, kind, compression):
    file = SourceFile(name, name)
    assert (file.kind, file.compression) == (kind, compression)


def test_local_patterns_are_relative_to_the_working_directory_and_named_as_they_were_written(tmp_path, monkeypatch):
    (tmp_path / "data/deep").mkdir(parents=True)
    for name in ("data/b.jsonl", "data/a.jsonl", "data/deep/c.jsonl"):
        (tmp_path / name).write_text(JSONL)
    monkeypatch.chdir(tmp_path / "data")
    assert names("*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names("../data/**/*.jsonl") == ["../data/a.jsonl", "../data/b.jsonl", "../data/deep/c.jsonl"]
    assert names("b.jsonl", "*.jsonl") == ["b.jsonl", "a.jsonl"]
    assert names(f"file://{tmp_path}/data/a.jsonl") == [f"{tmp_path}/data/a.jsonl"]


def test_a_pattern_without_a_file_says_what_the_folder_holds(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    expected = f"no file matches '{tmp_path}/rows.json'; the folder {tmp_path} holds rows.jsonl."
    assert mistake(tmp_path / "rows.json") == mistake(f"file://{tmp_path}/rows.json") == expected
    assert f"the folder {tmp_path} holds rows.jsonl" in mistake(tmp_path / "no/such/folder/*.jsonl")


def test_any_address_that_fsspec_reads_may_be_a_pattern(memory):
    fsspec.filesystem("memory").pipe({f"{memory}/{name}.jsonl": JSONL.encode() for name in ("b", "a", "deep/c")})
    place = memory.replace("memory://", "memory:///")
    assert names(f"{memory}/*.jsonl") == [f"{place}/a.jsonl", f"{place}/b.jsonl"]
    assert names(f"{memory}/**/*.jsonl") == [f"{place}/{name}.jsonl" for name in ("a", "b", "deep/c")]
    assert names(f"{memory}/b.jsonl") == [f"{memory}/b.jsonl"]
    assert rows_of(f"{memory}/*.jsonl") == ROWS * 2


def test_a_remote_file_of_each_kind_is_read(memory, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    files = {
        "a.jsonl.gz": gzip.compress(JSONL.encode()),
        "a.json": json.dumps(ROWS).encode(),
        "a.csv": ("question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in ROWS)).encode(),
        "a.parquet": (tmp_path / "a.parquet").read_bytes(),
    }
    fsspec.filesystem("memory").pipe({f"{memory}/{name}": content for name, content in files.items()})
    for name in files:
        assert rows_of(f"{memory}/{name}") == ROWS, name


def test_files_within_an_archive_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a", "b"):
            archive.writestr(f"in/{name}.jsonl", JSONL)
    assert rows_of(f"zip://in/a.jsonl::{tmp_path}/a.zip") == ROWS
    assert rows_of(f"zip://in/*.jsonl::{tmp_path}/a.zip") == ROWS * 2


def test_files_of_a_web_server_are_read_with_a_query_and_without_one(website, tmp_path):
    folder, address = website
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    (folder / "a.jsonl").write_text(JSONL)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(JSONL.encode()))
    for name in ("a.jsonl", "b.jsonl.gz", "a.parquet"):
        assert rows_of(f"{address}/{name}") == ROWS, name
    assert rows_of(f"{address}/*.jsonl*") == ROWS * 2
    (item, *_) = read_files((f"{address}/a.jsonl?download=true&signature=s3cret",), WHERE)
    assert item.file == f"{address}/a.jsonl"


def test_nothing_at_a_web_address_is_an_error_with_what_the_server_says(website):
    _, address = website
    assert f"{address}/a.jsonl cannot be reached: 404" in mistake(f"{address}/a.jsonl?key=s3cret")
    assert "s3cret" not in mistake(f"{address}/a.jsonl?key=s3cret")
    assert f"no file matches '{address}/*.jsonl'" in mistake(f"{address}/*.jsonl")
    nobody = "http://127.0.0.1:9/a.jsonl"
    assert mistake(nobody).startswith(f"{nobody} cannot be reached: ")
    assert mistake("http://ann:s3cret@127.0.0.1:9/a.jsonl").startswith(f"{nobody} cannot be reached: ")
    assert "s3cret" not in mistake("http://ann:s3cret@127.0.0.1:9/*.jsonl")


def test_an_address_without_a_file_is_an_error(memory):
    fsspec.filesystem("memory").pipe({f"{memory}/folder/a.jsonl": b"{}"})
    assert mistake(f"{memory}/*.json").startswith(f"no file matches '{memory}/*.json'")
    assert f"a folder's files are `{memory}/folder/*.jsonl`" in mistake(f"{memory}/folder")
    assert mistake(f"{memory}/b.jsonl").startswith(f"{memory}/b.jsonl cannot be reached: ")


def test_an_address_that_needs_a_package_or_is_of_no_known_kind_says_so(tmp_path):
    found = mistake("dropbox://bucket/a.jsonl")
    assert "pip install" in found and "drop" in found.lower()
    assert "Protocol not known: foo. Write one that fsspec knows, such as s3://" in mistake("foo://bucket/a.jsonl")


def test_a_pattern_that_can_not_be_one_is_an_error(tmp_path, memory):
    fsspec.filesystem("memory").pipe({f"{memory}/a.jsonl": b"{}"})
    for folder in (tmp_path, memory):
        assert "'**' can only be an entire path component. All files of a folder" in mistake(f"{folder}/**.jsonl")


def test_a_remote_file_that_its_server_decompressed_is_read(memory):
    fsspec.filesystem("memory").pipe({f"{memory}/a.jsonl.gz": JSONL.encode()})
    assert rows_of(f"{memory}/a.jsonl.gz") == ROWS


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["a.parquet", "README.md"], "ds/*.parquet"),
        (["train/a.jsonl.gz", "train/b.jsonl.gz"], "ds/**/*.jsonl.gz"),
        (["a.md", "b.md", "c.html"], "ds/*.md"),
        (["train/data.arrow"], "Dataset.to_parquet"),
        ([], "ds/*.jsonl"),
    ],
)
def test_in_place_of_a_folder_what_lies_in_it_is_advised(tmp_path, names, advice):
    (tmp_path / "ds").mkdir()
    for name in names:
        (tmp_path / "ds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ds" / name).write_bytes(b"x")
    with pytest.raises(FinetuningError, match="ds is a folder") as error:
        matching_files((str(tmp_path / "ds"),), "x.yaml: dataset.sources[0]")
    assert advice in str(error.value)
