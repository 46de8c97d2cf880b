"""The tokens of texts, without anything that a tokenizer adds by itself."""

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The tokens of each text by itself, and no token that is not in the text."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    # Past the tokenizer's own call, which spends half of its time on offsets and on a dictionary that nobody reads.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text and id of the tokens that are found before a text is split into words: `</s>` and other special ones."""
    return {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
