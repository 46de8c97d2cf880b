"""Says which version of its data a recipe's source names right now, without reading a row.

("openai/gsm8k", revision main) -> "e53f048856ff4f594e959d75785d2c2d37b678ee"
("data/*.jsonl") -> "sha256:9f86d081884c7d65"
("linear-equations") -> "linear-equations@1"
"""

import hashlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from finetuning.dataset import linear_equations
from finetuning.dataset.files import SourceFile, file_info, matching_files, opened
from finetuning.public_names import without_secrets
from finetuning.recipe.dataset import DatasetSpec, SourceSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi


# What file systems call what identifies the contents of a file, the surest first.
CHECKSUMS = ("sha256", "md5Hash", "md5", "content_md5", "Content-MD5", "Digest", "checksum", "generation")
CHECKSUMS += ("ETag", "etag", "e_tag", "crc32c")
CHANGE_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime")


def sources(dataset: DatasetSpec) -> dict[str, tuple[SourceSpec, str]]:
    """Every source of `dataset` with its path in the recipe, by the stem of the file that holds its rows.

    `train-00`, `train-01`, … are `dataset.sources`; `eval-00`, … are `dataset.eval.sources`.
    """
    training = {f"train-{i:02d}": (source, f"dataset.sources[{i}]") for i, source in enumerate(dataset.sources)}
    evaluation = {
        f"eval-{i:02d}": (source, f"dataset.eval.sources[{i}]") for i, source in enumerate(dataset.eval.sources or ())
    }
    return training | evaluation


def resolve_all(dataset: DatasetSpec, *, api: "HfApi", where: str) -> dict[str, str]:
    """The revision of every source, by the names that `sources` gives them; `where` is the recipe's file."""
    return {
        stem: resolve(source, api=api, where=f"{where}: {path}") for stem, (source, path) in sources(dataset).items()
    }


def resolve(source: SourceSpec, *, api: "HfApi", where: str) -> str:
    """The commit of a Hub data set, a hash over the names and contents of files, or a generator's version.

    Args:
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.

    Raises:
        FinetuningError: the hub has no such data set or revision, or does not let it be read; or no file matches.
    """
    if source.hub:
        return _commit(source.hub, source.revision, api, where)
    if source.files:
        return _hash(matching_files(source.files, where), where)
    return f"{source.generator}@{linear_equations.VERSION}"


def raw_section(dataset: DatasetSpec) -> dict[str, Any]:
    """The keys of `dataset` that decide which raw rows there are, and nothing of what becomes of them later."""
    read = {
        stem: source.model_dump(
            mode="json", include={"hub", "files", "generator", "config", "split", "rows", "at_most", "streaming"}
        )
        for stem, (source, _) in sources(dataset).items()
    }
    for source in read.values():
        source["files"] = source["files"] and list(map(without_secrets, source["files"]))
        if not source["at_most"]:  # rows that were there before there was this key are still the same
            del source["at_most"]
    is_drawn = any(source["rows"] for source in read.values())
    return {"sources": read, "seed": dataset.seed if is_drawn else None}


def chat_section(dataset: DatasetSpec) -> dict[str, Any]:
    """The keys of `dataset` that decide what becomes of the raw rows."""
    read = {
        stem: source.model_dump(mode="json", include={"format", "columns", "system", "model"})
        for stem, (source, _) in sources(dataset).items()
    }
    keys = {"dedup": dataset.dedup, "similarity": dataset.similarity, "seed": dataset.seed}
    return {"sources": read, "eval_fraction": dataset.eval.fraction, **keys}


def _hash(files: list[SourceFile], where: str) -> str:
    """A digest of the name of each file and of what changes when its contents do."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{PurePosixPath(file.name).name} {_contents(file, where)}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def _contents(file: SourceFile, where: str) -> str:
    """The sha256 of the contents; of a remote file what its file system knows of them, as long as it knows anything."""
    known = file_info(file, where)
    for key in CHECKSUMS:
        if known.get(key):
            return f"{key} {known[key]}"
    for key in CHANGE_TIMES:
        if known.get(key) and known.get("size"):
            return f"{key} {known[key]} {known['size']}"
    digest = hashlib.sha256()
    with opened(file, where) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _commit(repo_id: str, revision: str, api: "HfApi", where: str) -> str:
    try:
        return str(api.dataset_info(repo_id, revision=revision).sha)
    except Exception as error:
        from finetuning.hub_errors import explain

        reason = explain(error, repo_id, api.endpoint, has_token=bool(api.token), revision=revision)
    # Raised out here, so that the client's own error, which may hold the token, is no part of the traceback.
    raise type(reason)(f"{where}: {reason}")
