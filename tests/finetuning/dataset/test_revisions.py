import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import fsspec
import fsspec.implementations.memory
import pytest
from huggingface_hub import HfApi

from finetuning.dataset import linear_equations
from finetuning.dataset.revisions import resolve, resolve_all
from finetuning.errors import FinetuningError
from finetuning.recipe.dataset import DatasetSpec, EvalSpec, sources
from finetuning.recipe.source import SourceSpec

WHERE = "recipes/x.yaml: dataset.sources[0]"
NO_HUB = HfApi(endpoint="http://127.0.0.1:9", token=False)


def files(*patterns) -> SourceSpec:
    return SourceSpec(files=[str(pattern) for pattern in patterns], format="question-answer")


def revision(*patterns) -> str:
    return resolve(files(*patterns), api=NO_HUB, where=WHERE)


def test_neither_datasets_nor_the_hub_client_is_imported_to_resolve_files_and_generators():
    code = "import sys, finetuning.dataset.revisions as _; print({'datasets', 'huggingface_hub'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_revision_of_files_follows_their_names_and_contents_and_not_their_folder(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a.jsonl").write_text('{"question": "1"}\n')
    (tmp_path / "here/b.jsonl").write_text('{"question": "2"}\n')
    first = revision(tmp_path / "here/*.jsonl")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert revision(tmp_path / "there/*.jsonl") == first
    assert revision(tmp_path / "here/a.jsonl") != first
    (tmp_path / "here/b.jsonl").write_text('{"question": "3"}\n')
    assert revision(tmp_path / "here/*.jsonl") != first
    (tmp_path / "there/b.jsonl").rename(tmp_path / "there/c.jsonl")
    assert revision(tmp_path / "there/*.jsonl") != first


def test_the_revision_of_rows_is_what_it_always_was(tmp_path, monkeypatch):
    for name in ("a/x.jsonl", "b/x.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    assert revision("a/x.jsonl", "b/x.jsonl") == "sha256:ccaccc406ef7f945"
    spec = files("a/x.jsonl", "b/x.jsonl")
    assert resolve(spec, api=NO_HUB, where=WHERE, by_path=True) != revision("a/x.jsonl", "b/x.jsonl")


def test_a_file_that_two_patterns_match_counts_once(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    assert revision(tmp_path / "*.jsonl", tmp_path / "a.jsonl") == revision(tmp_path / "a.jsonl")


def test_patterns_are_relative_to_the_working_directory_and_may_go_down_and_up(tmp_path, monkeypatch):
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "data/deep/a.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path / "data")
    assert revision("deep/a.jsonl") == revision("**/*.jsonl") == revision("../data/deep/*.jsonl")


def test_a_pattern_without_a_file_says_what_the_folder_holds(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(FinetuningError) as error:
        revision(tmp_path / "rows.json")
    assert str(error.value) == (
        f"{WHERE}.files: no file matches '{tmp_path}/rows.json'; the folder {tmp_path} holds rows.jsonl."
    )
    with pytest.raises(FinetuningError, match=f"the folder {tmp_path} holds rows.jsonl"):
        revision(tmp_path / "no/such/folder/*.jsonl")


def test_the_revision_of_a_remote_file_without_a_checksum_is_that_of_its_contents():
    memory = fsspec.filesystem("memory")
    memory.pipe("memory://revisions/a.jsonl", b"1")
    first = revision("memory://revisions/a.jsonl")
    memory.pipe("memory://revisions/a.jsonl", b"1")
    assert revision("memory://revisions/a.jsonl") == revision("memory://revisions/*.jsonl") == first
    memory.pipe("memory://revisions/a.jsonl", b"2")
    assert revision("memory://revisions/a.jsonl") != first
    memory.rm("memory://revisions", recursive=True)


class Bucket(fsspec.implementations.memory.MemoryFileSystem):
    """A store that knows of each file what `known` has, and has no contents to give."""

    protocol = "bucket"
    known: ClassVar = {}

    def info(self, path, **keys):
        return {"name": path, "type": "file", "size": 5, **self.known}

    def _open(self, *arguments, **keys):
        raise AssertionError("nothing is fetched to tell its revision")


@pytest.mark.parametrize("key", ["ETag", "md5Hash", "generation", "checksum", "Content-MD5"])
def test_the_revision_of_a_remote_file_is_what_its_file_system_knows_of_it(monkeypatch, key):
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    revisions = []
    for known in ("1", "1", "2"):
        monkeypatch.setattr(Bucket, "known", {key: known})
        revisions.append(revision("bucket://a.jsonl"))
    assert revisions[0] == revisions[1] != revisions[2]


DATE = 1_700_000_000


def in_tar(folder: Path, content: bytes) -> str:
    """The address of a member of an archive, made at a fixed time."""
    with tarfile.open(folder / "rows.tar", "w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size, member.mtime = len(content), DATE
        archive.addfile(member, io.BytesIO(content))
    return f"tar://a.jsonl::file://{folder / 'rows.tar'}"


def in_zip(folder: Path, content: bytes) -> str:
    """The address of a member of another archive, made at a fixed time."""
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.jsonl", (2023, 11, 14, 0, 0, 0)), content)
    return f"zip://a.jsonl::file://{folder / 'rows.zip'}"


def in_a_folder(folder: Path, content: bytes) -> str:
    """The name of a file that has a fixed time."""
    (folder / "a.jsonl").write_bytes(content)
    os.utime(folder / "a.jsonl", (DATE, DATE))
    return str(folder / "a.jsonl")


def on_a_web_server(folder: Path, content: bytes) -> str:
    """The address of a file on a server that makes its ETag, as nginx does, of size and time."""
    in_a_folder(folder, content)

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("ETag", f'"{DATE:x}-{len(content):x}"')
            super().end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/a.jsonl"


@pytest.mark.parametrize("put", [in_tar, in_zip, in_a_folder, on_a_web_server])
def test_other_contents_of_one_size_and_date_are_another_revision(put, tmp_path):
    first, same, other = (revision(put(tmp_path, content)) for content in (b'{"a": 1}', b'{"a": 1}', b'{"a": 2}'))
    assert first == same != other


@pytest.mark.parametrize("key", ["LastModified", "last_modified", "updated", "mtime"])
def test_a_time_of_a_change_is_not_taken_for_the_contents(monkeypatch, key):
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    monkeypatch.setattr(Bucket, "known", {key: DATE})
    with pytest.raises(FinetuningError, match="nothing is fetched"):
        revision("bucket://a.jsonl")


def test_a_remote_file_that_can_not_be_reached_is_an_error():
    with pytest.raises(FinetuningError) as error:
        revision("http://127.0.0.1:9/a.jsonl")
    assert str(error.value).startswith(f"{WHERE}.files: http://127.0.0.1:9/a.jsonl cannot be reached: ")


def test_the_revision_of_a_generator_is_its_version(monkeypatch):
    source = SourceSpec(generator="linear-equations", rows=3, format="question-answer")
    before = resolve(source, api=NO_HUB, where=WHERE)
    monkeypatch.setattr(linear_equations, "VERSION", linear_equations.VERSION + 1)
    assert before.startswith("linear-equations@") and resolve(source, api=NO_HUB, where=WHERE) != before


def test_a_hub_that_can_not_be_reached_is_an_error_that_names_place_data_set_and_hub():
    source = SourceSpec(hub="openai/gsm8k", format="question-answer")
    with pytest.raises(FinetuningError) as error:
        resolve(source, api=NO_HUB, where=WHERE)
    assert str(error.value).startswith(f"{WHERE}: The hub http://127.0.0.1:9 cannot be reached")
    assert "openai/gsm8k" in str(error.value)


def test_no_token_is_in_the_error_or_in_anything_that_it_was_raised_from():
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_s\u00e4cret")
    with pytest.raises(FinetuningError) as error:
        resolve(SourceSpec(hub="openai/gsm8k", format="question-answer"), api=api, where=WHERE)
    assert "HF_TOKEN cannot be sent" in str(error.value)
    assert error.value.__cause__ is None and error.value.__context__ is None


def test_every_source_has_a_name_and_its_path_in_the_recipe(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    generated = SourceSpec(generator="linear-equations", rows=3, format="question-answer")
    dataset = DatasetSpec(sources=(generated, files(tmp_path / "a.jsonl")), eval=EvalSpec(sources=(generated,)))
    assert {name: path for name, (_, path) in sources(dataset).items()} == {
        "train-00": "dataset.sources[0]",
        "train-01": "dataset.sources[1]",
        "eval-00": "dataset.eval.sources[0]",
    }
    assert resolve_all(dataset, api=NO_HUB, where="recipes/x.yaml").keys() == sources(dataset).keys()
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(FinetuningError, match=r"^recipes/x.yaml: dataset.sources\[1\].files: no file matches"):
        resolve_all(dataset, api=NO_HUB, where="recipes/x.yaml")
