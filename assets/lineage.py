"""How an adapter came to be, as the manifests of the artifacts on the way tell it: for its report and its card."""

from typing import TYPE_CHECKING, Any

from resources.hub_client.versions import WEIGHTS
from resources.store.artifact import Artifact

if TYPE_CHECKING:
    from finetuning.evaluation.evaluation_report import Made


def made_from(raw_dataset: Artifact, chat_dataset: Artifact, base_model: Artifact, adapter: Artifact) -> "Made":
    """What report and card say of the adapter's making."""
    from finetuning.evaluation.evaluation_report import Made

    return Made(
        adapter=adapter.fingerprint,
        files={name: digest for name, digest in adapter.files.items() if name == WEIGHTS},
        alike=alike(chat_dataset, base_model),
        training=adapter.summary,
        settings=adapter.sections,
        versions=adapter.versions,
        base_model=base_model.resolved["base_model"],
        sources=raw_dataset.summary["sources"],
        chat=chat_dataset.summary,
    )


def alike(chat_dataset: Artifact, base_model: Artifact) -> dict[str, Any]:
    """What two versions have in common that can answer the same prompts."""
    return {"base_model": base_model.fingerprint, "chat_template": chat_dataset.resolved["chat_template"]}
