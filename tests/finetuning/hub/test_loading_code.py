"""The code on a card, run on tiny models: it asks with the very prompt that the exam asked with."""

import runpy

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template, stop_text
from finetuning.hub.loading_code import adapter_code, merged_code
from finetuning.recipe.recipe import Recipe
from tests.native_templates import NATIVE
from tests.tiny_models import save_tiny_model

NOT_THINKING = "<|im_start|>assistant\n<think>\n\n</think>\n"


def recipe_of(thinks: bool) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "summary": "Adds numbers",
            "base_model": {"repo": "a/b", "quantization": None},
            "dataset": {"sources": [{"hub": "a/b", "system": "Add."}]},
            "chat": {"template_kwargs": {"enable_thinking": thinks}},
            "evaluation": {"max_new_tokens": 2},
            "hub": {"repo": "tiny", "license": "mit"},
        }
    )


@pytest.mark.parametrize("kind", ["adapter", "merged"])
@pytest.mark.parametrize("thinks", [True, False])
def test_the_code_on_a_card_asks_by_the_template_with_the_arguments_of_the_recipe(tmp_path, kind, thinks):
    recipe = recipe_of(thinks)
    base, published = save_tiny_model("smollm2-135m", tmp_path / "base", NATIVE["smollm3-3b"]), tmp_path / "published"
    tokenizer = AutoTokenizer.from_pretrained(base)
    load_template(tokenizer, "native", "tiny.yaml", None, recipe.chat.template_kwargs)
    model = AutoModelForCausalLM.from_pretrained(base)
    (get_peft_model(model, LoraConfig(r=2)) if kind == "adapter" else model).save_pretrained(published)
    tokenizer.save_pretrained(published)
    code = (
        adapter_code(recipe, str(published), "main", stop_text(tokenizer), quantize=True)
        if kind == "adapter"
        else merged_code(recipe, str(published), "main")
    )
    (tmp_path / "card.py").write_text(code)
    ran = runpy.run_path(str(tmp_path / "card.py"))
    (asked,) = ran["inputs"]["input_ids"].tolist()
    assert asked == Renderer(tokenizer).prompt(Conversation(ran["messages"]))
    assert tokenizer.decode(asked).endswith(NOT_THINKING) is not thinks
