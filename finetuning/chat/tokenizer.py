"""Loads the tokenizer of a base model, with the chat template that the recipe gives it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from finetuning.recipe.base_model import CHAT_TEMPLATES, BaseModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
from finetuning.base_model.source import gguf_file, readable, rows_of


def template_revision(spec: BaseModelSpec, template_kwargs: Mapping[str, JsonValue] | None = None) -> str:
    """A hash of the chat template's text where a file holds it, else the template's name, and then its arguments."""
    given = f" {json.dumps(template_kwargs, sort_keys=True)}" if template_kwargs else ""
    path = CHAT_TEMPLATES / f"{spec.chat_template}.jinja"
    path = path if path.exists() else Path(spec.chat_template).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] + given if path.is_file() else spec.chat_template + given


def load_tokenizer(
    spec: BaseModelSpec, folder: Path, where: str, template_kwargs: Mapping[str, JsonValue] | None = None
) -> "PreTrainedTokenizerBase":
    """The base model's tokenizer, with the recipe's chat template set, the tokens that it needs, and a padding token.

    Where new tokens came from is in its `given_tokens` (see `load_template`), which is not saved with it.
    """
    from transformers import AutoTokenizer

    from finetuning.chat.template import load_template

    gguf = gguf_file(spec, folder, where)
    with readable(spec, where):
        tokenizer = AutoTokenizer.from_pretrained(folder, **gguf, trust_remote_code=spec.trust_remote_code)
    tokenizer.given_tokens = load_template(tokenizer, spec.chat_template, where, rows_of(folder), template_kwargs)
    if tokenizer.pad_token is None:
        # Safe: batches carry an attention mask and labels of their own, so padding never hides a stop token.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def saved_tokenizer(folder: Path, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    """The tokenizer of a chat dataset; where one file holds it, it is there in a second, without torch."""
    if (folder / "tokenizer.json").exists():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
