"""The README of the published repo: what the adapter does, how it was proved, and how to load it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from finetuning.base_model import repo_name
from finetuning.recipe import BaseModelSpec, Recipe
from finetuning.report import metrics_table

CARD = """---
{header}
---

# {title}

{summary}

A LoRA adapter for `{base}`. It was published because its evaluation passed the gate of its recipe.

## Evaluation

{rows} rows of the eval split, which were never trained on; base and tuned model got the same prompts and decoding.

{table}

![Base beside tuned](evaluation/metrics.png)

{reasons}

The whole report, with samples: [evaluation/report.md](evaluation/report.md).

## Use

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo_id}", revision="{tag}")
model = AutoPeftModelForCausalLM.from_pretrained("{repo_id}", revision="{tag}")
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
stop = {{"eos_token_id": tokenizer.convert_tokens_to_ids("{stop_token}"), "pad_token_id": tokenizer.pad_token_id}}
print(tokenizer.decode(model.generate(**inputs, **stop, max_new_tokens={max_new_tokens}, do_sample=False)[0]))
```

{quantization}

## Training

{steps} steps over {tokens} tokens, {method}. Data: {sources}. Fingerprint of the adapter: `{adapter}`.
"""
METHODS = {
    "sft": "on completions only",
    "dpo": "by direct preference optimization of chosen over rejected answers (DPO, beta {beta:g}, {loss_type} loss)",
}


MERGED_CARD = """---
{header}
---

# {title}

{summary}

`{base}` with the adapter [{adapter}]({adapter_url}) merged into its weights ({dtype}). It was published because the
adapter's evaluation passed the gate of its recipe, and the merged model says the same: on {positions} tokens of the
eval split both find the same token likeliest in {agreement} of the cases, and their probabilities are {kl} nats apart.

## Evaluation of the adapter

{rows} rows of the eval split, which were never trained on; base and tuned model got the same prompts and decoding.

{table}

The whole report, with samples: [evaluation/report.md](evaluation/report.md).

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo_id}", revision="{tag}")
model = AutoModelForCausalLM.from_pretrained("{repo_id}", revision="{tag}")
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens={max_new_tokens}, do_sample=False)[0]))
```

{gguf}The weights are those of the base model as the adapter was trained on it: {quantization}. How it was trained is on
the adapter's page. Fingerprint of the adapter: `{fingerprint}`.
"""


@dataclass(frozen=True)
class Base:
    """Where the base model of an adapter is on the hub; `on_hub` says that it was there before."""

    repo_id: str
    commit: str
    on_hub: bool


def model_card(
    recipe: Recipe,
    repo_id: str,
    tag: str,
    base: Base,
    report: Mapping[str, Any],
    trained: Mapping[str, Any],
    chat: Mapping[str, Any],
    sources: list[Mapping[str, Any]],
) -> str:
    """The card's Markdown with its YAML header; `trained`, `chat` and `sources` are what the manifests say."""
    header = header_of(
        recipe,
        repo_id,
        base_model=base.repo_id,
        library_name="peft",
        tags=["lora", "dagster"],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type="eval-split",
                dataset_name=f"eval split of {recipe.name}",
                metric_type=name,
                metric_value=round(found["tuned"], 4),
            )
            for name, found in report["metrics"].items()
        ],
    )
    text = CARD.format(
        header=header.to_yaml(),
        title=repo_id.split("/")[-1],
        summary=recipe.summary,
        base=base.repo_id,
        rows=report["rows"],
        table=metrics_table(report["metrics"]).to_markdown(index=False),
        reasons="\n".join(f"- {reason}" for reason in report["verdict"]["reasons"]),
        repo_id=repo_id,
        tag=tag,
        messages=example(recipe),
        stop_token=chat["stop_token"],
        max_new_tokens=recipe.evaluation.max_new_tokens,
        quantization=quantization_note(recipe.base_model, base.on_hub),
        steps=trained["steps"],
        tokens=f"{trained['tokens']:,}",
        method=METHODS[recipe.training.method].format(**recipe.training.model_dump()),
        sources="; ".join(f"{source['source']} at {source['revision']} ({source['rows']} rows)" for source in sources),
        adapter=report["adapter"],
    )
    return str(ModelCard(text))


def merged_card(
    recipe: Recipe,
    repo_id: str,
    tag: str,
    report: Mapping[str, Any],
    published: Mapping[str, Any],
    merged: Mapping[str, Any],
) -> str:
    """The card of the merged model; `published` and `merged` are what the manifests of adapter's repo and model say."""
    base, quantization = published["base"]["repo_id"], recipe.base_model.quantization
    # Its answers were not examined themselves, so that the header claims no results for them.
    header = header_of(
        recipe,
        repo_id,
        base_model=base,
        base_model_relation="finetune",
        library_name="transformers",
        tags=["merged", "dagster"],
    )
    text = MERGED_CARD.format(
        header=header.to_yaml(),
        title=repo_id.split("/")[-1],
        summary=recipe.summary,
        base=base,
        adapter=published["repo_id"],
        adapter_url=f"/{published['repo_id']}/tree/{published['tag']}",
        dtype=merged["dtype"],
        positions=f"{merged['positions']:,}",
        agreement=f"{merged['agreement']:.2%}",
        kl=f"{merged['kl']:.5f}",
        rows=report["rows"],
        table=metrics_table(report["metrics"]).to_markdown(index=False),
        repo_id=repo_id,
        tag=tag,
        messages=example(recipe),
        max_new_tokens=recipe.evaluation.max_new_tokens,
        gguf=gguf_note(repo_id, tag, merged["gguf"]) if "gguf" in merged else "",
        quantization=f"quantized to {quantization.bits} bits and back" if quantization else "not quantized",
        fingerprint=report["adapter"],
    )
    return str(ModelCard(text))


def header_of(recipe: Recipe, repo_id: str, **more: Any) -> ModelCardData:
    """The card's metadata: what all cards of a recipe say, and `more`."""
    return ModelCardData(
        license=recipe.hub.license,
        pipeline_tag="text-generation",
        datasets=sorted({source.hub for source in recipe.dataset.sources if source.hub}) or None,
        model_name=repo_id.split("/")[-1],
        **more,
    )


def example(recipe: Recipe) -> list[dict[str, str]]:
    """Messages to try the model on."""
    system = recipe.dataset.sources[0].system
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": "…"}]


def quantization_note(spec: BaseModelSpec, on_hub: bool) -> str:
    """How the base model has to be loaded for the answers that were evaluated."""
    quantization = spec.quantization
    if quantization is None:
        return "The base model was not quantized."
    if not on_hub:
        return f"The base repo holds the {quantization.bits}-bit weights that were trained and evaluated on."
    arguments = "load_in_8bit=True"
    if quantization.bits == 4:
        arguments = (
            f'load_in_4bit=True, bnb_4bit_quant_type="{quantization.type}", '
            f'bnb_4bit_use_double_quant={quantization.double}, bnb_4bit_compute_dtype="{spec.dtype}"'
        )
    return f"For the answers that were evaluated, pass `quantization_config=BitsAndBytesConfig({arguments})` as well."


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
