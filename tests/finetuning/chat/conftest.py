"""A tokenizer with the template that is called instruction."""

import pytest

from finetuning.chat.template import load_template
from tests.finetuning.chat.made_rows import WHERE


@pytest.fixture
def tokenizer(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", WHERE)
    return tiny_tokenizer
