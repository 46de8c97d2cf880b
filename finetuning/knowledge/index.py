"""An index of passages, by their words and by what they mean. It holds arrays and JSON alone, nothing that is run.

passages.parquet  the passages themselves, in the order of their numbers
bm25/             words and how much each passage is about them
vectors.npy       (passages, dimensions), of length 1, in float32
digests.npy       (passages,) of what was embedded, by which the next index knows what is there already
index.json        how all of this was made
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np

from finetuning.durable import write_bytes
from finetuning.errors import FinetuningError
from finetuning.knowledge.embedding import Embedder
from finetuning.knowledge.passages import PASSAGES, Passage, passages_in
from finetuning.knowledge.summaries import IndexSummary
from finetuning.progress import Progress
from finetuning.recipe.knowledge import KnowledgeSpec

BM25, VECTORS, DIGESTS, INDEX = "bm25", "vectors.npy", "digests.npy", "index.json"
PART = ".npz"  # of a file with the vectors that one attempt computed together
EMBEDDED_TOGETHER = 1_024
LANGUAGE = "english"  # of the stemmer, which leaves words of other languages nearly as they are


def words_of(texts: Sequence[str]) -> Any:
    """The words of texts, as the index knows them: small letters, without endings."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer(LANGUAGE)
    return bm25s.tokenize(
        list(texts), stopwords="en", stemmer=stemmer, show_progress=False, token_pattern=r"(?u)\b\w+\b"
    )


@dataclass(frozen=True)
class Vectors:
    """What makes the vectors of an index."""

    embedder: Embedder
    model: str
    """The embedding model with its revision and prefix; vectors of another one are of no use."""
    before: Path | None = None
    """An index whose vectors are used again for passages that did not change."""
    kept: Path | None = None
    """A folder for vectors on their way, which outlives an attempt that is ended."""

    def known(self) -> Iterator["Known"]:
        """Yield what an earlier index and earlier attempts at this one have, a part at a time."""
        index = Known.of(self.before, self.model) if self.before else None
        if index:
            yield index
        for path in sorted(self.kept.glob(f"*{PART}")) if self.kept else ():
            try:
                with np.load(path, allow_pickle=False) as part:
                    yield Known.from_arrays(part["digests"], part["vectors"])
            except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # of a machine that was switched off
                path.unlink()

    def keep(self, digests: np.ndarray, vectors: np.ndarray) -> None:
        """Leave a part for the next attempt."""
        if self.kept:
            self.kept.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.savez(content, digests=digests, vectors=vectors)
            write_bytes(self.kept / f"{digests[0].decode()}{PART}", content.getvalue())


def write_index(
    passages: Path,
    folder: Path,
    spec: KnowledgeSpec,
    vectors: Vectors | None,
    progress: Progress,
) -> IndexSummary:
    """Index the passages in the folder `passages`; write the index into `folder`.

    Args:
        vectors: None for an index by words alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(passages / PASSAGES, folder / PASSAGES)
    texts = [
        Passage(**row, document="", offset=0).shown for row in passages_in(folder, ["heading", "text"]).to_pylist()
    ]
    method, embedded, dimensions = spec.index.method, 0, 0
    if method != "embedding":
        progress.update(f"indexing {len(texts)} passages by their words")
        _write_words(texts, folder / BM25)
    if vectors is not None:
        dimensions = vectors.embedder.dimensions
        embedded = _write_vectors(texts, folder, vectors, progress)
    made = {"method": method, "embedding": vectors.model if vectors else "", "passages": len(texts)}
    (folder / INDEX).write_text(json.dumps(made, indent=2))
    return IndexSummary(
        method=method, passages=len(texts), embedding=made["embedding"], dimensions=dimensions, embedded=embedded
    )


def _write_words(texts: Sequence[str], folder: Path) -> None:
    import bm25s

    words = words_of(texts)
    if not any(map(len, words.ids)):
        raise FinetuningError(
            "knowledge.index.method: the documents have no words that could be found, or such alone as every text has. "
            "Write embedding, or other documents."
        )
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    index.save(folder)


def _write_vectors(texts: Sequence[str], folder: Path, vectors: Vectors, progress: Progress) -> int:
    """Write the vectors of all texts; return how many were computed, and not known before."""
    digests, embedder = np.array([_digest(text) for text in texts], "S16"), vectors.embedder
    out = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (len(texts), embedder.dimensions))
    new = np.arange(len(digests))
    for known in vectors.known():
        places, there = known.places(digests[new])
        out[new[there]] = known.vectors[places[there]]
        new = new[~there]
    for start, part in _parts(new.tolist()):
        progress.update(f"{start}/{len(new)} passages embedded")
        out[part] = embedder.of_passages(texts[number] for number in part)
        vectors.keep(digests[part], out[part])
    out.flush()
    np.save(folder / DIGESTS, digests, allow_pickle=False)
    return len(new)


@dataclass(frozen=True)
class Known:
    """Vectors of an index, found by the digest of what was embedded."""

    digests: np.ndarray
    order: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, folder: Path, model: str) -> Self | None:
        """Open an index; None for one of another model, or without vectors."""
        try:
            if json.loads((folder / INDEX).read_bytes())["embedding"] != model:
                return None
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            digests = np.load(folder / DIGESTS, allow_pickle=False)
        except (OSError, ValueError, KeyError):  # it is being removed, or has no vectors
            return None
        return cls.from_arrays(digests, vectors) if len(digests) == len(vectors) > 0 else None

    @classmethod
    def from_arrays(cls, digests: np.ndarray, vectors: np.ndarray) -> Self:
        """Take the vectors with the digests of what they are of, in the same order."""
        return cls(digests, np.argsort(digests, kind="stable"), vectors)

    def places(self, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each digest among the vectors, and whether it is there at all."""
        found = np.searchsorted(self.digests, digests, sorter=self.order)
        places = self.order[np.minimum(found, len(self.order) - 1)]
        return places, self.digests[places] == digests


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest().encode()


def _parts(numbers: list[int]) -> Iterator[tuple[int, list[int]]]:
    for start in range(0, len(numbers), EMBEDDED_TOGETHER):
        yield start, numbers[start : start + EMBEDDED_TOGETHER]
