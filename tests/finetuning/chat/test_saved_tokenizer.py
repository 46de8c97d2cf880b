"""The tokenizer that lies with a chat dataset is read without torch where one file holds it, with the same tokens."""

import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from finetuning.chat.tokenizer import saved_tokenizer
from tests.native_templates import NATIVE
from tests.tiny_models import save_native_model

SAID = "Café, 12 + 30 =\n\n  42 🙂 naïve\t<|im_end|></s> end"


def same(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    ours, whole = saved_tokenizer(folder, False), AutoTokenizer.from_pretrained(folder)
    ids = whole(SAID, add_special_tokens=False)["input_ids"]
    assert ours(SAID, add_special_tokens=False)["input_ids"] == ids
    for end in (3, len(ids)):
        told = [tokenizer.decode(ids[:end], skip_special_tokens=True) for tokenizer in (ours, whole)]
        assert told[0] == told[1]


def test_smollm2s_has_the_same_tokens(smollm2_tokenizer, tmp_path):
    same(smollm2_tokenizer, tmp_path)


@pytest.mark.parametrize("recipe", sorted(NATIVE))
def test_a_recipes_has_the_same_tokens(recipe, tmp_path):
    same(AutoTokenizer.from_pretrained(save_native_model(recipe, tmp_path / "model")), tmp_path / "chat")


def test_torch_is_not_imported_for_it(smollm2_tokenizer, tmp_path):
    smollm2_tokenizer.save_pretrained(tmp_path)
    code = (
        "import sys; from pathlib import Path; from finetuning.chat.tokenizer import saved_tokenizer;"
        f"saved_tokenizer(Path({str(tmp_path)!r}), False); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
