"""Rows of text, which no chat template is applied to: all of it is learned, between the tokenizer's own begin and end.

"It rained." -> <s>It rained.</s>, of which all but <s> is supervised
"""

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetuning.chat.layout_search import control_tokens
from finetuning.chat.layouts import LaidOut, Layout, Pattern, Piece, layout_of
from finetuning.chat.template import bos_in_use
from finetuning.tokens import ANSWER, OTHER, QUESTION, Tokens


def text_layout(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """The layout of any text: the token that the tokenizer begins with, if it has one, the text, and that it ends with.

    The text has the tokens that the tokenizer gives it by itself, and no control token, whatever it spells out.
    """
    begin, end = bos_in_use(tokenizer), tokenizer.eos_token_id
    pieces = [Piece(None, Pattern("%s", (0,)), ANSWER, before="")]
    if begin is not None:
        pieces.insert(0, _control(str(tokenizer.bos_token), begin, OTHER))
    if isinstance(end, int):
        pieces.append(_control(str(tokenizer.eos_token), end, ANSWER))
    return layout_of(pieces, set(control_tokens(tokenizer).values()))


def lay_out_text(layout: Layout, text: str) -> LaidOut:
    """A text in that layout."""
    return LaidOut(layout, [text])


def in_pieces(tokens: Tokens, max_length: int, begin: int | None) -> tuple[Tokens, np.ndarray]:
    """Cut texts that are longer than `max_length` into pieces of about equal length, and lose nothing of them.

    Every piece begins with the token `begin`, if its text does; the last one alone has the text's end.

    Returns:
        The pieces, and for each the number of its text (pieces,).
    """
    sizes = np.diff(tokens.ends, prepend=0)
    if (sizes <= max_length).all():
        return tokens, np.arange(len(sizes))
    ids: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    owners: list[int] = []
    for number, size in enumerate(sizes.tolist()):
        one = tokens.of(number)
        head = int(begin is not None and one.ids[0] == begin and max_length > 1)
        count = 1 if size <= max_length else -(-(size - head) // (max_length - head))
        for some, kind in zip(
            np.array_split(one.ids[head:], count), np.array_split(one.kinds[head:], count), strict=True
        ):
            ids.append(np.r_[one.ids[:head], some])
            kinds.append(np.r_[one.kinds[:head], kind])
            owners.append(number)
    found = set(tokens.spelled_out)
    spelled_out = [piece for piece, owner in enumerate(owners) if owner in found]
    pieces = Tokens(np.concatenate(ids), np.concatenate(kinds), np.cumsum([len(some) for some in ids]), spelled_out)
    return pieces, np.array(owners)


def as_questions(tokens: Tokens) -> Tokens:
    """The same texts as what is asked, so that those that are nearly the same are found."""
    kinds = np.where(tokens.kinds == ANSWER, np.int8(QUESTION), tokens.kinds)
    return Tokens(tokens.ids, kinds, tokens.ends, tokens.spelled_out)


def _control(text: str, token: int, kind: int) -> Piece:
    return Piece([token], Pattern(text.replace("%", "%%")), kind)
