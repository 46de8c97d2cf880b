"""The Python code on a model card: loads what was published and asks it something, with no library of this project.

>>> print(merged_code(recipe, "me/phi-2-merged", "0123456789abcdef"))
from transformers import AutoModelForCausalLM, AutoTokenizer
…
"""

import json

from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.recipe import Recipe


def adapter_code(recipe: Recipe, repo_id: str, tag: str, stop_token: str, *, quantize: bool) -> str:
    """Python that loads the adapter on its base model, as both were evaluated, and asks it something.

    Args:
        quantize: the weights of the base repo are not those that were trained on, but those before quantization.
    """
    quantized = quantize and recipe.base_model.quantization is not None
    trust = ["trust_remote_code=True"] if recipe.base_model.trust_remote_code else []
    given = ["repo", "revision=revision", *trust]
    lines = [
        "from peft import AutoPeftModelForCausalLM",
        f"from transformers import AutoTokenizer{', BitsAndBytesConfig' if quantized else ''}",
        "",
        f'repo, revision = "{repo_id}", "{tag}"',
        f"tokenizer = AutoTokenizer.from_pretrained({', '.join(given)})",
        *([f"quantization = {quantization_code(recipe.base_model)}"] if quantized else []),
        *call(
            "model = AutoPeftModelForCausalLM.from_pretrained",
            [*given, *(["quantization_config=quantization"] if quantized else [])],
        ),
        *asking(recipe, [f"eos_token_id=tokenizer.convert_tokens_to_ids({json.dumps(stop_token)})"]),
    ]
    return "\n".join(lines)


def merged_code(recipe: Recipe, repo_id: str, tag: str) -> str:
    """Python that loads the merged model and asks it something."""
    trust = ", trust_remote_code=True" if recipe.base_model.trust_remote_code else ""
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'repo, revision = "{repo_id}", "{tag}"',
        f"tokenizer = AutoTokenizer.from_pretrained(repo, revision=revision{trust})",
        f"model = AutoModelForCausalLM.from_pretrained(repo, revision=revision{trust})",
        *asking(recipe, []),
    ]
    return "\n".join(lines)


def asking(recipe: Recipe, stop: list[str]) -> list[str]:
    """Lines of Python that ask `model` something through `tokenizer`; `stop` are arguments of its own of `generate`."""
    system = recipe.dataset.sources[0].system
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "Your question"})
    decoding = [f"max_new_tokens={recipe.evaluation.max_new_tokens}", "do_sample=False"]
    return [
        *call("messages = ", [json.dumps(message, ensure_ascii=False) for message in messages], "[]"),
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
        ").to(model.device)",
        *call("output = model.generate", ["**inputs", *decoding, *stop, "pad_token_id=tokenizer.pad_token_id"]),
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]


def call(opening: str, arguments: list[str], brackets: str = "()") -> list[str]:
    """Lines of Python with the arguments in brackets: one, or where it were too long, one for each argument."""
    left, right = brackets
    line = f"{opening}{left}{', '.join(arguments)}{right}"
    return [line] if len(line) <= 100 else [opening + left, *(f"    {argument}," for argument in arguments), right]


def quantization_code(spec: BaseModelSpec) -> str:
    """Python that makes the quantization that the adapter was trained with."""
    quantization = spec.quantization
    if quantization is None or quantization.bits == 8:
        return "BitsAndBytesConfig(load_in_8bit=True)"
    arguments = [
        "load_in_4bit=True",
        f'bnb_4bit_quant_type="{quantization.type}"',
        f"bnb_4bit_use_double_quant={quantization.double}",
        f'bnb_4bit_compute_dtype="{spec.dtype}"',
    ]
    return "\n".join(call("BitsAndBytesConfig", arguments))
