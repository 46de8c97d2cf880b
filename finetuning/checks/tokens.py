"""Looks at the tokens that training will see, however they were made, for the faults that no loss curve shows."""

import numpy as np

from finetuning.tokens import ANSWER, OTHER, THOUGHT, Tokens


def lengths(tokens: Tokens) -> np.ndarray:
    """Count the tokens of each conversation (conversations,)."""
    return np.diff(tokens.ends, prepend=0)


def take(tokens: Tokens, keep: np.ndarray) -> Tokens:
    """Return the conversations that are marked in `keep` (conversations,)."""
    if keep.all():
        return tokens
    sizes = lengths(tokens)
    inside = np.repeat(keep, sizes)
    renumbered = np.cumsum(keep) - 1
    spelled_out = [int(renumbered[row]) for row in tokens.spelled_out if keep[row]]
    return Tokens(tokens.ids[inside], tokens.kinds[inside], np.cumsum(sizes[keep]), spelled_out)


def supervised(tokens: Tokens) -> np.ndarray:
    """Count the supervised tokens of each conversation (conversations,)."""
    return _sums(tokens.kinds == ANSWER, tokens)


def without_supervision_or_prompt(tokens: Tokens) -> np.ndarray:
    """Whether a conversation has no supervised token, or no other ones (conversations,)."""
    count = supervised(tokens)
    return (count == 0) | (count == lengths(tokens))


def answers(tokens: Tokens) -> np.ndarray:
    """Count the supervised answers of each conversation (conversations,)."""
    return _sums(answer_ends(tokens), tokens)


def without_stop_token(tokens: Tokens, stops: int | list[int], turns: np.ndarray) -> np.ndarray:
    """Whether fewer of a conversation's `turns` (conversations,) end in one of the supervised tokens `stops`."""
    ends = answer_ends(tokens)
    return _sums(ends & np.isin(tokens.ids, stops), tokens) < turns


def without_one_bos(tokens: Tokens, bos: int, stop: int) -> np.ndarray:
    """Whether a conversation does not begin with the token `bos`, or has it again (conversations,).

    Where it is the token `stop` as well, it may come again.
    """
    starts = tokens.ends - lengths(tokens)
    lacking = tokens.ids[starts] != bos
    return lacking if bos == stop else lacking | (_sums(tokens.ids == bos, tokens) != 1)


def answer_ends(tokens: Tokens) -> np.ndarray:
    """Whether a token is the last one of a supervised answer (tokens,)."""
    is_answer = tokens.kinds == ANSWER
    # What was thought within it is a part of the answer.
    followed = np.r_[is_answer[1:] | (tokens.kinds[1:] == THOUGHT), False]
    followed[tokens.ends - 1] = False
    return is_answer & ~followed


def last_answers(tokens: Tokens) -> Tokens:
    """Leave only the last answer of each conversation supervised."""
    is_answer = tokens.kinds == ANSWER
    starts = tokens.ends - lengths(tokens)
    is_said = is_answer | (tokens.kinds == THOUGHT)
    begins = is_said & ~np.r_[False, is_said[:-1]]
    begins[starts] = is_said[starts]
    place = np.arange(len(tokens.ids))
    last = np.maximum.reduceat(np.where(begins, place, -1), starts)
    kinds = np.where(is_answer & (place < np.repeat(last, lengths(tokens))), np.int8(OTHER), tokens.kinds)
    return Tokens(tokens.ids, kinds, tokens.ends, tokens.spelled_out)


def truncate(tokens: Tokens, max_length: int) -> tuple[Tokens, np.ndarray, np.ndarray]:
    """Cut conversations to `max_length` tokens; return them, how many answers each keeps, and whether one was cut.

    A conversation is cut behind the last answer that fits; where not even the first one does, through it, so that it
    has no stop token. One whose first answer does not begin within `max_length` is left with nothing supervised.
    """
    sizes, ends = lengths(tokens), answer_ends(tokens)
    new_sizes, kept = sizes.copy(), _sums(ends, tokens)
    cut_through = np.zeros(len(sizes), bool)
    for row in np.flatnonzero(sizes > max_length):
        start = tokens.ends[row] - sizes[row]
        fitting = np.flatnonzero(ends[start : start + max_length]) + 1
        kept[row] = len(fitting)
        new_sizes[row] = fitting[-1] if len(fitting) else max_length
        cut_through[row] = not len(fitting)
    offset = np.arange(len(tokens.ids)) - np.repeat(tokens.ends - sizes, sizes)
    inside = offset < np.repeat(new_sizes, sizes)
    cut = Tokens(tokens.ids[inside], tokens.kinds[inside], np.cumsum(new_sizes), tokens.spelled_out)
    return cut, kept, cut_through


def _sums(marks: np.ndarray, tokens: Tokens) -> np.ndarray:
    """Count the marked tokens of each conversation (conversations,)."""
    if not len(tokens.ends):
        return np.zeros(0, np.int64)
    return np.add.reduceat(marks, tokens.ends - lengths(tokens), dtype=np.int64)
