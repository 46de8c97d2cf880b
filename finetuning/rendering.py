"""Renders conversations by a chat template and tokenizes them piece by piece, so that each piece's tokens are known.

No token then lies across the end of a prompt: what the model is given to answer is exactly what preceded the answer in
training.
"""

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from finetuning.chat_template import stop_text, texts
from finetuning.errors import FinetuningError
from finetuning.formats import Message, RowDropped
from finetuning.tokenization import added_tokens, token_ids

NOT_SUPERVISED = -100


class Segment(NamedTuple):
    """A piece of a rendered conversation that is tokenized by itself."""

    text: str
    supervised: bool


class Rendered(NamedTuple):
    """A conversation as the model sees it: token ids, and as labels the same ids or -100 where nothing is learned."""

    input_ids: list[int]
    labels: list[int]


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Rendered:
    """The token ids of a whole conversation, and labels for each answer and the stop token after it.

    Raises:
        RowDropped: the template does not take these messages, or one of them holds the stop token.
        FinetuningError: the template changes what went before when a turn is added.
    """
    return encode(tokenizer, segments(tokenizer, [messages], stop_text(tokenizer)))[0]


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """The token ids that an answer to `messages` follows: the very ones that precede it in training."""
    answered = [*messages, {"role": "assistant", "content": "an answer"}]
    found = segments(tokenizer, [answered], stop_text(tokenizer))[0]
    last = max(i for i, segment in enumerate(found) if segment.supervised)
    return encode(tokenizer, [found[:last]])[0].input_ids


def segments(tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]], stop: str) -> list[list[Segment]]:
    """Each conversation, rendered, in pieces: prompt, answer with the `stop` token, prompt, answer, …, the rest.

    An answer is what the template adds to the prompt (with `add_generation_prompt`) when it is given the answer too.

    Raises:
        RowDropped: the template refuses one of the conversations, or one holds the stop token.
        FinetuningError: the template changes what went before when a turn is added.
    """
    if any(stop in message["content"] for messages in conversations for message in messages):
        raise RowDropped(f"contains the stop token {stop}")
    turns = [[i for i, message in enumerate(messages) if message["role"] == "assistant"] for messages in conversations]
    answers = [(messages, turn) for messages, own in zip(conversations, turns, strict=True) for turn in own]
    prompts = iter(texts(tokenizer, [messages[:turn] for messages, turn in answers], add_generation_prompt=True))
    whole = iter(texts(tokenizer, [messages[: turn + 1] for messages, turn in answers]))
    return [_cut([(next(prompts), next(whole)) for _ in own], stop) for own in turns]


def _cut(answers: list[tuple[str, str]], stop: str) -> list[Segment]:
    """The pieces of one conversation, from the text up to each answer, and the text with it."""
    found: list[Segment] = []
    before, end = "", 0
    for prompt, text in answers:
        if not prompt.startswith(before):
            raise _unstable(before, prompt)
        if not text.startswith(prompt) or stop not in text[len(prompt) :]:
            raise _unstable(prompt, text)
        found.append(Segment(prompt[end:], False))
        end = text.rindex(stop) + len(stop)
        found.append(Segment(text[len(prompt) : end], True))
        before = text
    return [*found, Segment(before[end:], False)] if before[end:] else found


def _unstable(before: str, after: str) -> FinetuningError:
    pairs = enumerate(zip(before, after, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(before), len(after)))
    shown = slice(max(0, same - 20), same + 40)
    return FinetuningError(
        f"the template is not prefix-stable: {before[shown]!r} becomes {after[shown]!r} when the next turn is added, "
        "so that prompt and answer can not be told apart. Use chatml or instruction instead."
    )


def encode(tokenizer: PreTrainedTokenizerBase, rows: list[list[Segment]]) -> list[Rendered]:
    """The tokens of each row's pieces, joined."""
    together, line_break, letter = token_ids(tokenizer, ["\na", "\n", "a"])
    if together == line_break + letter:
        ids = token_ids(tokenizer, [segment.text for row in rows for segment in row])
    else:
        ids = _token_ids_in_context(tokenizer, rows)
    pieces = iter(ids)
    return [_join([(next(pieces), segment.supervised) for segment in row]) for row in rows]


def _join(pieces: list[tuple[list[int], bool]]) -> Rendered:
    labels = (ids if supervised else [NOT_SUPERVISED] * len(ids) for ids, supervised in pieces)
    return Rendered(list(chain.from_iterable(ids for ids, _ in pieces)), list(chain.from_iterable(labels)))


def _token_ids_in_context(tokenizer: PreTrainedTokenizerBase, rows: list[list[Segment]]) -> list[list[int]]:
    """The tokens of each piece, for tokenizers that put a space before any text that they are given (Llama 2, Mistral).

    A piece is tokenized behind the special token, or else a line break, that it follows, and what stands for that is
    taken off again: so it gets the tokens that it has in the whole text.
    """
    special = added_tokens(tokenizer)
    befores = [before for row in rows for before in ("", *(_ending(segment.text, special) for segment in row[:-1]))]
    pieces = [segment.text for row in rows for segment in row]
    heads = {before: len(token_ids(tokenizer, [before])[0]) for before in set(befores)}
    ids = token_ids(tokenizer, [before + piece for before, piece in zip(befores, pieces, strict=True)])
    return [found[heads[before] :] for before, found in zip(befores, ids, strict=True)]


def _ending(text: str, special: Iterable[str]) -> str:
    return next((token for token in special if text.endswith(token)), "\n")
