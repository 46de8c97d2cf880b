"""The READMEs of published repos: what a model does, how it was proved, how to load it, how it came to be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from finetuning.evaluation.evaluation_report import (
    Made,
    how_it_was_asked,
    losses_in_words,
    packages,
    went_on_from,
    what_it_saw,
)
from finetuning.evaluation.judged import judge_in_words
from finetuning.evaluation.merged_parts import merge_lines
from finetuning.evaluation.report import Report
from finetuning.evaluation.tables import tables
from finetuning.evaluation.verdict import verdict_in_words
from finetuning.hub.endpoints import Endpoints, code_source, download_line, shell_lines
from finetuning.hub.loading_code import adapter_code, merged_code
from finetuning.hub.modelfile import has_template
from finetuning.hub.publication import AdapterPublicationSummary, Base
from finetuning.hub.rendering import render
from finetuning.knowledge.context import with_passages
from finetuning.knowledge.passages import Passage
from finetuning.merge.agreement import MergedSummary
from finetuning.public_names import public_base
from finetuning.recipe.base_model import QuantizationSpec
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.spec import listed

METHODS = {
    "sft": "supervised, on the assistant's answers alone",
    "dpo": "direct preference optimization of chosen over rejected answers (DPO, beta {beta:g}, {loss_type} loss)",
    "grpo": "by rewards for its own answers ({reward}), {num_generations} to a question (group relative policy "
    "optimization, GRPO, {loss_type} loss)",
    "kto": "towards answers that were judged good and away from bad ones (KTO, beta {beta:g}, {loss_type} loss)",
}
# By the names that https://hf.co/metrics has. The others are this project's own.
METRIC_TYPES = {
    "final-answer": "accuracy",
    "exact-match": "exact_match",
    "rouge-l": "rouge",
    "chrf": "chrf",
    "perplexity": "perplexity",
}

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes for --max-lora-rank

# Of `sft`, where all rows are texts, and where some are.
ON_TEXT = ("supervised, on all tokens of texts", "supervised, on all tokens of texts and on the assistant's answers")
# Stands for a passage in what a card says of asking.
SHOWN = Passage("", "Heading", "Text of a passage.", 0)


@dataclass(frozen=True)
class RepoVersion:
    """The version of a repo that a card is for; it is tagged with the fingerprint of what is published."""

    repo_id: str
    tag: str
    endpoints: Endpoints = field(default_factory=Endpoints)

    @property
    def title(self) -> str:
        """The repo's own name."""
        return self.repo_id.split("/")[-1]


def method_of(recipe: Recipe, made: Made) -> str:
    """How the model was trained, or merged, in a few words."""
    if spec := recipe.lora.merge:
        density = f", density {spec.density:g}" if spec.density else ""
        return f"adapters of other recipes merged by peft ({spec.combination_type}{density}); nothing was trained"
    texts = made.chat.get("text_rows", 0)
    if recipe.training.method == "sft" and texts:
        return ON_TEXT[texts < made.chat["train_rows"]]
    settings = recipe.training.model_dump()
    settings["reward"] = listed(f"{name} {weight:g}" for name, weight in recipe.training.reward.items())
    return METHODS[recipe.training.method].format(**settings)


def adapter_header(recipe: Recipe, repo_id: str, base_repo: str, report: Report, made: Made) -> ModelCardData:
    """The metadata of an adapter's card, which the Hub shows, filters by and checks."""
    return header_of(
        recipe,
        repo_id,
        made.merge,
        base_model=base_repo,
        base_model_relation="adapter",
        library_name="peft",
        tags=["lora", *made_by(recipe), "dagster"],
        eval_results=eval_results(recipe, report, made),
    )


def merged_header(recipe: Recipe, repo_id: str, base_repo: str) -> ModelCardData:
    """The metadata of a merged model's card. It claims no results: its own answers were not examined."""
    return header_of(
        recipe,
        repo_id,
        base_model=base_repo,
        base_model_relation="finetune",
        library_name="transformers",
        tags=["merged", *made_by(recipe), "dagster"],
    )


def made_by(recipe: Recipe) -> tuple[str, ...]:
    """The tags that say how an adapter came to be."""
    return ("merge",) if recipe.lora.merge else (recipe.training.method, "trl")


def header_of(recipe: Recipe, repo_id: str, merge: Mapping[str, Any] | None = None, **more: Any) -> ModelCardData:
    """The card's metadata: what all cards of a recipe say, and `more`; of adapters that were merged, their data too."""
    data = {source.hub for source in recipe.dataset.sources if source.hub}
    data |= {name for part in (merge or {"parts": []})["parts"] for name in part["datasets"]}
    return ModelCardData(
        license=recipe.hub.license,
        license_name=recipe.hub.license_name,
        license_link=recipe.hub.license_link,
        pipeline_tag="text-generation",
        datasets=sorted(data) or None,
        model_name=repo_id.split("/")[-1],
        **more,
    )


def eval_results(recipe: Recipe, report: Report, made: Made) -> list[EvalResult]:
    """What the tuned model scored, in the Hub's form.

    In the card and not in `.eval_results/`, which is for benchmarks that have a leaderboard on the Hub, in whole.

    Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md, https://huggingface.co/docs/hub/eval-results.
    """
    data = {"dataset_name": f"Eval split of {recipe.name}", **dataset_of(recipe, made)}
    own = [
        EvalResult(
            task_type="text-generation",
            metric_type=str(METRIC_TYPES.get(name, name)),
            metric_name=name,
            metric_value=round(found.tuned, 4),
            **data,
        )
        for name, found in report.metrics.items()
    ]
    benchmarks = [
        EvalResult(
            task_type="text-generation",
            dataset_name=name,
            dataset_type=name,
            metric_type=found.metric,
            metric_name=found.metric,
            metric_value=round(found.tuned, 4),
        )
        for name, found in report.benchmarks.items()
    ]
    return [*own, *benchmarks]


def dataset_of(recipe: Recipe, made: Made) -> dict[str, Any]:
    """What the Hub's form has of the data set that the eval rows are from; where that is not one of the Hub, a name."""
    own = recipe.dataset.eval.sources
    source, *others = own or recipe.dataset.sources
    if others or not source.hub:
        return {"dataset_type": "eval-split"}
    stem = "eval-00" if own else "train-00"
    (revision,) = [record["revision"] for record in made.sources if record["stem"] == stem]
    return {
        "dataset_type": source.hub,
        "dataset_config": source.config,
        "dataset_split": source.split,
        "dataset_revision": revision,
    }


def model_card(
    recipe: Recipe, version: RepoVersion, base: Base, report: Report, made: Made, header: ModelCardData
) -> str:
    """Return an adapter's card: Markdown with a YAML header."""
    return card(
        "adapter.md.jinja",
        header=header.to_yaml(),
        title=version.title,
        base=base,
        reasons=report.verdict.reasons,
        **use_of(version),
        download=download_line(version.repo_id, version.tag),
        vllm=vllm_line(recipe, version, base, lora_of(recipe, made).r),
        code=adapter_code(
            recipe,
            code_source(version.endpoints, version.repo_id),
            version.tag,
            made.chat["stop_token"],
            quantize=base.on_hub,
        ),
        data="\n\n".join(what_it_saw(made)),
        training=training_table(recipe, made),
        merged=bool(made.merge),
        settings=yaml.safe_dump(dict(made.settings), sort_keys=False),
        **proof(recipe, report),
    )


def merged_card(
    recipe: Recipe,
    version: RepoVersion,
    report: Report,
    published: AdapterPublicationSummary,
    merged: MergedSummary,
    modelfile: str | None = None,
) -> str:
    """Return the card of the merged model, whose adapter is `published`.

    Args:
        modelfile: what the file of that name says; None where the repo has no GGUF file.
    """
    return card(
        "merged.md.jinja",
        header=merged_header(recipe, version.repo_id, published.base.repo_id).to_yaml(),
        title=version.title,
        **use_of(version),
        ollama_template=modelfile is not None and has_template(modelfile),
        base=published.base,
        adapter=published.repo_id,
        adapter_url=f"/{published.repo_id}/tree/{published.tag}",
        merged=merged,
        code=merged_code(recipe, version.repo_id, version.tag),
        fingerprint=report.adapter,
        **proof(recipe, report),
    )


def use_of(version: RepoVersion) -> Mapping[str, object]:
    """Return the values by which a card says how the version is loaded."""
    return {
        "repo_id": version.repo_id,
        "tag": version.tag,
        "endpoints": version.endpoints,
        "shell": shell_lines(version.endpoints, version.repo_id, version.tag),
    }


def vllm_line(recipe: Recipe, version: RepoVersion, base: Base, rank: int) -> str:
    """Return the command by which vLLM serves an adapter that lies in the folder of the repo's own name."""
    name = version.title
    bits = recipe.base_model.quantization.bits if recipe.base_model.quantization else None
    most = next((most for most in VLLM_RANKS if most >= rank), rank)
    arguments = [
        f"{base.repo_id} --revision {base.commit} --tokenizer ./{name} --chat-template ./{name}/chat_template.jinja",
        f"--enable-lora --max-lora-rank {most} --lora-modules {name}=./{name}",
        *(["--quantization bitsandbytes"] if bits == 4 else []),  # it makes 4 bits, or takes the base repo's
    ]
    return " ".join(["vllm serve", *arguments])


def card(template: str, **values: object) -> str:
    """Return a card from a template, with a header that huggingface_hub can read."""
    return str(ModelCard(render(template, **values) + "\n"))


def proof(recipe: Recipe, report: Report) -> Mapping[str, object]:
    """Return the values that the cards of adapter and merged model have in common."""
    return {
        "summary": recipe.summary,
        "outcome": verdict_in_words(report.verdict),
        "asked": how_it_was_asked(report.rows, report.metrics),
        "has_gate": bool(recipe.evaluation.gate),
        "table": "\n\n".join(tables(report)),
        "judge": report.judge and "\n\n".join(judge_in_words(report.judge)),
        "samples": recipe.evaluation.samples,
        "quantization": recipe.base_model.quantization,
        "limits": limits(recipe, report),
        "asking": recipe.context and with_passages("…?", [SHOWN], recipe.context),
        "advice": report.context and report.context.advice,
    }


def limits(recipe: Recipe, report: Report) -> list[str]:
    """Return what nobody should expect of the model, a sentence or two each."""
    return render(
        "limits.md.jinja",
        rows=report.rows,
        own_eval=recipe.dataset.eval.sources is not None,
        merged=recipe.lora.merge is not None,
        quantization=recipe.base_model.quantization,
        max_new_tokens=recipe.evaluation.max_new_tokens,
        max_length=recipe.chat.max_length,
        template_kwargs=", ".join(f"`{name}={value!r}`" for name, value in recipe.chat.template_kwargs.items()),
    ).splitlines()


def training_table(recipe: Recipe, made: Made) -> str:
    """How it was trained or merged, with what, and what that took: a line each."""
    lora = lora_of(recipe, made)
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    lines = {
        "base model": f"{public_base(made.base_model)} at `{made.base_model['revision']}`",
        "method": method_of(recipe, made),
        "adapter": f"LoRA on {targets}, r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout:g}: "
        f"{made.training['trainable_parameters']:,} parameters",
        **({"goes on from": went_on_from(made.start)} if made.start else {}),
        "precision": f"{recipe.base_model.dtype}; base model {in_words(recipe.base_model.quantization)}",
        **(training_lines(recipe, made) if made.merge is None else merge_lines(made.merge)),
        "packages": packages(made),
        "fingerprint": f"`{made.adapter}`",
    }
    return pd.DataFrame(lines.items(), columns=["", " "]).to_markdown(index=False, disable_numparse=True)


def training_lines(recipe: Recipe, made: Made) -> dict[str, str]:
    """The lines of the table on what was trained."""
    trained = made.training
    together = f", {trained['processes']} processes" if trained["processes"] > 1 else ""
    return {
        "length": f"{trained['steps']:,} steps, {trained['tokens']:,} tokens; learning rate "
        f"{recipe.training.learning_rate:g}, {recipe.training.lr_scheduler_type}",
        "loss": losses_in_words(trained),
        **({"settings": made.choice} if made.choice else {}),
        "took": f"{trained['training_seconds']:,.0f} s at {trained['tokens_per_second']:,.0f} tokens/s, "
        f"{trained['peak_memory_mb']:,} MiB at most",
        "machine": f"{trained['device']}{together}, attention by {trained['attention']}",
        **({"curves": "`runs`, for TensorBoard"} if "tensorboard" in recipe.training.report_to else {}),
    }


def lora_of(recipe: Recipe, made: Made) -> LoraSpec:
    """Return what the adapter has of the section `lora`; one that went on from another has that one's."""
    return LoraSpec.model_validate({**recipe.lora.model_dump(), **made.settings.get("lora", {})})


def in_words(quantization: QuantizationSpec | None) -> str:
    """How a base model's weights are stored."""
    if quantization is None:
        return "not quantized"
    double = ", its scales too" if quantization.double else ""
    return f"quantized to {quantization.bits} bits ({quantization.type or 'int8'}{double})"


def base_card(name: str, source: str) -> str:
    """Return the card of a base model that was on no hub: where it came from and what it is for."""
    header = ModelCardData(library_name="transformers", pipeline_tag="text-generation")
    return card("base.md.jinja", header=header.to_yaml(), title=name, source=source)
