"""What a changed key remakes: each key says it, the column of the reference shows it, and fingerprints keep to it."""

import copy
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from finetuning.recipe.checks import ChecksSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.sections import sections
from finetuning.recipe.spec import Made, Spec, remade_by
from tests.finetuning.recipe.changed_values import CHANGED, GIVEN, WITH

MADE = get_args(Made)

RECIPE = """
name: tiny
summary: Adds
base_model: {repo: lab/tiny, quantization: {bits: 4}, chat_template: chatml, attention: [eager, sdpa]}
dataset:
  sources: [{hub: lab/sums, rows: 9, at_most: true}]
  eval: {sources: [{hub: lab/sums, split: test, rows: 5}]}
chat: {max_length: 99}
lora: {r: 4}
training: {eval_steps: 5}
evaluation: {metrics: [exact-match, loss], benchmarks: [arc_easy], gate: {exact-match: {}}}
merge: {}
hub: {repo: lab/adds, license: other, license_name: Ours, license_link: "https://lab.test/licence"}
feedback: {name: ours}
"""


def keys(section: type[BaseModel], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every key of the schema by its path, with the section that it is in; the checks, which are all alike, once."""
    for key, field in section.model_fields.items():
        if (*place, key) == ("name",):
            continue
        inner = list(sections_in(field.annotation))
        if not inner or remade_by(section, key):
            yield (*place, field.alias or key), section
        for kind in inner if section is not ChecksSpec or key == "bad_rows" else ():
            yield from keys(kind, place if section is ChecksSpec else (*place, key))


def sections_in(annotation: Any) -> Iterator[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


# Feedback decides no exam: see test_mistakes.py.
NEVER = ("dataset.eval.sources.feedback", "dataset.eval.sources.every")
KEYS = {key: section for path, section in keys(Recipe) if (key := ".".join(path)) not in NEVER}


def test_every_key_of_the_schema_is_gone_over():
    assert len(KEYS) > 100
    known = {key.replace("dataset.eval.sources.", "dataset.sources.") for key in KEYS}
    assert known == set(CHANGED), "CHANGED names each key of the schema, and no other"


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_value_remakes_what_its_key_declares_and_nothing_else(key, tmp_path):
    fields = {field.alias or name: name for name, field in KEYS[key].model_fields.items()}
    declared = remade_by(KEYS[key], fields[key.rpartition(".")[2]])
    assert declared is not None, f"{key}: say what it remakes in its Field: json_schema_extra=remakes(…)"
    entry = key.replace("dataset.eval.sources.", "dataset.sources.")
    assert entry in CHANGED, f"{key}: write another valid value for it into CHANGED"
    before = yaml.safe_load(RECIPE) | copy.deepcopy(GIVEN.get(entry, {}))
    after = copy.deepcopy(before)
    place = section_at(after, key)
    place |= {key.rpartition(".")[2]: CHANGED[entry]} | WITH.get(entry, {})
    was, now = Recipe.model_validate(before), Recipe.model_validate(after)
    assert was != now, f"{key}: CHANGED has the value that the recipe has"

    by_value = {made for made in MADE if sections(was, made) != sections(now, made)}
    by_meaning = {made for made in MADE if resolved(was, made) != resolved(now, made)}
    assert by_value == set(declared.by_value), f"{key}: goes into the fingerprints of {sorted(by_value)}"
    assert by_meaning - by_value == set(declared.by_meaning), f"{key}: stands for something in {sorted(by_meaning)}"


def section_at(document: dict[str, Any], key: str) -> dict[str, Any]:
    """The section of the document that the key is in; of lists, and of what is named by the user, the first."""
    place: Any = document
    for step in key.split(".")[:-1]:
        place = place[0] if isinstance(place, list) else place
        if step == "checks":
            place = place.setdefault("checks", {}).setdefault("bad_rows", {})
        elif step == "gate":
            place = next(iter(place["gate"].values()))
        else:
            place = place.setdefault(step, {})
    return place[0] if isinstance(place, list) else place


def resolved(recipe: Recipe, made: str) -> object:
    """What of the recipe an asset looks up in the world, by the keys that say where to look."""
    from finetuning.chat.tokenizer import template_revision
    from finetuning.evaluation.exam import measures_loss, runs_code

    model, exam, every = recipe.base_model, recipe.evaluation, [*recipe.dataset.sources]
    every += recipe.dataset.eval.sources or ()
    embedder = recipe.knowledge and recipe.knowledge.embedding
    embedding = embedder and (embedder.package, embedder.repo, embedder.revision)
    weights = (model.repo, model.package, model.revision)
    template = template_revision(model, recipe.chat.template_kwargs)
    loading = (template, model.attention, model.dtype, model.trust_remote_code)
    answers = (loading, exam.rows, measures_loss(exam), runs_code(exam))
    return {
        "documents": [(one.hub, one.revision) for one in recipe.knowledge.documents] if recipe.knowledge else None,
        "passages": embedding,
        "retrieval_index": embedding,
        "raw_dataset": [(source.hub, source.files, source.generator, source.revision) for source in every],
        "chat_dataset": (weights, template),
        "quantized_base_model": weights,
        "lora_adapter": recipe.resources.workers,
        "base_answers": answers,
        "published_answers": answers,
        "base_benchmarks": (loading, exam.benchmark_folder),
    }.get(made)


SECTIONS = {
    "documents": "{}",
    "passages": "{}",
    "retrieval_index": "{}",
    "raw_dataset": """
dataset:
  sources:
    train-00: {hub: lab/sums, files: null, generator: null, config: null, split: train, rows: 9, at_most: true,
      streaming: false}
    eval-00: {hub: lab/sums, files: null, generator: null, config: null, split: test, rows: 5, streaming: false}
  seed: 42
""",
    "chat_dataset": """
dataset:
  sources:
    train-00: {format: null, columns: {}, system: null, model: null}
    eval-00: {format: null, columns: {}, system: null, model: null}
  eval_fraction: null
  dedup: none
  similarity: 0.85
  seed: 42
chat: {max_length: 99, over_length: drop}
base_model: {gguf: null, chat_template: chatml, trust_remote_code: false}
training: {method: sft}
""",
    "quantized_base_model": """
base_model: {gguf: null, quantization: {bits: 4, type: nf4, double: true}, dtype: bfloat16}
""",
    "variants": "{}",
    "lora_adapter": """
lora: {r: 4, lora_alpha: 32, lora_dropout: 0.05, target_modules: all-linear, use_rslora: false, use_dora: false,
  bias: none, init_lora_weights: true, modules_to_save: null}
training: {method: sft, beta: null, loss_type: null, num_train_epochs: 1.0, max_steps: -1, learning_rate: 0.0002,
  lr_scheduler_type: cosine, warmup_steps: 0.0, per_device_train_batch_size: 8, per_device_eval_batch_size: 8,
  gradient_accumulation_steps: 1, max_grad_norm: 1.0, weight_decay: 0.0, optim: adamw_torch_fused, bf16: true,
  packing: false, train_sampling_strategy: group_by_length, tokens_per_step: null, neftune_noise_alpha: null,
  loraplus_lr_ratio: null, eval_steps: 5, early_stopping_patience: null, logging_steps: 10, seed: 42}
base_model: {attention: [eager, sdpa]}
""",
    "base_answers": "evaluation: {max_new_tokens: 256, batch_size: 32}",
    "published_answers": "evaluation: {max_new_tokens: 256, batch_size: 32}",
    "base_benchmarks": "evaluation: {batch_size: 32, benchmarks: [arc_easy], benchmark_rows: null}",
    "evaluation_report": """
evaluation: {metrics: [exact-match, loss], rows: 200, max_new_tokens: 256, batch_size: 32, samples: 3,
  benchmarks: [arc_easy], benchmark_folder: null, benchmark_rows: null, max_benchmark_fall: 0.05,
  gate: {exact-match: {min_gain: 0.0, min_score: null, max_score: null}}, no_worse_than_published: true}
summary: Adds
""",
    "merged_model": "merge: {dtype: bfloat16}",
    "published_repo": """
hub: {repo: lab/adds, license: other, license_name: Ours, license_link: "https://lab.test/licence", private: true}
summary: Adds
""",
    "published_merged_repo": """
hub: {repo: lab/adds, license: other, license_name: Ours, license_link: "https://lab.test/licence", private: true}
summary: Adds
""",
}


@pytest.mark.parametrize("made", MADE)
def test_fingerprints_hold_what_they_held_in_older_releases(made):
    recipe = Recipe.model_validate(yaml.safe_load(RECIPE))
    assert sections(recipe, made) == yaml.safe_load(SECTIONS[made])


def test_a_base_model_depends_on_the_adapters_rank_where_it_is_made_for_loftq_alone():
    written = yaml.safe_load(RECIPE)
    assert "lora" not in sections(Recipe.model_validate(written), "quantized_base_model")
    loftq = Recipe.model_validate(written | {"lora": {"r": 4, "init_lora_weights": "loftq"}})
    assert sections(loftq, "quantized_base_model")["lora"] == {"r": 4}


def test_the_seed_is_no_part_of_rows_that_are_all_taken():
    written = yaml.safe_load(RECIPE) | {"dataset": {"sources": [{"hub": "lab/sums"}], "seed": 7}}
    assert sections(Recipe.model_validate(written), "raw_dataset")["dataset"]["seed"] is None


def test_no_secret_of_an_address_is_in_a_fingerprint():
    address = "https://me:hunter2@lab.test/a.jsonl?signature=hunter2"
    written = yaml.safe_load(RECIPE) | {"dataset": {"sources": [{"files": [address]}]}}
    found = sections(Recipe.model_validate(written), "raw_dataset")["dataset"]["sources"]["train-00"]["files"]
    assert "lab.test/a.jsonl" in found[0] and "hunter2" not in str(found)
