"""Says which version of its data a recipe's source names right now, without reading a row.

("openai/gsm8k", revision main) -> "e53f048856ff4f594e959d75785d2c2d37b678ee"
("data/*.jsonl") -> "sha256:9f86d081884c7d65"
("maths", feedback) -> "40 entries 9f86d081884c7d65"
("linear-equations") -> "linear-equations@1"
"""

import hashlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from finetuning.dataset import linear_equations, product_manuals
from finetuning.dataset.files import SourceFile, file_info, matching_files, opened
from finetuning.errors import FinetuningError
from finetuning.feedback.rows import revision_of
from finetuning.paths import is_path, no_folder, with_folder
from finetuning.recipe.dataset import DatasetSpec, sources
from finetuning.recipe.source import SourceSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi


# What file systems call what identifies the contents of a file, the surest first. No time of a change is among them:
# two contents may have one, and one size.
CHECKSUMS = ("sha256", "md5Hash", "md5", "content_md5", "Content-MD5", "Digest", "checksum", "generation")
# What object storage makes anew for each content; a web server makes it of size and time.
TAGS = ("ETag", "etag", "e_tag", "crc32c")


def resolve_all(dataset: DatasetSpec, *, api: "HfApi", where: str) -> dict[str, str]:
    """The revision of every source, by the names that `sources` gives them; `where` is the recipe's file."""
    return {
        stem: resolve(source, api=api, where=f"{where}: {path}") for stem, (source, path) in sources(dataset).items()
    }


def resolve(source: SourceSpec, *, api: "HfApi", where: str, by_path: bool = False) -> str:
    """The commit of a Hub data set, a hash over names and contents of files or over entries, or a generator's version.

    Args:
        where: the source's place, such as `recipes/phi-2.yaml: dataset.sources[0]`.
        by_path: whether a file's folder is part of its name, as it is of a document's.

    Raises:
        FinetuningError: the hub has no such data set or revision, or does not let it be read; or no file matches.
    """
    if source.hub:
        return _commit(source.hub, source.revision, api, where)
    if source.files:
        return _hash(matching_files(source.files, where), f"{where}.files", by_path)
    if source.feedback:
        return revision_of(source.feedback, source.every)
    version = {"linear-equations": linear_equations.VERSION, "product-manuals": product_manuals.VERSION}
    return f"{source.generator}@{version[str(source.generator)]}"


def _hash(files: list[SourceFile], where: str, by_path: bool) -> str:
    """A digest of the name of each file and of what changes when its contents do."""
    digest = hashlib.sha256()
    for file in files:
        name = file.name if by_path else PurePosixPath(file.name).name
        digest.update(f"{name} {_contents(file, where)}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"


def _contents(file: SourceFile, where: str) -> str:
    """The sha256 of the contents; of a remote file what its file system knows of them, as long as that is sure."""
    known = file_info(file, where)
    protocol = file.system.protocol if file.system else ""
    is_web = not {"http", "https", "webdav"}.isdisjoint([protocol] if isinstance(protocol, str) else protocol)
    for key in CHECKSUMS if is_web else CHECKSUMS + TAGS:
        if known.get(key):
            return f"{key} {known[key]}"
    digest = hashlib.sha256()
    with opened(file, where) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _commit(repo_id: str, revision: str, api: "HfApi", where: str) -> str:
    if is_path(repo_id):
        raise FinetuningError(f"{where}.hub: {no_folder(repo_id)}. {_as_files(repo_id)}.")
    try:
        return str(api.dataset_info(repo_id, revision=revision).sha)
    except Exception as error:
        from finetuning.hub_errors import explain

        reason = explain(error, repo_id, api.endpoint, has_token=bool(api.token), revision=revision)
    # Raised out here, so that the client's own error, which may hold the token, is no part of the traceback.
    raise with_folder(reason, repo_id, where, _as_files(repo_id))


def _as_files(path: str) -> str:
    """How the recipe names data of this machine."""
    path = path.rstrip("/")
    pattern = path if PurePosixPath(path).suffix else f"{path}/*.jsonl"
    return f"`hub` is a data set on the Hub, such as openai/gsm8k; data of this machine is `files: [{pattern}]`"
