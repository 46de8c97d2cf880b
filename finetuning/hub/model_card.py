"""The READMEs of published repos: what a model does, how it was proved, how to load it, how it came to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from finetuning.base_model.source import repo_name
from finetuning.evaluation.evaluation_report import (
    Made,
    benchmarks_table,
    how_it_was_asked,
    metrics_table,
    packages,
    what_it_saw,
)
from finetuning.evaluation.verdict import verdict_in_words
from finetuning.hub.loading_code import adapter_code, merged_code
from finetuning.public_names import public_base
from finetuning.recipe.base_model import BaseModelSpec, QuantizationSpec
from finetuning.recipe.recipe import Recipe

CARD = """---
{header}
---

# {title}

{summary}

A LoRA adapter for [`{base}`](/{base}/tree/{commit}). {why} [recipe.yaml](recipe.yaml), by which it can be trained
again.

## Evaluation

{asked}

{table}

The gate:

{reasons}

![Base beside tuned](evaluation/metrics.png)

More in the [report](evaluation/report.md){samples}.

## Use

```python
{code}
```

{weights}

### What it is for, and where that ends

{limits}

## Data

{data}

## Training

{training}

<details>
<summary>All settings</summary>

```yaml
{settings}```

</details>

![Loss while training](evaluation/loss.png)
"""
# Why it is there, up to the name of the recipe's file.
WHY = {
    "passed": "It was published because the adapter's evaluation passed the gate of its recipe,",
    "smoke run": "**Nothing is proved of it: it comes from a smoke run**, which shows that the pipeline works, on few "
    "rows and few steps. Do not use it. It was made by",
}
METHODS = {
    "sft": "supervised, on the assistant's answers alone",
    "dpo": "direct preference optimization of chosen over rejected answers (DPO, beta {beta:g}, {loss_type} loss)",
}


MERGED_CARD = """---
{header}
---

# {title}

{summary}

[`{base}`](/{base}/tree/{commit}) with the adapter [`{adapter}`]({adapter_url}) merged into its weights ({dtype}).
{why} [recipe.yaml](recipe.yaml). The merged model
says what the adapter says: on {positions} tokens of the eval split both find the same token likeliest in {agreement} of
the cases, and their probabilities are {kl} nats apart.

## Evaluation of the adapter

{asked}

{table}

![Base beside tuned](evaluation/metrics.png)

More in the [report](evaluation/report.md){samples}.

## Use

```python
{code}
```

{gguf}The weights are those of the base model as the adapter was trained on it: {quantization}.

### What it is for, and where that ends

{limits}

The adapter's [page]({adapter_url}) has its data and how it was trained. Its fingerprint is `{fingerprint}`.
"""
# By the names that https://hf.co/metrics has. The others are this project's own.
METRIC_TYPES = {
    "final-answer": "accuracy",
    "exact-match": "exact_match",
    "rouge-l": "rouge",
    "chrf": "chrf",
    "perplexity": "perplexity",
}


@dataclass(frozen=True)
class Base:
    """Where the base model of an adapter is on the hub; `on_hub` says that it was there before."""

    repo_id: str
    commit: str
    on_hub: bool


def adapter_header(
    recipe: Recipe, repo_id: str, base_repo: str, report: Mapping[str, Any], made: Made
) -> ModelCardData:
    """The metadata of an adapter's card, which the Hub shows, filters by and checks."""
    return header_of(
        recipe,
        repo_id,
        base_model=base_repo,
        base_model_relation="adapter",
        library_name="peft",
        tags=["lora", recipe.training.method, "trl", "dagster"],
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
        tags=["merged", recipe.training.method, "trl", "dagster"],
    )


def header_of(recipe: Recipe, repo_id: str, **more: Any) -> ModelCardData:
    """The card's metadata: what all cards of a recipe say, and `more`."""
    return ModelCardData(
        license=recipe.hub.license,
        license_name=recipe.hub.license_name,
        license_link=recipe.hub.license_link,
        pipeline_tag="text-generation",
        datasets=sorted({source.hub for source in recipe.dataset.sources if source.hub}) or None,
        model_name=repo_id.split("/")[-1],
        **more,
    )


def eval_results(recipe: Recipe, report: Mapping[str, Any], made: Made) -> list[EvalResult]:
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
            metric_value=round(found["tuned"], 4),
            **data,
        )
        for name, found in report["metrics"].items()
    ]
    benchmarks = [
        EvalResult(
            task_type="text-generation",
            dataset_name=name,
            dataset_type=name,
            metric_type=found["metric"],
            metric_name=found["metric"],
            metric_value=round(found["tuned"], 4),
        )
        for name, found in report["benchmarks"].items()
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
    recipe: Recipe, repo_id: str, tag: str, base: Base, report: Mapping[str, Any], made: Made, header: ModelCardData
) -> str:
    """The card's Markdown with its YAML header."""
    text = CARD.format(
        header=header.to_yaml(),
        title=repo_id.split("/")[-1],
        summary=recipe.summary,
        base=base.repo_id,
        commit=base.commit,
        reasons="\n".join(f"- {reason}" for reason in report["verdict"]["reasons"]),
        code=adapter_code(recipe, repo_id, tag, made.chat["stop_token"], quantize=base.on_hub),
        weights=weights_note(recipe.base_model, base.on_hub),
        data="\n\n".join(what_it_saw(made)),
        training=training_table(recipe, made),
        settings=yaml.safe_dump(dict(made.settings), sort_keys=False),
        **proof(recipe, report),
    )
    return str(ModelCard(text))


def merged_card(
    recipe: Recipe,
    repo_id: str,
    tag: str,
    report: Mapping[str, Any],
    published: Mapping[str, Any],
    merged: Mapping[str, Any],
    header: ModelCardData,
) -> str:
    """The card of the merged model; `published` and `merged` are what the manifests of adapter's repo and model say."""
    quantization = recipe.base_model.quantization
    text = MERGED_CARD.format(
        header=header.to_yaml(),
        title=repo_id.split("/")[-1],
        summary=recipe.summary,
        base=published["base"]["repo_id"],
        commit=published["base"]["commit"],
        adapter=published["repo_id"],
        adapter_url=f"/{published['repo_id']}/tree/{published['tag']}",
        dtype=merged["dtype"],
        positions=f"{merged['positions']:,}",
        agreement=f"{merged['agreement']:.2%}",
        kl=f"{merged['kl']:.5f}",
        code=merged_code(recipe, repo_id, tag),
        gguf=gguf_note(repo_id, tag, merged["gguf"]) if "gguf" in merged else "",
        quantization=f"quantized to {quantization.bits} bits and back" if quantization else "not quantized",
        fingerprint=report["adapter"],
        **proof(recipe, report),
    )
    return str(ModelCard(text))


def proof(recipe: Recipe, report: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a card on the evaluation, which the adapter and the merged model have in common."""
    return {
        "why": WHY[verdict_in_words(report["verdict"])],
        "asked": how_it_was_asked(report["rows"]),
        "table": "\n\n".join(tables(report)),
        "samples": ", with answers of both side by side" if recipe.evaluation.samples else "",
        "limits": "\n".join(f"- {limit}" for limit in limits(recipe, report)),
    }


def tables(report: Mapping[str, Any]) -> list[str]:
    """Base beside tuned in the metrics and, where there were any, in benchmarks."""
    found = [metrics_table(report["metrics"])]
    if report["benchmarks"]:
        found.append(benchmarks_table(report["benchmarks"]))
    return [table.to_markdown(index=False, disable_numparse=True) for table in found]


def limits(recipe: Recipe, report: Mapping[str, Any]) -> list[str]:
    """What nobody should expect of the model, a sentence each."""
    evaluation, quantization = recipe.evaluation, recipe.base_model.quantization
    own = recipe.dataset.eval.sources is not None
    origin = "data sets of their own" if own else "the same data as the training rows and kept out of these"
    doubt = "" if own else " They say little about other data."
    found = [
        "It is for what the line below its name says, asked through the chat template that its tokenizer carries.",
        f"It was examined on {report['rows']} rows, drawn from {origin}.{doubt}",
        f"Answers were greedy and had at most {evaluation.max_new_tokens} tokens. Sampling was not evaluated.",
        f"It learned from rows of at most {recipe.chat.max_length} tokens, in the languages and on the subjects of its "
        "data.",
        "Nobody examined whether it is safe, fair or true beyond these figures, or what it forgot of what the base "
        "model could do. It is no source of advice to rely on unread.",
        "What base model and data are licensed under holds beside its own licence.",
    ]
    if quantization:
        found.insert(
            2, f"The base model had {quantization.bits} bits a weight throughout; with others, answers differ."
        )
    return found


def training_table(recipe: Recipe, made: Made) -> str:
    """How it was trained, with what, and what that took: a line each."""
    trained, lora, quantization = made.training, recipe.lora, recipe.base_model.quantization
    together = f", {trained['processes']} processes" if trained["processes"] > 1 else ""
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    lines = {
        "base model": f"{public_base(made.base_model)} at `{made.base_model['revision']}`",
        "method": METHODS[recipe.training.method].format(**recipe.training.model_dump()),
        "adapter": f"LoRA on {targets}, r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout:g}: "
        f"{trained['trainable_parameters']:,} parameters",
        "precision": f"{recipe.base_model.dtype}; base model {in_words(quantization)}",
        "length": f"{trained['steps']:,} steps, {trained['tokens']:,} tokens; learning rate "
        f"{recipe.training.learning_rate:g}, {recipe.training.lr_scheduler_type}",
        "loss": f"{trained['train_loss']:.3f} on train, {trained['eval_loss']:.3f} on eval",
        "took": f"{trained['training_seconds']:,.0f} s at {trained['tokens_per_second']:,.0f} tokens/s, "
        f"{trained['peak_memory_mb']:,} MiB at most",
        "machine": f"{trained['device']}{together}, attention by {trained['attention']}",
        **({"curves": "`runs`, for TensorBoard"} if "tensorboard" in recipe.training.report_to else {}),
        "packages": packages(made),
        "fingerprint": f"`{made.adapter}`",
    }
    return pd.DataFrame(lines.items(), columns=["", " "]).to_markdown(index=False, disable_numparse=True)


def in_words(quantization: QuantizationSpec | None) -> str:
    """How a base model's weights are stored."""
    if quantization is None:
        return "not quantized"
    double = ", its scales too" if quantization.double else ""
    return f"quantized to {quantization.bits} bits ({quantization.type or 'int8'}{double})"


def weights_note(spec: BaseModelSpec, on_hub: bool) -> str:
    """Which weights of the base model that is, beside those that were evaluated."""
    if spec.quantization is None or on_hub:
        return "This is how it was evaluated: on the base model's own commit, with its weights stored alike."
    return f"The base repo holds the {spec.quantization.bits}-bit weights that it was trained and evaluated on."


def gguf_note(repo_id: str, tag: str, measured: Mapping[str, Any]) -> str:
    """The paragraph about the GGUF file of a merged model, with what the manifest says of it."""
    file, size = measured["file"], f"{measured['size_mb']:,.0f} MiB"
    return (
        f"`{file}` ({size}) is the same model in one file, with tokenizer and chat template: `llama-cli -hf {repo_id} "
        f'-hff {file}` with llama.cpp, or `from_pretrained("{repo_id}", revision="{tag}", gguf_file="{file}")` with '
        f"transformers. It finds the token that base and adapter find likeliest in {measured['agreement']:.2%} of the "
        f"cases, and is {measured['kl']:.5f} nats apart.\n\n"
    )


def base_card(spec: BaseModelSpec, source: str) -> str:
    """The README of a base model that was on no hub: where it came from and what it is for."""
    header = ModelCardData(library_name="transformers", pipeline_tag="text-generation")
    name = repo_name(spec)
    text = f"# {name}\n\nThe base model of the adapters that were trained on it, exactly as they were: {source}."
    return str(ModelCard(f"---\n{header.to_yaml()}\n---\n\n{text}\n"))
