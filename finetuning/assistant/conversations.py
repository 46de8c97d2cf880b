"""Makes the messages of a request a conversation that fits the model: as the exam renders it, oldest turns left out.

A turn is a question with all that follows it up to the next one; what the system says stays, wherever it stood.
"""

from typing import NamedTuple

from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.tokenization import token_ids
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.errors import FinetuningError
from finetuning.knowledge.passages import Passage


class BadRequest(FinetuningError):
    """What was asked cannot be answered, whoever asks again."""


class Prompt(NamedTuple):
    """The token ids that an answer follows, and how many turns did not fit."""

    ids: list[int]
    left_out_turns: int
    passages: tuple[Passage, ...] = ()
    """What the last question is asked with, where the model answers from documents: number 1 comes first."""


def prompt_of(renderer: Renderer, conversation: Conversation, room: int) -> Prompt:
    """Return the prompt of the conversation with as many of its newest turns as fit into `room` tokens.

    Raises:
        BadRequest: the last turn alone does not fit, or the chat template does not take these messages.
    """
    system, turns = turns_of(conversation.messages)
    fitting: list[int] = []
    ids: list[int] = []
    # Of turns to leave out: so few are too few, and so many are enough. From a likely number on, by ever longer steps.
    few, enough, step = -1, len(turns), 1
    tried = _likely(renderer, turns, room)
    while enough - few > 1:
        messages = without(tried, system, turns)
        try:
            ids = renderer.prompt(conversation._replace(messages=messages))
        except RowDropped as reason:
            raise BadRequest(f"messages: {reason}") from None
        if len(ids) <= room:
            fitting, enough = ids, tried
        else:
            few = tried
        tried = min(max((few + enough) // 2, tried - step), tried + step)
        step *= 2
    if fitting:
        return Prompt(fitting, enough)
    has_system = any(message["role"] == "system" for message in conversation.messages)
    raise BadRequest(
        f"messages: the last question alone{' and the system message' if has_system else ''} come to {len(ids):,} "
        f"tokens, and there is room for {room:,} beside the answer. Shorten it, or ask for fewer max_tokens."
    )


def _likely(renderer: Renderer, turns: list[list[Message]], room: int) -> int:
    """Return about how many turns do not fit, by what they say alone: to render many takes far longer than that."""
    said = 0
    for i in reversed(range(len(turns))):
        said += sum(map(len, token_ids(renderer.tokenizer, [message["content"] for message in turns[i]])))
        if said > room:
            return min(i + 1, len(turns) - 1)
    return 0


def without(oldest: int, system: list[Message], turns: list[list[Message]]) -> list[Message]:
    """Return the messages of a conversation without so many of its oldest turns.

    What the system says in these stays: it is joined to the system message, as many templates take only one.
    """
    kept = [message for turn in turns[oldest:] for message in turn]
    moved = [message for turn in turns[:oldest] for message in turn if message["role"] == "system"]
    if moved:
        said = "\n\n".join(message["content"] for message in [*system, *moved])
        system = [{"role": "system", "content": said}]
    return [*system, *kept]


def turns_of(messages: list[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Return the system messages that a conversation begins with, and its turns.

    Raises:
        BadRequest: it does not end with what an assistant answers, or there is nothing to answer.
    """
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        last = f"it ends with a message of {messages[-1]['role']}" if messages else "there is none"
        raise BadRequest(f"messages: an answer follows a message of user or tool, and {last}")
    system: list[Message] = []
    turns: list[list[Message]] = []
    for message in messages:
        if message["role"] == "user" and not (turns and turns[-1][-1]["role"] == "user"):
            turns.append([])
        if turns:
            turns[-1].append(message)
        elif message["role"] == "system":
            system.append(message)
        else:
            turns.append([message])
    return system, turns
