"""The adapters that `lora_adapter` merges, where the recipe names some: found, resolved, and seen to go together."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.lineage import Line, is_merged, weights_of
from assets.starting_adapter import require_base_of
from finetuning.errors import FinetuningError
from finetuning.recipe.loading import find
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.smoke import load_for_run
from finetuning.training.summary import MergedAdapterSummary
from resources.artifacts import Artifacts
from resources.store.artifact import Artifact, Log

if TYPE_CHECKING:
    from finetuning.lora.merging import Part

SHOWN = 3
DATA = ("source", "revision", "split", "rows")  # that is recorded of what an adapter learned from


@dataclass(frozen=True)
class Merge:
    """Adapters that become one."""

    recipe: Recipe
    parts: "list[Part]"
    resolved: dict[str, Any]
    """`parts`: of each adapter its recipe, fingerprint, weights, licence and data; `lora`: what the whole will have."""

    def write(self, chat_dataset: Artifact, base_model: Artifact, folder: Path) -> MergedAdapterSummary:
        """Write the merged adapter and its tokenizer into `folder`.

        Raises:
            FinetuningError: the adapters come to nothing, or to what is no number.
        """
        from finetuning.chat.tokenizer import saved_tokenizer
        from finetuning.lora.merging import merge_adapters

        spec = self.recipe.lora.merge
        assert spec is not None
        numbers = merge_adapters(spec, self.parts, base_model.path, folder, self.recipe.file)
        trust = self.recipe.base_model.trust_remote_code
        saved_tokenizer(chat_dataset.path / "tokenizer", trust).save_pretrained(str(folder))
        return MergedAdapterSummary(trainable_parameters=numbers)


def merged_adapters(
    recipe: Recipe, artifacts: Artifacts, chat_dataset: Artifact, base_model: Artifact, log: Log
) -> Merge | None:
    """Find the adapters that the recipe merges; None where it trains one.

    Raises:
        FinetuningError: one of them is not there, is of another base model or chat template, learned from rows of the
            exam, or does not go with the others.
    """
    spec = recipe.lora.merge
    if spec is None:
        return None
    from finetuning.lora.merging import Part, settings_of_merged

    where, parts, resolved = f"{recipe.file}: lora.merge.adapters", [], []
    require_recipes(recipe, list(spec.adapters), where)
    for name, weight in spec.adapters.items():
        adapter = artifacts.held("lora_adapter", name, log)
        adapter.verify()
        require_base_of(adapter, artifacts, base_model, where, log)
        if is_merged(adapter):
            raise FinetuningError(f"{where}: the adapter of {name} was merged itself. Name those that it is made of.")
        line = Line.behind(adapter, artifacts, log)
        if line.chat_dataset.resolved["chat_template"] != chat_dataset.resolved["chat_template"]:
            raise FinetuningError(
                f"{where}: the adapter of {name} was trained with another chat template. Write the same "
                "base_model.chat_template in both recipes."
            )
        require_unseen(recipe, name, chat_dataset, line.chat_dataset, log)
        read = line.raw_dataset.sections["dataset"]["sources"]
        parts.append(Part(name, weight, adapter.path))
        resolved.append(
            {
                "recipe": name,
                "weight": weight,
                "revision": adapter.fingerprint,
                "weights": next(iter(weights_of(adapter).values())),
                "license": license_of(name),
                "datasets": sorted({one["hub"] for one in read.values() if one.get("hub")}),
                "data": [{key: one[key] for key in DATA} for one in line.raw_dataset.summary["sources"]],
            }
        )
        log(f"lora.merge: {weight:g} of the adapter of {name} at {adapter.fingerprint}")
    return Merge(recipe, parts, {"parts": resolved, "lora": settings_of_merged(spec, parts, recipe.file)})


def require_recipes(recipe: Recipe, names: list[str], where: str) -> None:
    """Check that each name is that of another recipe.

    Raises:
        FinetuningError: one is not.
    """
    known = find()
    for name in names:
        if name == recipe.name:
            raise FinetuningError(f"{where}: {name} is this recipe itself. Name other ones.")
        if name not in known:
            raise FinetuningError(
                f"{where}: {name} is no recipe; recipes are {', '.join(known)}{nearest(name, known)}."
            )


def require_unseen(recipe: Recipe, name: str, chat_dataset: Artifact, other: Artifact, log: Log) -> None:
    """Check that the adapter of the recipe `name` learned from no row of this recipe's exam.

    Raises:
        FinetuningError: it did, so that an exam would prove nothing; of a smoke run, which proves nothing, the log
            says so.
    """
    from finetuning.checks.seen_rows import seen_rows

    seen = seen_rows(chat_dataset.path, other.path)
    if not seen:
        return
    told = (
        f"{recipe.file}: lora.merge.adapters: {name} was trained on {len(seen):,} of the questions of this recipe's "
        f"exam ({', '.join(seen[:SHOWN])}). Write the dataset of {name}, with its eval and seed, or name in "
        "dataset.eval.sources rows that none of the adapters has learned."
    )
    if not recipe.smoke:
        raise FinetuningError(told)
    log(told)


def license_of(name: str) -> str:
    """The licence of a recipe's adapter, as its recipe has it."""
    hub = load_for_run(name).hub
    return hub.license_name or hub.license
