"""The adapter that `lora_adapter` goes on from, where the recipe names one: found, resolved, and compared with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuning.digests import sha256
from finetuning.errors import FinetuningError
from finetuning.paths import is_path, no_folder
from finetuning.recipe.loading import find
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.recipe import Recipe
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact, Log

REVISION = "main"


@dataclass(frozen=True)
class Start:
    """An adapter to go on from."""

    folder: Path
    resolved: dict[str, Any]
    """`kind` (partition, repo or folder), `source`, `revision`, the sha256 of the weights, and what it decides."""
    recipe: Recipe
    """With what the adapter decides, and its folder on this machine in `lora.from`."""


def starting_adapter(recipe: Recipe, artifacts: Artifacts, hub: Hub, base: Artifact, log: Log) -> Start | None:
    """Find the adapter that the recipe goes on from; None where it starts anew.

    Raises:
        FinetuningError: it is not there, is one of another base model, or says other than the recipe.
    """
    from finetuning.lora.start import WEIGHTS, adopted, fetch_start, read_config, require_same_base

    name, where = recipe.lora.start_from, recipe.file
    if name is None:
        return None
    kind, revision = kind_of(name, recipe), None
    if kind == "partition":
        adapter = artifacts.held("lora_adapter", name, log)
        adapter.verify()
        require_base_of(adapter, artifacts, base, f"{where}: lora.from", log)
        folder, revision = adapter.path, adapter.fingerprint
    elif kind == "repo":
        repo, _, asked = name.partition("@")
        with hub.connect_source(api_only=True) as api:
            folder, revision = fetch_start(repo, asked or REVISION, api, where)
    else:
        folder = Path(name).expanduser().absolute()
    config = read_config(folder, where)
    if kind != "partition":
        require_same_base(config, base.resolved["base_model"], base.path, where)
    lora, weights = adopted(recipe.lora, folder, where), sha256(folder / WEIGHTS)
    decided = lora.model_dump(mode="json", exclude={"start_from", "merge"})
    resolved = {
        "kind": kind,
        "source": name.partition("@")[0] if kind == "repo" else name,
        "revision": revision or weights[:16],
        "weights": weights,
        "lora": decided,
    }
    log(f"lora.from: going on from {name} at {resolved['revision']}: {decided}")
    trained = recipe.model_copy(update={"lora": lora.model_copy(update={"start_from": str(folder)})})
    return Start(folder, resolved, trained)


def kind_of(name: str, recipe: Recipe) -> str:
    """Whether `lora.from` names a folder, a recipe's partition or a repo.

    Raises:
        FinetuningError: it names nothing that is known, or the recipe itself.
    """
    where = f"{recipe.file}: lora.from"
    if is_path(name) or Path(name).is_dir():
        if not Path(name).expanduser().is_dir():
            raise FinetuningError(f"{where}: {no_folder(name)}.")
        return "folder"
    if name == recipe.name:
        raise FinetuningError(f"{where}: {name} is this recipe itself. Name another one, a folder or a repo.")
    known = find()
    if name in known:
        return "partition"
    if "/" not in name:
        raise FinetuningError(
            f"{where}: {name} is no recipe, no folder and no repo (OWNER/NAME); recipes are {', '.join(known)}"
            f"{nearest(name, known)}."
        )
    return "repo"


def require_base_of(adapter: Artifact, artifacts: Artifacts, base: Artifact, where: str, log: Log) -> None:
    """Check that the adapter of a partition was trained on the recipe's base model, quantized in whichever way.

    Args:
        where: the key that names it.

    Raises:
        FinetuningError: it was trained on another one.
    """
    made_on = adapter.inputs["quantized_base_model"]
    if made_on == base.fingerprint:
        return
    other = artifacts.find("quantized_base_model", made_on, made_on, log)
    theirs, ours = other.resolved["base_model"] if other else None, base.resolved["base_model"]
    if theirs is None or (theirs["source"], theirs["revision"]) != (ours["source"], ours["revision"]):
        said = f"{theirs['source']} at {theirs['revision']}" if theirs else f"a base model that is gone ({made_on})"
        raise FinetuningError(
            f"{where}: the adapter of {adapter.partition} was trained on {said}, and the recipe's base "
            f"model is {ours['source']} at {ours['revision']}. Write the same base_model in both recipes."
        )
