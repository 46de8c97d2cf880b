"""Gives a tokenizer the control tokens that a chat template needs and its vocabulary lacks.

Gemma:    <unused0>, <unused1>             ->  <|im_start|>, <|im_end|>   entries that nobody used, under new names
Phi-2:    50,295 tokens, 51,200 embeddings ->  ids 50295, 50296           rows that the model has to spare
Llama 2:  32,000 tokens and embeddings     ->  ids 32000, 32001           new rows: the embeddings grow
"""

import json
import re
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetuning.chat.tokenization import token_ids

# <unused0> of Gemma, <|reserved_special_token_0|> of Llama 3, >>UNUSED_0<< of Falcon 3, [control_8] and <SPECIAL_20> of
# Mistral, [unused0] of BERT, <reserved_0>, <|extra_0|>, <|dummy_0|> of Phi-4, <|placeholder1|> of Phi-3.
RESERVED = re.compile(
    r"(?:<\|?|\[|>>)(?:unused|reserved(?:_special)?(?:_token)?|special|control|extra|dummy|placeholder)_?\d+(?:\|?>|\]|<<)",
    re.IGNORECASE,
)


def is_one_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether `text` is encoded as one token, which is just this text."""
    ids = token_ids(tokenizer, [text])[0]
    return len(ids) == 1 and tokenizer.convert_ids_to_tokens(ids[0]) == text


def add_control_tokens(
    tokenizer: PreTrainedTokenizerBase, tokens: list[str], template: str, rows: int | None = None
) -> dict[str, str]:
    """Make each of `tokens` one special token of the tokenizer; return where each came from, in words.

    Args:
        template: the chat template that needs them; what it mentions is not renamed.
        rows: of the model's embeddings; None where they are not known.
    """
    known = tokenizer.get_vocab()
    lacking = [token for token in tokens if token not in known]
    free = [token for token in unused_entries(tokenizer) if token not in template]
    renamed = dict(zip(lacking, free, strict=False))
    if renamed:
        _rename(tokenizer, {old: new for new, old in renamed.items()})
    tokenizer.add_special_tokens({"extra_special_tokens": list(tokens)}, replace_extra_special_tokens=False)
    ids = tokenizer.get_vocab()
    origins = {token: _origin(ids[token], rows) for token in tokens}
    return origins | {
        token: f"renamed {renamed[token]}" if token in renamed else f"entry {known[token]}, now special"
        for token in tokens
        if token in renamed or token in known
    }


def _origin(number: int, rows: int | None) -> str:
    if rows is None:
        return f"new token {number}"
    return f"new token {number}, {'a spare' if number < rows else 'a new'} row of the embeddings"


def unused_entries(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the vocabulary's reserved entries by id, without those that the tokenizer or its chat template uses."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return []  # nothing that a slow tokenizer saves could hold another name
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    named = [getattr(tokenizer, name) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES]
    used = json.dumps([tokenizer.chat_template, named, state["post_processor"]])
    found = {token: number for token, number in tokenizer.get_vocab().items() if RESERVED.fullmatch(token)}
    return [token for token in sorted(found, key=found.__getitem__) if token not in used]


def new_tokens(tokenizer: PreTrainedTokenizerBase, base_tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids, in order, that stand for another token than in the base model's vocabulary, or are not in it."""
    known = base_tokenizer.get_vocab()
    return sorted(number for token, number in tokenizer.get_vocab().items() if known.get(token) != number)


def _rename(tokenizer: Any, names: dict[str, str]) -> None:
    """Rename entries of the vocabulary (old -> new), which keep their ids."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in state["added_tokens"]:
        if token["content"] in names:
            token["content"] = names[token["content"]]
    _rename_in(state["model"], names)
    backend = Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    tokenizer._tokenizer = backend
    # Under its old name it would be added again, as another token, when the saved tokenizer is loaded.
    tokenizer.extra_special_tokens = [token for token in tokenizer.extra_special_tokens if token not in names]


def _rename_in(model: Any, names: dict[str, str]) -> None:
    """Rename entries in the `model` of a tokenizer's JSON."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    else:  # Unigram: pairs of a piece and its score
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if _merged(merge) not in names]


def _merged(merge: str | list[str]) -> str:
    return merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
