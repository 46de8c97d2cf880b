"""How an adapter came to be, found from the artifact at hand: for its exam, its report and its card.

An asset takes the artifact right before it. What that was made from stands in its `artifact.json`, and so on up the
line, so that what belongs together is found together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from finetuning.errors import FinetuningError
from finetuning.recipe.knowledge import ContextSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.trials import settled
from finetuning.training.summary import MergedAdapterSummary, TrainingSummary
from finetuning.variants.summary import VariantsSummary
from resources.artifacts import Artifacts
from resources.hub_client.versions import WEIGHTS
from resources.store.artifact import Artifact, Log
from resources.store.locks import hold

if TYPE_CHECKING:
    from finetuning.evaluation.evaluation_report import Made


MERGE = "lora_merge"  # what an adapter that is several others as one was resolved to
# The artifact that a variant's training goes on from, and the folder in it that has its checkpoint.
STATE, CHECKPOINTS = "variant_state", "checkpoints"


def weights_of(adapter: Artifact) -> dict[str, str]:
    """The sha256 of the adapter's weights, by the file's name: two trainings of one fingerprint may differ in it."""
    return {name: digest for name, digest in adapter.files.items() if name == WEIGHTS}


def is_merged(adapter: Artifact) -> bool:
    """Whether the adapter is several others as one, and was not trained itself."""
    return MERGE in adapter.resolved


def summary_of(adapter: Artifact) -> TrainingSummary | MergedAdapterSummary:
    """What was left of the adapter's training, or of the merge that it comes from."""
    return adapter.read(MergedAdapterSummary if is_merged(adapter) else TrainingSummary)


def with_choice(recipe: Recipe, variants: Artifact | None) -> Recipe:
    """The recipe with the settings that were chosen, where some were tried.

    Raises:
        FinetuningError: the recipe was edited since, and they do not go with it.
    """
    if variants is None:
        return recipe
    chosen = variants.read(VariantsSummary).winner
    try:
        return settled(recipe, chosen.changes)
    except ValidationError:
        raise FinetuningError(
            f"{recipe.file}: edited since variants {variants.fingerprint} was made: the settings that were chosen "
            f"({chosen.name}) do not go with it. Materialize variants for {recipe.name} again."
        ) from None


def begun_training(variants: Artifact, artifacts: Artifacts, inputs: Sequence[Artifact], log: Log) -> Path | None:
    """What the training with the settings that were chosen has come to; None where that is gone, or is of other files.

    Args:
        inputs: what is trained on today.
    """
    state = variants.read(VariantsSummary).winner.state
    found = state and artifacts.find(STATE, variants.inputs["chat_dataset"], state, log)
    if not found or not hold(found.path):
        return None
    try:
        found.require_inputs(*inputs)
        found.verify()
    except FinetuningError as error:
        log(f"training from its start on: {error}")
        return None
    return found.path / CHECKPOINTS


@dataclass(frozen=True)
class Line:
    """An adapter, and all that it was made from: each the artifact in force of its asset."""

    raw_dataset: Artifact
    chat_dataset: Artifact
    quantized_base_model: Artifact
    lora_adapter: Artifact
    variants: Artifact | None = None
    """Which settings were tried, where the recipe has some."""
    documents: Artifact | None = None
    """What the adapter answers from, where its recipe has documents."""
    passages: Artifact | None = None
    retrieval_index: Artifact | None = None

    @classmethod
    def behind(cls, artifact: Artifact, artifacts: Artifacts, log: Log) -> Self:
        """Find the line that ends in the adapter `artifact`, or in an adapter that it was made from.

        Raises:
            FinetuningError: one of them is gone, or is not the one in force any more.
        """
        found = artifacts.lineage(artifact, log)
        return cls(**{asset: found[asset] for asset in cls.__dataclass_fields__ if asset in found})

    def parts(self) -> list[Artifact]:
        """Return every artifact of the line."""
        found = (getattr(self, asset) for asset in self.__dataclass_fields__)
        return [artifact for artifact in found if artifact is not None]

    def settled(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the settings that the adapter was trained with."""
        return with_choice(recipe, self.variants)

    def made(self) -> "Made":
        """Return what report and card say of the adapter's making."""
        from finetuning.evaluation.evaluation_report import Made

        adapter = self.lora_adapter
        return Made(
            adapter=adapter.fingerprint,
            files=weights_of(adapter),
            alike=self.alike(),
            training=adapter.summary,
            settings=self.settings(),
            versions=adapter.versions,
            base_model=self.quantized_base_model.resolved["base_model"],
            sources=self.raw_dataset.summary["sources"],
            chat=self.chat_dataset.summary,
            start=adapter.resolved.get("lora_from"),
            merge=adapter.resolved.get(MERGE),
            documents=self._documents(),
            choice=self.variants
            and self.variants.read(VariantsSummary).in_words(self.chat_dataset.summary["dev_rows"]),
        )

    def _documents(self) -> list[dict[str, Any]]:
        """Return each collection of documents with its place in the recipe."""
        if self.documents is None:
            return []
        found = self.documents.summary["collections"]
        return [one | {"stem": f"knowledge.documents[{number}]"} for number, one in enumerate(found)]

    def embedding(self) -> list[dict[str, Any]]:
        """Return the embedding model that the index was made with, as `made` has data sets; nothing where none was."""
        resolved = self.retrieval_index and self.retrieval_index.resolved.get("embedding")
        return [{"stem": "knowledge.embedding", **resolved}] if resolved else []

    def asked_with(self) -> ContextSpec | None:
        """Return how questions were asked of the adapter, and are in its exam; None where that was without passages."""
        context = self.chat_dataset.sections.get("context")
        return ContextSpec.model_validate(context) if context else None

    def settings(self) -> dict[str, Any]:
        """Return the sections that the adapter was trained by, with what other adapters decided."""
        sections, resolved = self.lora_adapter.sections, self.lora_adapter.resolved
        other = resolved.get("lora_from") or resolved.get(MERGE)
        return {**sections, "lora": {**sections["lora"], **other["lora"]}} if other else sections

    def alike(self) -> dict[str, Any]:
        """Return what two versions have in common that can answer the same prompts."""
        return {
            "base_model": self.quantized_base_model.fingerprint,
            "chat_template": self.chat_dataset.resolved["chat_template"],
        }
