"""The asset `chat_dataset`: rows as conversations, and as the tokens that training will see."""

import json
from itertools import cycle
from typing import TYPE_CHECKING

import dagster as dg

from assets.checks import results, specs
from assets.failures import RETRIES, explained
from assets.materialized import materialized
from assets.partitions import OWNERS, RECIPES
from assets.tables import columns_of
from finetuning.chat.chat_summary import ChatSummary, ShownToken
from finetuning.checks.judgement import CHAT_CHECKS, KNOWLEDGE_CHECKS, judge, require
from finetuning.dataset.raw_summary import RawSummary
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.smoke import load_for_run
from resources.artifacts import Artifacts
from resources.hub import Hub
from resources.store.artifact import Artifact

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREVIEW = "Each line is a token: its number, and its text. Those marked ▶ are learned, the others only read.\n\n"
NO_DOCUMENTS = "The recipe has no documents."
COLUMNS = {
    "messages": "the turns of the conversation, each with its role and its text",
    "tools": "the tools that the assistant may call, as JSON",
    "input_ids": "the conversation as the model reads it: the numbers of its tokens",
    "labels": "the same numbers where a token is learned, and -100 where it is only read",
    "place": "where the row comes from: source and line",
    "desirable": "whether the answer was judged good",
    "rejected": "the last turn of the answer that was not chosen",
    "rejected_input_ids": "the conversation with that answer, as the numbers of its tokens",
    "asked": "the conversation without the passages that the question is asked with",
    "passages": "the numbers of these passages in the index",
    "golden": "the places, from 1, of those among them that have the answer",
    "rank": "where the first of those was found, from 1; 0 for not among the first ten",
    "rejected_labels": "the same numbers for that answer, and -100 before it",
}


@dg.asset(
    partitions_def=RECIPES,
    group_name="data",
    kinds={"dataset", "parquet"},
    tags={"hub": "read"},
    owners=OWNERS,
    retry_policy=RETRIES,
    code_version="6",
    check_specs=specs("chat_dataset", CHAT_CHECKS | KNOWLEDGE_CHECKS),
)
@explained()
def chat_dataset(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    hub: Hub,
    raw_dataset: Artifact,
    retrieval_index: Artifact | None,
):
    """The examples as conversations between a user and an assistant, cut into the pieces (tokens) that the model reads.

    Some conversations are set aside to examine the model with later; it never learns from those. What could not be used
    is counted, with the reason. The checks look for the faults that spoil a training without a trace. Where the recipe
    has documents, questions are asked with the passages that are found for them.
    """
    from finetuning.base_model.source import fetch, resolve
    from finetuning.chat.tokenizer import load_tokenizer, saved_tokenizer, template_revision

    recipe = load_for_run(context.partition_key)
    spec = recipe.base_model
    raw_checks = raw_dataset.read(RawSummary).checks
    require(judge(raw_checks, recipe))
    with hub.connect_source() as api:
        resolved = resolve(spec, api, recipe.file)

        def write(folder):
            from finetuning.chat.chat_dataset import write_chat
            from finetuning.knowledge.documents import with_secrets

            raw_dataset.verify()
            source = fetch(spec, resolved["revision"], api, recipe.file, weights=False)
            tokenizer = load_tokenizer(spec, source, recipe.file, recipe.chat.template_kwargs)
            retriever, hidden = None, frozenset[str]()
            if retrieval_index:
                retriever = open_retriever(retrieval_index, recipe, api)
                hidden = with_secrets(artifacts.lineage(retrieval_index, context.log.info)["documents"].path)
            summary = write_chat(raw_dataset.path, folder, recipe, tokenizer, retriever, hidden)
            return summary.model_copy(update={"raw_checks": raw_checks})

        artifact = artifacts.plan(
            context,
            sections=sections(recipe, "chat_dataset"),
            resolved={"base_model": resolved, "chat_template": template_revision(spec, recipe.chat.template_kwargs)},
            inputs=[raw_dataset, *([retrieval_index] if retrieval_index else [])],
        ).obtain(write)
    for note in artifact.read(ChatSummary).notes:
        context.log.warning(note)
    unused = artifact.read(ChatSummary).unused_columns
    if unused:
        told = "; ".join(f"{path}: {', '.join(names)}" for path, names in unused.items())
        context.log.warning(f"Columns and keys that are not read, and so not learned: {told}")
    from finetuning.evaluation.references import references_of, require_answerable, with_metrics

    # Now, and not when a training was paid for.
    references = references_of(artifact.path, recipe.evaluation.rows, recipe.chat.train_on_reasoning)
    examined = with_metrics(recipe, references, context.log.info).evaluation
    tokenizer = saved_tokenizer(artifact.path / "tokenizer", spec.trust_remote_code)
    require_answerable(examined, references, recipe.file, tokenizer, whole=recipe.smoke)
    judged = judge(artifact.read(ChatSummary).checks, recipe)
    # Dagster misses each check that has no result.
    skipped = [dg.AssetCheckResult(check_name=name, passed=True, description=NO_DOCUMENTS) for name in KNOWLEDGE_CHECKS]
    checks = results(context, judged) + ([] if recipe.knowledge else skipped)
    return materialized(artifact, metadata_of(artifact, recipe), checks)


def open_retriever(index: Artifact, recipe: Recipe, api: "HfApi"):
    """The index in memory, with the embedding model that made it."""
    from finetuning.knowledge.embedding import load_embedder
    from finetuning.knowledge.retriever import Retriever

    index.verify()
    return Retriever(index.path, load_embedder(recipe, index.resolved.get("embedding"), api))


def metadata_of(artifact: Artifact, recipe) -> dict:
    """What the UI shows of the conversations: counts, lengths, and a preview with what is trained on marked."""
    import pandas as pd

    from finetuning.plots import as_markdown, token_lengths

    summary = artifact.read(ChatSummary)
    lengths = summary.lengths.train
    picture = token_lengths(lengths.edges, lengths.counts, recipe.chat.max_length)
    titles = ("Chosen:\n\n", "Rejected:\n\n") if recipe.training.method == "dpo" else ("",)
    preview = [title + marked(tokens) for title, tokens in zip(cycle(titles), summary.preview, strict=False)]
    dropped = pd.DataFrame(summary.dropped, columns=["reason", "rows", "example"])
    return {
        "train_rows": summary.train_rows,
        "eval_rows": summary.eval_rows,
        **({"dev_rows": summary.dev_rows} if summary.dev_rows else {}),
        "dagster/row_count": summary.train_rows + summary.eval_rows + summary.dev_rows,
        "tokens": summary.tokens,
        "supervised_tokens": summary.supervised_tokens,
        "stop_token": summary.stop_token,
        "template_date": summary.template_date or "none",
        "template_kwargs": dg.MetadataValue.json(summary.template_kwargs),
        "earlier_answers": summary.earlier_answers,
        "given_tokens": dg.MetadataValue.json(summary.given_tokens),
        "dropped": dg.MetadataValue.md(dropped.to_markdown(index=False) if len(dropped) else "No row was dropped."),
        **({"notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in summary.notes))} if summary.notes else {}),
        "unused_columns": dg.MetadataValue.json(summary.unused_columns),
        "lengths": dg.MetadataValue.md(as_markdown(picture, "Token lengths")),
        "preview": dg.MetadataValue.md(PREVIEW + "\n\n---\n\n".join(preview)),
        "dagster/column_schema": columns_of(artifact.path / "train.parquet", COLUMNS),
    }


def marked(tokens: list[ShownToken]) -> str:
    """One conversation as a table of its tokens, one a line, those that are learned marked."""
    lines = [f"{'▶' if t.supervised else ' '} {t.id:>7}  {json.dumps(t.text, ensure_ascii=False)}" for t in tokens]
    return "```text\n" + "\n".join(lines) + "\n```"
