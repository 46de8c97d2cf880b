"""The asset `chat_dataset`: rows as conversations, and as the tokens that training will see."""

import dagster as dg
import pandas as pd

from assets.mistakes import explained
from assets.partitions import BASE_MODELS, OWNERS
from finetuning.recipe import load
from resources.artifacts import Artifact, Artifacts
from resources.hub import Hub


@dg.asset(
    partitions_def=BASE_MODELS,
    group_name="data",
    kinds={"dataset", "parquet"},
    owners=OWNERS,
    code_version="1",
)
@explained()
def chat_dataset(
    context: dg.AssetExecutionContext, artifacts: Artifacts, hub: Hub, raw_dataset: Artifact
) -> dg.MaterializeResult[Artifact]:
    """The examples as conversations between a user and an assistant, cut into the pieces (tokens) that the model reads.

    Some conversations are set aside to examine the model with later; it never learns from those. What could not be used
    is counted, with the reason.
    """
    from finetuning.base_model import fetch, load_tokenizer, resolve, template_revision

    recipe = load(context.partition_key)
    spec = recipe.base_model
    with hub.connect() as connection:
        resolved = resolve(spec, connection.api, recipe.file)

        def write(folder):
            from finetuning.chat import write_chat

            source = fetch(spec, resolved["revision"], connection.api, recipe.file, weights=False)
            return write_chat(raw_dataset.path, folder, recipe, load_tokenizer(spec, source, recipe.file))

        artifact = artifacts.plan(
            context,
            sections={
                "chat": recipe.chat.model_dump(mode="json"),
                "base_model": spec.model_dump(mode="json", include={"gguf", "chat_template", "trust_remote_code"}),
            },
            resolved={"base_model": resolved, "chat_template": template_revision(spec)},
            inputs=[raw_dataset],
        ).obtain(write)
    return dg.MaterializeResult(
        value=artifact, data_version=dg.DataVersion(artifact.fingerprint), metadata=metadata_of(artifact, recipe)
    )


def metadata_of(artifact: Artifact, recipe) -> dict:
    """What the UI shows of the conversations: counts, lengths, and a preview with what is trained on marked."""
    from finetuning.plots import as_markdown, token_lengths

    summary = artifact.summary
    lengths = summary["lengths"]["train"]
    picture = token_lengths(lengths["edges"], lengths["counts"], recipe.chat.max_length)
    dropped = pd.DataFrame(summary["dropped"], columns=["reason", "rows", "example"])
    return {
        **artifact.metadata(),
        "train_rows": summary["train_rows"],
        "eval_rows": summary["eval_rows"],
        "dagster/row_count": summary["train_rows"] + summary["eval_rows"],
        "tokens": summary["tokens"],
        "supervised_tokens": summary["supervised_tokens"],
        "stop_token": summary["stop_token"],
        "truncated": summary["truncated"],
        "dropped": dg.MetadataValue.md(dropped.to_markdown(index=False) if len(dropped) else "No row was dropped."),
        "lengths": dg.MetadataValue.md(as_markdown(picture, "Token lengths")),
        "preview": dg.MetadataValue.md("\n\n---\n\n".join(map(marked, summary["preview"]))),
    }


def marked(segments: list[dict]) -> str:
    """One conversation as Markdown code, with ▶ ◀ around what is trained on."""
    text = "".join(f"▶{s['text']}◀" if s["supervised"] else s["text"] for s in segments)
    return f"What is trained on stands between ▶ and ◀.\n\n```text\n{text}\n```"
