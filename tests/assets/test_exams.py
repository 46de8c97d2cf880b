"""Which exams a store has, and what their models were made from."""

import shutil

import pytest

from assets.exams import beside_the_one_before, examined, exams_in_force, find_exam
from finetuning.errors import FinetuningError
from tests.assets.exam_store import ExamStore
from tests.resources.s3 import BUCKET, Machine, s3_server


def spoil(report, file):
    """Make the file another one, as long as it was."""
    content = (report.path / file).read_bytes()
    (report.path / file).write_bytes(content[::-1])


@pytest.fixture
def store(tmp_path):
    return ExamStore(tmp_path)


def test_those_in_force_are_found_with_what_they_were_made_from(store):
    store.exam("one", [1.0], r=4)
    last = store.exam("one", [1.0], r=8)
    store.exam("two", [0.0])
    (one, two), incomplete = exams_in_force(store.disk, ["one", "none", "two"], smoke=False)
    assert not incomplete
    assert (one.name, one.report.path, two.name) == ("one", last.path, "two")
    assert one.line["lora_adapter"].sections == {"lora": {"r": 8}} and one.line["quantized_base_model"].is_shared


def test_smoke_runs_are_apart(store):
    store.exam("one", [1.0]), store.exam("two", [1.0], smoke=True)
    found = {
        smoke: [exam.name for exam in exams_in_force(store.disk, ["one", "two"], smoke).exams]
        for smoke in (True, False)
    }
    assert found == {True: ["two"], False: ["one"]}
    with pytest.raises(FinetuningError, match="no exam of a recipe 'two'"):
        find_exam("two", store.disk)


def test_an_adapter_of_the_same_fingerprint_and_other_files_is_not_the_one_examined(store):
    report = store.exam("one", [1.0])
    assert store.exam("two", [1.0], weights="other").inputs == report.inputs, "of another partition"
    assert find_exam("one", store.disk).line["lora_adapter"].partition == "one"
    shutil.rmtree(store.root / "lora_adapter" / "one")
    assert "lora_adapter" not in find_exam("one", store.disk).line
    shutil.move(store.root / "evaluation_report" / "one", store.root / "away")
    store.exam("one", [1.0], weights="of another training")
    shutil.rmtree(store.root / "evaluation_report" / "one")
    shutil.move(store.root / "away", store.root / "evaluation_report" / "one")
    ((exam,), _) = exams_in_force(store.disk, ["one"], smoke=False)
    assert exam.line.keys() == {"evaluation_report"}


def test_an_exam_is_found_by_the_beginning_of_its_adapters_fingerprint(store):
    first = store.exam("one", [1.0], r=4)
    store.exam("one", [1.0], r=8)
    assert find_exam(f"one@{first.inputs['lora_adapter'][:9]}", store.disk).report.path == first.path
    with pytest.raises(FinetuningError, match="there is no such exam, adapter or version"):
        find_exam("one@zzzz", store.disk)


def test_an_exam_that_was_changed_is_refused_and_one_as_it_was_is_read(store):
    report = store.exam("one", [1.0, 0.0])
    read = examined(find_exam("one", store.disk), store.disk)
    assert read.facts["training"] == "1,800 s on cpu" and read.samples["tuned_score"].tolist() == [1.0, 0.0]
    spoil(report, "report.json")
    with pytest.raises(FinetuningError, match="changed after it was written"):
        examined(find_exam("one", store.disk), store.disk)


def test_an_exam_that_is_not_there_whole_is_named(store):
    (store.exam("one", [1.0]).path / "report.json").unlink()
    assert exams_in_force(store.disk, ["one", "two"], smoke=False) == ([], ["one"])


@pytest.mark.long("an S3 server")
def test_on_object_storage_the_report_alone_is_fetched(tmp_path):
    with s3_server():
        here, there = (Machine(f"s3://{BUCKET}/exams", tmp_path / name) for name in ("here", "there"))
        ExamStore(here.cache, here.store).exam("one", [1.0, 0.0])
        read = examined(find_exam("one", there.store), there.store)
        assert read.samples["tuned_score"].tolist() == [1.0, 0.0] and read.facts["steps"] == "3"
        fetched = {path.name for path in there.cache.rglob("*") if path.is_file()}
        assert "samples.parquet" in fetched and "adapter_model.safetensors" not in fetched


def test_an_exam_is_shown_beside_the_one_before_and_one_that_is_gone_is_named(store):
    first = store.exam("one", [1.0] * 8, r=4)
    store.exam("one", [0.0] * 8, r=8)
    page = beside_the_one_before("one", first.fingerprint, store.disk)
    assert f"# one@{first.fingerprint} beside one" in page and "| lora.r | 4 | 8 |" in page
    shutil.rmtree(first.path)
    with pytest.raises(FinetuningError, match="there is no such exam"):
        beside_the_one_before("one", first.fingerprint, store.disk)
