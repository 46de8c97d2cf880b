"""The text that a chat template makes of a conversation, divided into prompts and answers.

[user: 2 + 3?, assistant: 5] -> "<|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n", "5<|im_end|>", "\\n"
"""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from finetuning.chat.template import texts
from finetuning.dataset.formats import Message, RowDropped
from finetuning.errors import FinetuningError


class Conversation(NamedTuple):
    """The turns of a conversation, and the tools that are offered in it."""

    messages: list[Message]
    tools: list[JsonValue] | None = None


class Segment(NamedTuple):
    """A piece of a rendered conversation: a prompt, an answer with its stop token, or what follows the last one."""

    text: str
    supervised: bool


def roles_of(conversation: Conversation) -> tuple[str, ...]:
    """Return who speaks in each turn."""
    return tuple([message["role"] for message in conversation.messages])


def is_plain(conversation: Conversation) -> bool:
    """Whether no tools are offered, and no turn has more than a role and a content."""
    return conversation.tools is None and all(len(message) == 2 for message in conversation.messages)


def texts_of(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[str | RowDropped]:
    """Return what the chat template makes of each conversation, or why it refuses it."""
    if len(conversations) > 1 and not any(conversation.tools for conversation in conversations):
        try:
            return list(texts(tokenizer, [conversation.messages for conversation in conversations]))
        except RowDropped:
            pass  # one by one, each of them tells whether it was the one
    found: list[str | RowDropped] = []
    for messages, tools in conversations:
        try:
            found += texts(tokenizer, [messages], tools=tools)
        except RowDropped as reason:
            found.append(reason)
    return found


def segments(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, stop: str) -> list[Segment]:
    """Divide the rendered conversation: prompt, answer with the `stop` token, prompt, answer, …, the rest.

    An answer is what the template adds to the prompt (with `add_generation_prompt`) when it is given the answer too.

    Raises:
        RowDropped: the template refuses the conversation.
        FinetuningError: the template changes what went before when a turn is added.
    """
    messages, tools = conversation
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = texts(tokenizer, [messages[:turn] for turn in turns], add_generation_prompt=True, tools=tools)
    whole = texts(tokenizer, [messages[: turn + 1] for turn in turns], tools=tools)
    found: list[Segment] = []
    before, end = "", 0
    for prompt, text in zip(prompts, whole, strict=True):
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
    pieces = [text[shown].replace("\ue000", "<").replace("\ue001", ">") for text in (before, after)]
    return FinetuningError(
        f"the template is not prefix-stable: {pieces[0]!r} becomes {pieces[1]!r} when the next turn is added, "
        "so that prompt and answer cannot be told apart. Use chatml or instruction instead."
    )
