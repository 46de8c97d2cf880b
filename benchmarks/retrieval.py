"""How fast passages are found among many, beside faiss, and in how much memory.

`python -m benchmarks.retrieval` makes manuals of products that do not exist until there are `--passages` of them, and
indexes them by words and by vectors. The vectors are random: what an embedding model takes to make them is its own
affair (`--embedded` passages show how much), and a search by all of them takes the same time whatever they say. The
search by vectors is compared with faiss' flat index, in turn, in one process with the same vectors and questions; both
are exact, and have to find the same passages. faiss is not installed with this project: `pip install faiss-cpu`.

The last line of the output is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.sides import WORK
from finetuning.dataset.product_manuals import generate, manuals
from finetuning.knowledge.embedding import Embedder, fetch, resolve
from finetuning.knowledge.index import INDEX, VECTORS, write_index
from finetuning.knowledge.passages import PASSAGES, SCHEMA, Passage, blocks_of
from finetuning.knowledge.retriever import Retriever
from finetuning.progress import Progress
from finetuning.recipe.knowledge import DocumentsSpec, EmbeddingSpec, IndexSpec, KnowledgeSpec

FOUND = 10  # passages a question
ROWS = 50_000  # of vectors that are made at once
SILENT = Progress(lambda line: None, "")


def main(arguments: list[str] | None = None) -> None:
    """Print what was measured, and a JSON object with all of it."""
    options = parse(arguments)
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="retrieval-", dir=WORK) as folder:
        found = measured(Path(folder), options)
    print(json.dumps(found))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description="Measure how passages are found."
    )
    parser.add_argument("--passages", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes of the index")
    parser.add_argument("--dimensions", type=int, default=384, help="of the vectors (384)")
    parser.add_argument("--questions", type=int, default=50, help="questions of each side (50)")
    parser.add_argument("--embedded", type=int, default=1_000, help="passages that the embedding model reads (1000)")
    return parser.parse_args(arguments)


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what each size of an index takes, and the embedding model."""
    sizes = {count: of_size(folder / str(count), count, options) for count in options.passages}
    return {"passages_a_second": round(embedding_rate(options.embedded), 1), "sizes": sizes}


def of_size(folder: Path, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what an index of so many passages takes."""
    folder.mkdir()
    pq.write_table(
        pa.Table.from_pylist([one._asdict() for one in islice(passages(), count)], SCHEMA), folder / PASSAGES
    )
    spec = KnowledgeSpec(documents=(DocumentsSpec(generator="product-manuals"),), index=IndexSpec(method="bm25"))
    started = time.monotonic()
    write_index(folder, folder / "index", spec, None, SILENT)
    built = time.monotonic() - started
    by_words = Retriever(folder / "index", None)
    questions = [str(row["question"]) for row in generate(options.questions, 1, "test")]
    words = median(timed(lambda q=question: by_words.find([q], FOUND)) for question in questions)
    vectors = random_vectors(folder / "index" / VECTORS, count, options.dimensions)
    (folder / "index" / INDEX).write_text(json.dumps({"method": "embedding"}))
    found = {"build_seconds": round(built, 1), "words_ms": round(1e3 * words, 2)}
    found |= beside_faiss(Retriever(folder / "index", None), vectors, options.questions)
    found["resident_mb"] = psutil.Process().memory_info().rss >> 20
    print(f"{count:,} passages: {found}", flush=True)
    return found


def passages() -> Iterator[Passage]:
    """Yield passages of manuals without end: those of the generator again and again, with other names."""
    made = [(name, text) for name, text in manuals()]
    for copy in range(10**6):
        for name, text in made:
            for block in blocks_of(text.replace("The ", f"The {copy} ") if copy else text):
                yield Passage(f"{copy}/{name}", block.heading, block.text, block.offset, 50)


def random_vectors(path: Path, count: int, dimensions: int) -> np.ndarray:
    """Write vectors of length 1 to `path`; return them as they lie there."""
    random = np.random.default_rng(0)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (count, dimensions))
    for start in range(0, count, ROWS):
        part = random.standard_normal((min(ROWS, count - start), dimensions), np.float32)
        out[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    out.flush()
    return out


def beside_faiss(retriever: Retriever, vectors: np.ndarray, questions: int) -> dict[str, Any]:
    """Return the time of a search by vectors, and where faiss is installed its own, with their ratio.

    Raises:
        ValueError: the two find other passages.
    """
    random = np.random.default_rng(1)
    asked = random.standard_normal((questions, vectors.shape[1]), np.float32)
    flat = flat_index(vectors)
    ours, theirs = [], []
    for question in asked:
        start = time.perf_counter()
        (found,) = retriever.nearest(question[None], FOUND)
        ours.append(time.perf_counter() - start)
        if flat is not None:
            start = time.perf_counter()
            known = flat.search(question[None], FOUND)[1][0].tolist()
            theirs.append(time.perf_counter() - start)
            if known != found:
                raise ValueError(f"faiss finds {known}, and this project {found}")
    result = {"vectors_ms": round(1e3 * median(ours), 2)}
    if theirs:
        result |= {"faiss_ms": round(1e3 * median(theirs), 2), "ratio": round(median(theirs) / median(ours), 2)}
    return result


def flat_index(vectors: np.ndarray) -> Any:
    """faiss' index of all vectors; None where it is not installed."""
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + ROWS]))
    return index


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that it takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def embedding_rate(count: int) -> float:
    """Return how many passages the default embedding model reads in a second."""
    spec = EmbeddingSpec()
    embedder = Embedder(fetch(spec, resolve(spec, None, "benchmark"), None, "benchmark"), spec, "benchmark")  # type: ignore[arg-type]
    texts = [passage.shown for passage in islice(passages(), count)]
    return count / timed(lambda: embedder.of_passages(texts))


if __name__ == "__main__":
    main()
