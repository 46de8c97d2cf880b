"""The Python code on a model card: loads what was published and asks it something, with no library of this project.

>>> print(merged_code(recipe, "me/phi-2-merged", "0123456789abcdef"))
from transformers import AutoModelForCausalLM, AutoTokenizer
…
"""

import json

from finetuning.hub.rendering import render
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.recipe.recipe import Recipe


def adapter_code(recipe: Recipe, repo_id: str, tag: str, stop_token: str, *, quantize: bool) -> str:
    """Return Python that loads the adapter on its base model, as both were evaluated, and asks it something.

    Args:
        quantize: the weights of the base repo are not those that were trained on, but those before quantization.
    """
    quantized = quantize and recipe.base_model.quantization is not None
    given = arguments_of(recipe)
    loaded = [*given, *(["quantization_config=quantization"] if quantized else [])]
    stop = [f"eos_token_id=tokenizer.convert_tokens_to_ids({json.dumps(stop_token)})"]
    return render(
        "adapter.py.jinja",
        repo_id=repo_id,
        tag=tag,
        given=", ".join(given),
        quantization=quantization_code(recipe.base_model) if quantized else None,
        loaded=call("model = AutoPeftModelForCausalLM.from_pretrained", loaded),
        messages=messages_code(recipe),
        answered=answering_code(recipe, stop),
    )


def merged_code(recipe: Recipe, repo_id: str, tag: str) -> str:
    """Return Python that loads the merged model and asks it something."""
    return render(
        "merged.py.jinja",
        repo_id=repo_id,
        tag=tag,
        given=", ".join(arguments_of(recipe)),
        messages=messages_code(recipe),
        answered=answering_code(recipe, []),
    )


def arguments_of(recipe: Recipe) -> list[str]:
    """Return the arguments of `from_pretrained` that tokenizer and model have in common."""
    return ["repo", "revision=revision", *(["trust_remote_code=True"] if recipe.base_model.trust_remote_code else [])]


def messages_code(recipe: Recipe) -> str:
    """Return Python with the messages of a question, after the system prompt that the model was trained with."""
    system = recipe.dataset.sources[0].system
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "Your question"})
    return call("messages = ", [json.dumps(message, ensure_ascii=False) for message in messages], "[]")


def answering_code(recipe: Recipe, stop: list[str]) -> str:
    """Return Python that lets `model` answer as it was evaluated; `stop` are arguments that end its answer."""
    decoding = [f"max_new_tokens={recipe.evaluation.max_new_tokens}", "do_sample=False"]
    arguments = ["**inputs", *decoding, *stop, "pad_token_id=tokenizer.pad_token_id"]
    return call("output = model.generate", arguments)


def call(opening: str, arguments: list[str], brackets: str = "()") -> str:
    """Return Python with the arguments in brackets: in one line, or where that is too long, one line for each."""
    left, right = brackets
    line = f"{opening}{left}{', '.join(arguments)}{right}"
    return line if len(line) <= 100 else "\n".join([opening + left, *(f"    {one}," for one in arguments), right])


def quantization_code(spec: BaseModelSpec) -> str:
    """Return Python that makes the quantization that the adapter was trained with."""
    quantization = spec.quantization
    if quantization is None or quantization.bits == 8:
        return "BitsAndBytesConfig(load_in_8bit=True)"
    arguments = [
        "load_in_4bit=True",
        f'bnb_4bit_quant_type="{quantization.type}"',
        f"bnb_4bit_use_double_quant={quantization.double}",
        f'bnb_4bit_compute_dtype="{spec.dtype}"',
    ]
    return call("BitsAndBytesConfig", arguments)
