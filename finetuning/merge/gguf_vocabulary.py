"""A tokenizer as a GGUF file holds it: tokens with their kinds, how they are merged, where text is split, the template.

SmolLM2   byte-level BPE       -> model "gpt2", pre "gpt-2" (the rule that splits text into words), 48,900 merges
Zephyr    sentencepiece's BPE  -> model "llama", a score for each token in place of the merges

A file has no rules of its own for splitting text, only names of those that its readers know: a tokenizer with another
rule cannot be exported. Source: llama.cpp's convert_hf_to_gguf.py, and transformers' gguf_tokenizer_mapping.py, whose
readings of a file decide here.
"""

import json
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from finetuning.chat.template import bos_in_use, stop_token
from finetuning.errors import FinetuningError

# What a text is split by -> llama.cpp's name for it.
SPLITS = {GGUF_PRE_TOKENIZER_SPLITS[name]: name for name in ("llama-bpe", "tekken", "gpt-4o", "qwen2")}


def add_vocabulary(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Hand the tokenizer to `writer`, with a token for each of the `rows` of the model's embeddings.

    The token that ends an answer is its end of text, whatever the tokenizer says itself.

    Raises:
        FinetuningError: text is split into tokens in a way that no GGUF file can tell.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise FinetuningError("the tokenizer has no tokenizer.json, which tells how it splits text")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    byte_level = is_byte_level(state)
    writer.add_tokenizer_model("gpt2" if byte_level else "llama")
    writer.add_tokenizer_pre(split_of(state) if byte_level else "default")
    tokens, kinds = tokens_of(tokenizer, rows)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    if byte_level:
        writer.add_token_merges(merges)
    else:
        writer.add_token_scores(scores_of(tokens, merges))
        writer.add_add_space_prefix(prefixes_space(state))
    _add_special_tokens(writer, tokenizer, rows)
    writer.add_chat_template(str(tokenizer.get_chat_template()))


def _add_special_tokens(writer: GGUFWriter, tokenizer: Any, rows: int) -> None:
    writer.add_eos_token_id(stop_token(tokenizer))
    for token, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token is not None and token < rows:
            add(token)
    writer.add_add_bos_token(bos_in_use(tokenizer) is not None)
    writer.add_add_eos_token(False)


def is_byte_level(state: dict[str, Any]) -> bool:
    """Whether tokens are merged from bytes, rather than from characters as sentencepiece does it.

    Raises:
        FinetuningError: neither of them; `state` is that of `tokenizer.json`.
    """
    model = state["model"]
    if model["type"] == "BPE" and model.get("byte_fallback"):
        return False
    if model["type"] == "BPE" and any(part["type"] == "ByteLevel" for part in parts_of(state["pre_tokenizer"])):
        return True
    raise FinetuningError(f"the tokenizer is a {model['type']} model that is neither byte-level nor sentencepiece's")


def parts_of(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What a step of `tokenizer.json` consists of: itself, or the members of a sequence."""
    if step is None:
        return []
    inner = [member for key in ("pretokenizers", "normalizers") for member in step.get(key, ())]
    return [part for member in inner for part in parts_of(member)] if step["type"] == "Sequence" else [step]


def split_of(state: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits text into words.

    Raises:
        FinetuningError: in another way than those that readers of GGUF files know.
    """
    first, *others = parts_of(state["pre_tokenizer"])
    if not others and first["use_regex"] and not first["add_prefix_space"]:
        return "gpt-2"
    if [part["type"] for part in others] == ["ByteLevel"] and not others[0]["add_prefix_space"]:
        if first["type"] == "Digits" and first["individual_digits"] and others[0]["use_regex"]:
            return "smollm"
        regex = first.get("pattern", {}).get("Regex")
        if regex in SPLITS and first["behavior"] == "Isolated" and not others[0]["use_regex"]:
            return SPLITS[regex]
    kinds = " and ".join(part["type"] for part in (first, *others))
    raise FinetuningError(f"the tokenizer splits text by {kinds} in a way that has no name in GGUF files")


def prefixes_space(state: dict[str, Any]) -> bool:
    """Whether a sentencepiece tokenizer puts a space before each text that follows a control token.

    One that does so at the very start alone does not do it in a conversation, which begins with such a token.
    """
    steps = parts_of(state["normalizer"]) + parts_of(state["pre_tokenizer"])
    return any(
        part["type"] == "Prepend" or (part["type"] == "Metaspace" and part["prepend_scheme"] == "always")
        for part in steps
    )


def read_space_prefix(tokenizer: Any, theirs: Any) -> None:
    """Have a file's tokenizer, as transformers reads it, put spaces where `tokenizer` puts them.

    llama.cpp does what the file says of them; transformers 5.23 does not read that, and has a `tokenizer.json` that
    lies beside the file come first.
    """
    ours, backend = tokenizer.backend_tokenizer, theirs.backend_tokenizer
    if prefixes_space(json.loads(ours.to_str())):
        backend.normalizer, backend.pre_tokenizer = ours.normalizer, ours.pre_tokenizer


def tokens_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> tuple[list[str], list[TokenType]]:
    """Text and kind of the token of each row; rows that belong to none have a text that nobody writes."""
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, kinds = [], []
    for number in range(rows):
        tokens.append(texts.get(number, f"[PAD{number}]"))
        if number not in texts:
            kinds.append(TokenType.UNUSED)
        elif number == tokenizer.unk_token_id and number not in added:
            kinds.append(TokenType.UNKNOWN)
        elif number in added:
            kinds.append(TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED)
        else:
            is_byte = len(tokens[-1]) == 6 and tokens[-1].startswith("<0x")
            kinds.append(TokenType.BYTE if is_byte else TokenType.NORMAL)
    return tokens, kinds


def scores_of(tokens: list[str], merges: list[str]) -> list[float]:
    """Of each token the negated place of the first merge that makes it; of two merges, the higher score goes first."""
    places: dict[str, float] = {}
    for place, merge in enumerate(merges):
        places.setdefault(merge.replace(" ", "", 1), -float(place))
    return [places.get(token, -float(len(merges))) for token in tokens]
