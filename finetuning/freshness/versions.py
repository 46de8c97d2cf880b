"""What a recipe is made from right now, as short texts that are another one as soon as something of it is.

recipe_version("phi-2", adapter_of) -> "sha256:9f86d081884c7d65"
hub_data_version("phi-2", api) -> "openai/gsm8k@e53f048856ff"
local_files_version("phi-2") -> "2 files sha256:2c26b46b68ffc68f"
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetuning.base_model.source import local_folder
from finetuning.dataset.files import matching_files
from finetuning.dataset.revisions import resolve
from finetuning.errors import FinetuningError
from finetuning.feedback.rows import revision_of
from finetuning.knowledge.documents import as_source, collections
from finetuning.recipe.dataset import sources
from finetuning.recipe.loading import adapters_named, find, load
from finetuning.recipe.recipe import Recipe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DIGITS = 16


def recipe_version(name: str, adapter_of: Callable[[str], str | None]) -> str:
    """A hash of what the recipe means, defaults filled in, and the adapters of other recipes that it needs.

    It is made from these, or judged by one.

    Args:
        adapter_of: gives the fingerprint of the adapter in force of another recipe; None where there is none.

    Raises:
        FinetuningError: it is wrong, or gone.
    """
    recipe = load(name)
    adapters = [f"{other}@{adapter_of(other)}" for other in [*adapters_named(recipe), *judge_named(recipe)]]
    return ", ".join([_hash(made_from(recipe)), *adapters])


def judge_named(recipe: Recipe) -> list[str]:
    """The other recipe whose adapter judges this one, if one does."""
    judge = recipe.evaluation.judge
    if judge is None or judge.endpoint is not None:
        return []
    name, is_base = judge.on_this_machine()
    return [name] if name in find() and not is_base else []


def made_from(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe decides what is made.

    That is all of it but what a cluster is asked for, who may start a run, and whether feedback is kept.
    """
    workers = recipe.resources.workers
    left_out: dict[str, Any] = dict.fromkeys(("resources", "schedule", "feedback"), True)
    left_out |= {} if recipe.knowledge else {"knowledge": True, "context": True}
    left_out |= {} if recipe.lora.merge else {"lora": {"merge"}}
    return recipe.model_dump(mode="json", exclude=left_out) | ({"workers": workers} if workers else {})


def hub_data_version(name: str, api: "HfApi") -> str | None:
    """Commits of the recipe's data sets on the hub; None where all of its data is elsewhere.

    Raises:
        FinetuningError: the recipe is wrong, or the hub does not tell.
    """
    recipe = load(name)
    found = [
        f"{source.hub}@{resolve(source, api=api, where=f'{recipe.file}: {path}')[:12]}"
        for source, path in sources(recipe.dataset).values()
        if source.hub
    ]
    return ", ".join(found) or None


def hub_documents_version(name: str, api: "HfApi") -> str | None:
    """Commits of the recipe's documents on the hub; None where it has none there.

    Raises:
        FinetuningError: the recipe is wrong, or the hub does not tell.
    """
    recipe = load(name)
    found = [
        f"{spec.hub}@{resolve(as_source(spec), api=api, where=f'{recipe.file}: {place}')[:12]}"
        for place, spec in collections(recipe).items()
        if spec.hub
    ]
    return ", ".join(found) or None


def hub_model_version(name: str, api: "HfApi") -> str | None:
    """The commit of the recipe's base model on the hub; None where it comes from a folder or package.

    Raises:
        FinetuningError: the recipe is wrong, or the hub does not tell.
    """
    from finetuning.base_model.source import resolve as resolve_model

    recipe = load(name)
    if local_folder(recipe.base_model, recipe.file):
        return None
    return f"{recipe.base_model.repo}@{resolve_model(recipe.base_model, api, recipe.file)['revision'][:12]}"


def local_files_version(name: str) -> str | None:
    """A hash of names, sizes and times of the recipe's files on this machine, and of feedback; None where it has none.

    Not of their contents, which would be read again and again: whether these are others is for `raw_dataset` to say.

    Raises:
        FinetuningError: the recipe is wrong, or a pattern matches no file.
    """
    recipe = load(name)
    said = [
        f"{source.feedback}: {revision_of(source.feedback, source.every)}"
        for source, _ in sources(recipe.dataset).values()
        if source.feedback
    ]
    found = _files({path: source.files for source, path in sources(recipe.dataset).values()}, recipe.file)
    return ", ".join([*([f"{len(found)} files {_hash(found)}"] if found else []), *said]) or None


def local_documents_version(name: str) -> str | None:
    """A hash of names, sizes and times of the recipe's documents on this machine; None where it has none.

    Raises:
        FinetuningError: the recipe is wrong, or a pattern matches no file.
    """
    recipe = load(name)
    found = _files({place: spec.files for place, spec in collections(recipe).items()}, recipe.file)
    return f"{len(found)} files {_hash(found)}" if found else None


def _files(patterns: Mapping[str, tuple[str, ...] | None], where: str) -> list[tuple[str, int, int]]:
    """Path, size and time of each file of this machine that patterns match, by the place of these in the recipe."""
    return [
        (file.path, stat.st_size, stat.st_mtime_ns)
        for place, named in patterns.items()
        for file in matching_files(_local_only(named), f"{where}: {place}")
        for stat in [_stat(Path(file.path))]
    ]


def _local_only(files: tuple[str, ...] | None) -> tuple[str, ...]:
    """The patterns among them that no network has to be asked for."""
    return tuple(pattern for pattern in files or () if "://" not in pattern and "::" not in pattern)


def _stat(path: Path):
    try:
        return path.stat()
    except OSError as error:
        raise FinetuningError(f"{path}: {error.strerror}. It was there a moment ago; it is looked at again.") from error


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"
