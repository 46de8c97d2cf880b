"""The Modelfile for Ollama: its template, as Go reads it, writes the prompts of the chat template, or is left out."""

import re

import pytest
from transformers import AutoTokenizer

from finetuning.chat.template import load_template, texts
from finetuning.hub.modelfile import has_template, modelfile
from finetuning.recipe.recipe import Recipe
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.merge.test_gguf_file import METASPACE, saved, sentencepiece
from tests.native_templates import NATIVE, ZEPHYR

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " 2 + 3? \n"},
    {"role": "assistant", "content": "<think>\n2 + 3\n</think>\n\n5"},
    {"role": "user", "content": "And <b>&\"'</b> 4 + 5?"},
]


def recipe_of(system="Add."):
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "Adds numbers",
            "base_model": {"repo": "a/b"},
            "dataset": {"sources": [{"hub": "a/b", "system": system}]},
            "evaluation": {"max_new_tokens": 77},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


def tokenizer_of(template):
    tokenizer = train_tiny_tokenizer()
    if template in ("chatml", "instruction"):
        load_template(tokenizer, template, "tiny.yaml")
    else:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = template
    return tokenizer


def value_of(text, instruction):
    """What a Modelfile says after an instruction, in one pair of quotes or three."""
    return re.search(rf'^{instruction} ("""|")?(.*?)\1?$(?=\n[A-Z]+ |\n\Z)', text, re.DOTALL | re.MULTILINE)[2]


def rendered_by_go(template, messages):
    """What Go's text/template makes of messages, of the few actions that are used: range, if eq, and a field."""
    head, turn, rest = re.fullmatch(
        r"(.*?)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}\{\{ end \}\}(.*?)", template, re.DOTALL
    ).groups()
    found = re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(.*?)(?=\{\{ else|\Z)', turn, re.DOTALL)
    bodies = dict(found)
    assert "".join(bodies) == "systemuserassistant" and "{{" not in head + rest
    assert all(body.count("{{") == 1 for body in bodies.values())
    turns = [bodies[message["role"]].replace("{{ .Content }}", message["content"]) for message in messages]
    return head + "".join(turns) + rest


@pytest.mark.parametrize("template", ["chatml", "instruction", ZEPHYR], ids=["chatml", "instruction", "Zephyr's"])
def test_ollamas_template_writes_the_prompts_of_the_chat_template(template):
    tokenizer = tokenizer_of(template)
    written = value_of(modelfile(recipe_of(None), tokenizer, "tiny.gguf"), "TEMPLATE")
    for talk in (TALK, TALK[1:], TALK[:2], TALK[1:2]):
        (prompt,) = texts(tokenizer, [talk], add_generation_prompt=True)
        assert rendered_by_go(written, talk) == prompt


def test_a_default_system_message_is_no_hindrance_where_the_modelfile_has_one(smollm2_tokenizer):
    assert has_template(modelfile(recipe_of("Add."), smollm2_tokenizer, "tiny.gguf"))
    assert not has_template(modelfile(recipe_of(None), smollm2_tokenizer, "tiny.gguf"))


def test_the_token_that_llama_cpp_puts_before_every_text_is_not_in_the_template(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(sentencepiece(saved("zephyr-7b-beta", tmp_path), METASPACE))
    (prompt,) = texts(tokenizer, [TALK], add_generation_prompt=True)
    assert prompt.startswith("<s>")
    written = value_of(modelfile(recipe_of(), tokenizer, "tiny.gguf"), "TEMPLATE")
    assert "<s>" + rendered_by_go(written, TALK) == prompt


TRIMS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}<|assistant|>"


@pytest.mark.parametrize("template", [NATIVE["qwen3-4b-tools"].text, TRIMS], ids=["drops thoughts", "trims"])
def test_a_chat_template_that_changes_what_turns_say_has_no_equal(template):
    assert not has_template(modelfile(recipe_of(), tokenizer_of(template), "tiny.gguf"))


def test_it_is_asked_as_in_the_exam():
    text = modelfile(recipe_of('Say "four",\nand no more.'), tokenizer_of("chatml"), "tiny.q8_0.gguf")
    assert text.splitlines()[0] == "FROM ./tiny.q8_0.gguf"
    assert value_of(text, "SYSTEM") == 'Say "four",\nand no more.'
    assert re.findall("^PARAMETER (.*)$", text, re.MULTILINE) == [
        'stop "<|im_end|>"',
        "temperature 0",
        "repeat_penalty 1",
        "num_predict 77",
    ]


def test_a_system_message_that_no_modelfile_can_hold_is_told():
    text = modelfile(recipe_of('Answer """so""".'), tokenizer_of("chatml"), "tiny.gguf")
    assert "\nSYSTEM" not in text and "# The recipe's system message has three quotes" in text
