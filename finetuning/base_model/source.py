"""Where a base model comes from: a Hub repo, a local folder, or an installed package, and which version exactly."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from finetuning.base_model.damage import require_whole
from finetuning.base_model.kinds import require_model, require_own_code
from finetuning.digests import sha256
from finetuning.errors import FinetuningError
from finetuning.out_of_memory import is_out_of_memory
from finetuning.paths import files_below, folder_of_package, is_path, no_folder, with_folder
from finetuning.recipe.base_model import BaseModelSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi


# Weights are read from safetensors and GGUF alone: unpickling a file runs what is in it.
TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]

WEIGHT_FILES = ["*.safetensors"]

WEIGHTS = (".safetensors", ".gguf")

# What a folder may have beside them that no answer depends on: other formats' weights, and pages for people.
NOT_READ = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".md", ".png", ".jpg", ".log")


LONGEST_ORIGIN = 50  # letters of a file or folder in the name of a repo


class ResolvedModel(TypedDict):
    """One version of a base model, as the fingerprints of what is made from it have it."""

    source: str
    """A repo of the Hub, a local folder, or a package with its version."""
    revision: str
    """A commit, or a hash of the contents."""
    on_hub: bool


def local_folder(spec: BaseModelSpec, where: str) -> Path | None:
    """Return the folder that holds the model on this machine, or None for one on the Hub.

    Raises:
        FinetuningError: the package is not installed, or the path that `repo` names does not exist.
    """
    if spec.package:
        return folder_of_package(spec.package, f"{where}: base_model.package")
    path = Path(spec.repo or "").expanduser()
    if path.is_dir():
        return path
    if is_path(str(spec.repo)):
        raise FinetuningError(
            f"{where}: base_model.repo: {no_folder(str(spec.repo))}. Name a folder with config.json and *.safetensors, "
            "or a Hub repo id such as HuggingFaceTB/SmolLM2-135M-Instruct."
        )
    return None


def resolve(spec: BaseModelSpec, api: "HfApi", where: str) -> ResolvedModel:
    """Ask which version of the base model `spec` names right now.

    Raises:
        FinetuningError: the model is not there, or may not be read.
    """
    folder = local_folder(spec, where)
    if folder is None:
        from finetuning.hub_errors import explain

        try:
            info = api.model_info(str(spec.repo), revision=spec.revision)
            return {"source": str(spec.repo), "revision": str(info.sha), "on_hub": True}
        except Exception as error:
            reason = explain(error, str(spec.repo), api.endpoint, has_token=bool(api.token), revision=spec.revision)
        # Out here: the client's error may hold the token.
        raise with_folder(reason, str(spec.repo), f"{where}: base_model.repo", "A folder's path may begin with ./")
    if spec.package:
        gguf_file(spec, folder, where)
        distributions = packages_distributions().get(spec.package.split(".")[0], [])
        source = " ".join(["package", spec.package, *(version(name) for name in distributions[:1])])
    else:
        source = str(spec.repo)
    return {"source": source, "revision": hash_of_model(folder, spec.gguf), "on_hub": False}


def hash_of_model(folder: Path, gguf: str | None = None) -> str:
    """Hash the names and contents of the model's files in `folder` to sixteen hexadecimal digits.

    Those in folders within it are among them, such as a tokenizer's named chat templates and code.

    Args:
        gguf: the file that the weights are read from, where they are in one.
    """
    return _hash(folder, _files_of_model(folder, gguf))


def hash_of_folder(folder: Path) -> str:
    """Hash the names and contents of all files below `folder` but what is hidden to sixteen hexadecimal digits."""
    return _hash(folder, _files(folder))


def _hash(folder: Path, names: set[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name} {sha256(folder / name)}\n".encode())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> set[str]:
    """The names of all files below `folder` but what is hidden."""
    names = (path.relative_to(folder) for path in files_below(folder))
    return {name.as_posix() for name in names if not any(p.startswith(".") or p == "__pycache__" for p in name.parts)}


def _files_of_model(folder: Path, gguf: str | None) -> set[str]:
    """The names of all files below `folder` but weights that are not read, what is hidden, and pages for people."""
    found = _files(folder)
    weights = {name for name in found if name.endswith(WEIGHTS)}
    read = {gguf} if gguf else {path.name for path in folder.glob("*.safetensors")} | _shards(folder)
    return {name for name in found - weights if not name.endswith(NOT_READ)} | (weights & read)


def _shards(folder: Path) -> set[str]:
    """The files that the index of weights in many files names; none where there is no index that can be read."""
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        return {str(shard) for shard in index["weight_map"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()


def gguf_file(spec: BaseModelSpec, folder: Path, where: str) -> dict[str, str]:
    """Return the `gguf_file` argument for `from_pretrained`, or no argument for safetensors.

    Raises:
        FinetuningError: `base_model.gguf` names a file that is not in `folder`.
    """
    if spec.gguf and not (folder / spec.gguf).is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "no GGUF file"
        raise FinetuningError(f"{where}: base_model.gguf: {folder} has no file {spec.gguf!r}; it has {there}.")
    return {"gguf_file": spec.gguf} if spec.gguf else {}


def repo_name(spec: BaseModelSpec, fingerprint: str) -> str:
    """Name the repo of a base model that is not on a hub: its file or folder, how it was quantized, which one it is.

    Many models lie in folders of one name, and the name alone would let one overwrite another.

    Args:
        fingerprint: of the quantized model.
    """
    origin = Path(spec.gguf).stem if spec.gguf else Path(spec.repo or spec.package or "").resolve().name
    letters = re.sub(r"[^A-Za-z0-9_.]+|\.{2,}", "-", origin)[:LONGEST_ORIGIN].strip("-.") or "model"
    quantization = spec.quantization
    suffix = spec.dtype if quantization is None else quantization.type or f"int{quantization.bits}"
    return f"{letters}-{suffix}-{fingerprint[:8]}"


def fetch(spec: BaseModelSpec, revision: str, api: "HfApi", where: str, weights: bool = True) -> Path:
    """Fetch the model's configuration, tokenizer and, where asked, `weights`; return the folder that holds them.

    Raises:
        FinetuningError: they cannot be fetched, one of the files is damaged, or they are no model that the recipe can
            train.
    """
    folder = local_folder(spec, where) or _downloaded(spec, revision, api, where, weights)
    require_whole([folder / name for name in sorted(_files_of_model(folder, spec.gguf))], where)
    require_model(spec, folder, where)
    if spec.trust_remote_code:
        require_own_code(folder, where)
    return folder


def _downloaded(spec: BaseModelSpec, revision: str, api: "HfApi", where: str, weights: bool) -> Path:
    from finetuning.hub_errors import explain

    patterns = TOKENIZER_FILES + ([spec.gguf] if spec.gguf else WEIGHT_FILES if weights else [])
    try:
        return Path(api.snapshot_download(str(spec.repo), revision=revision, allow_patterns=patterns))
    except Exception as error:
        reason = explain(error, str(spec.repo), api.endpoint, has_token=bool(api.token), revision=revision)
    # Out here: the client's error may hold the token.
    raise type(reason)(f"{where}: base_model.repo: {reason}")


@contextmanager
def readable(spec: BaseModelSpec, where: str) -> Iterator[None]:
    """Report what transformers cannot load within the block as a mistake in the recipe, in transformers' words.

    Raises:
        FinetuningError: a file is missing or broken, or the model needs code that its repo ships.
    """
    try:
        yield
    except (FinetuningError, MemoryError):
        raise
    except Exception as error:  # of a file that it did not expect, transformers raises whatever its code meets first
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:400]
        raise FinetuningError(
            f"{where}: base_model: transformers cannot load {spec.repo or spec.package}: {reason}. It has to have "
            "config.json, a tokenizer, and safetensors or a GGUF file; a model whose repo ships its own code needs "
            "trust_remote_code: true."
        ) from error


def rows_of(folder: Path) -> int | None:
    """Return how many rows the model's embeddings have, by the configuration in `folder`; None if it does not say."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
