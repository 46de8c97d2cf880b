"""The tokens of texts, without anything that a tokenizer adds by itself, and never a control token in plain text."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

TOGETHER = 10
OTHER_HEADS = ("a", ".", "0", ")")


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text by itself, and no token that is not in the text."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    # Past the tokenizer's own call, which spends half of its time on offsets and on a dictionary that nobody reads.
    backend = tokenizer.backend_tokenizer
    # Looked at first: setting anything fails while another thread tokenizes.
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text and id of the tokens that are found before a text is split into words: `</s>` and other special ones."""
    return {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}


class PlainText:
    """Tokenizes text that people wrote: whatever it spells out, none of the `control` tokens comes out of it.

    `is_control` tells by id (vocabulary,) which tokens these are, and `spelled_out` finds their texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: dict[str, int]) -> None:
        self.tokenizer, self.control = tokenizer, control
        longest_first = sorted(control, key=len, reverse=True)
        self.spelled_out = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.is_control = np.zeros(max([len(tokenizer), *(i + 1 for i in control.values())]), dtype=bool)
        self.is_control[list(control.values())] = True
        self.control_ids = set(control.values())

    @cached_property
    def in_context(self) -> bool:
        """Whether the tokenizer puts a space before any text that it is given, as those of Llama 2 and Mistral do."""
        together, line_break, letter = token_ids(self.tokenizer, ["\na", "\n", "a"])
        return together != line_break + letter

    @cached_property
    def _separator(self) -> tuple[str, int] | None:
        """A control token that keeps texts apart which are tokenized together; None where it would change them."""
        if self.in_context:
            return None
        texts = ["a", " b ", "\n\n", "é 1", "</"]
        apart = token_ids(self.tokenizer, texts)
        others = added_tokens(self.tokenizer)
        for text, number in self.control.items():
            if any(_touch(text, other) for other in others if other != text):
                continue
            together = token_ids(self.tokenizer, [text.join(texts)])[0]
            if together == [*chain.from_iterable([*ids, number] for ids in apart)][:-1]:
                return text, number
        return None

    def _token_ids_together(self, texts: Sequence[str], separator: str, number: int) -> list[list[int]]:
        """The tokens of each text. Several at a time are one text, for each one costs as much as ten tokens do."""
        joinable = [text for text in texts if separator not in text]
        groups = [joinable[i : i + TOGETHER] for i in range(0, len(joinable), TOGETHER)]
        found: list[list[int]] = []
        for group, ids in zip(groups, token_ids(self.tokenizer, list(map(separator.join, groups))), strict=True):
            parts = list(_parts(ids, number))
            # A tokenizer that changes text first may make the separator of other text.
            found += parts if len(parts) == len(group) else token_ids(self.tokenizer, group)
        joined, alone = iter(found), iter(token_ids(self.tokenizer, [text for text in texts if separator in text]))
        return [next(alone) if separator in text else next(joined) for text in texts]

    def split(self, text: str) -> list[str]:
        """The control tokens in a text and what lies between them, in their order."""
        found = re.split(f"({self.spelled_out.pattern})", text)
        return [part for part in found if part]

    def token_ids(self, texts: Sequence[str], befores: Sequence[str]) -> list[list[int]]:
        """The tokens that each text has behind the control token, "\\n", or nothing, that stands in `befores`.

        Where a text spells out a control token, they hold it; `apart` gives others.
        """
        if self._separator:
            return self._token_ids_together(texts, *self._separator)
        if not self.in_context:
            return token_ids(self.tokenizer, texts)
        heads = {before: token_ids(self.tokenizer, [before])[0] for before in set(befores)}
        ids = token_ids(self.tokenizer, [before + text for before, text in zip(befores, texts, strict=True)])
        return [
            found[len(heads[before]) :] if found[: len(heads[before])] == heads[before] else self._behind_another(text)
            for text, before, found in zip(texts, befores, ids, strict=True)
        ]

    def _behind_another(self, text: str) -> list[int]:
        """The tokens of a text that grows together with the line break before it, behind a sign that it does not."""
        for before in OTHER_HEADS:
            head, found = token_ids(self.tokenizer, [before, before + text])
            if found[: len(head)] == head:
                return found[len(head) :]
        return token_ids(self.tokenizer, [text])[0]

    def apart(self, text: str, before: str) -> list[int]:
        """The tokens of a text that spells out control tokens, each of which is cut in two before it is tokenized."""
        cuts = {found.start() + 1 for found in self.spelled_out.finditer(text)}
        ids = self._in_parts(text, before, cuts)
        # A tokenizer that changes text before it looks for its tokens finds them where their text is not.
        return self._in_parts(text, before, set(range(1, len(text)))) if self.is_control[ids].any() else ids

    def _in_parts(self, text: str, before: str, cuts: set[int]) -> list[int]:
        bounds = [0, *sorted(cuts), len(text)]
        parts = [text[start:end] for start, end in pairwise(bounds)]
        ids = self.token_ids(parts, [before, *["\n"] * (len(parts) - 1)])
        return [token for part in ids for token in part]


def _touch(first: str, second: str) -> bool:
    """Whether one text holds the other, or ends with what the other begins with."""
    ends = [(a[-size:], b[:size]) for a, b in ((first, second), (second, first)) for size in range(1, len(a))]
    return first in second or second in first or any(end == beginning for end, beginning in ends)


def _parts(ids: list[int], separator: int) -> Iterator[list[int]]:
    """What lies between the separators."""
    start = 0
    for _ in range(ids.count(separator)):
        end = ids.index(separator, start)
        yield ids[start:end]
        start = end + 1
    yield ids[start:]
