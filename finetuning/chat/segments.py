"""The text that a chat template makes of a conversation, divided into prompts and answers.

[user: 2 + 3?, assistant: 5] -> "<|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n", "5<|im_end|>", "\\n"
"""

import re
from collections.abc import Sequence
from os.path import commonprefix
from typing import NamedTuple, Protocol

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from finetuning.chat.abilities import WITH_PLACE
from finetuning.chat.answers import answer_in, split_thought, without_thought
from finetuning.chat.template import Stops, texts
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.secrets import masked
from finetuning.tokens import ANSWER, OTHER, THOUGHT

# Stands for another answer; private use, in no text that is read.
OTHER_ANSWER = "\ue002answer\ue003"
# What a template writes around turns.
MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,40}\]")


class Render(Protocol):
    """Makes the text of the turns up to a number of them, as a whole conversation or as a prompt."""

    def __call__(self, turns: int, as_prompt: bool, last: Message | None = None) -> str:
        """Return the text, with `last` in place of the last of these turns."""
        ...


class Conversation(NamedTuple):
    """The turns of a conversation, and the tools that are offered in it."""

    messages: list[Message]
    tools: list[JsonValue] | None = None


class Segment(NamedTuple):
    """A piece of a rendered conversation: a prompt, (a part of) an answer with its stop token, or what follows."""

    text: str
    kind: int
    is_prompt: bool


class Written(NamedTuple):
    """One text to learn from: the first turns of a conversation, with the answers that are learned in it."""

    turns: int
    segments: list[Segment]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(segment.text for segment in self.segments)


class Answer(NamedTuple):
    """An answer, what it follows and what follows it, as it is when it is given."""

    turn: int
    prompt: str
    said: str
    rest: str
    thought: str


def roles_of(conversation: Conversation) -> tuple[str, ...]:
    """Return who speaks in each turn."""
    return tuple([message["role"] for message in conversation.messages])


def learned_turns(conversation: Conversation) -> tuple[int, ...]:
    """Return the numbers of the assistant's turns that are to be learned."""
    turns = enumerate(conversation.messages)
    return tuple([i for i, m in turns if m["role"] == "assistant" and m.get("train") is not False])


def is_plain(conversation: Conversation) -> bool:
    """Whether no tools are offered, and no turn has more for the template than a role and a content."""
    return conversation.tools is None and all(len(m) - ("train" in m) == 2 for m in conversation.messages)


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


def rendering_of(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Render:
    """Return what renders the first turns of a conversation."""

    def render(turns: int, as_prompt: bool, last: Message | None = None) -> str:
        messages, tools = conversation.messages[:turns], conversation.tools
        messages = [*messages[:-1], last] if last else messages
        return texts(tokenizer, [messages], add_generation_prompt=as_prompt, tools=tools)[0]

    return render


def written(
    messages: list[Message], learned: Sequence[int], render: Render, stops: Stops, learn_reasoning: bool = True
) -> list[Written]:
    """Divide what the template makes of a conversation into texts, so that each learned answer is in one of them.

    An answer is what follows the generation prompt. There is one text, but where the template changes earlier turns
    when a turn is added: an answer that does not stand in the whole text as it was given is in a text that ends with
    it.

    Args:
        messages: as the template takes them.
        learned: numbers of the turns whose answers are learned.

    Raises:
        RowDropped: the template refuses the conversation, an answer cannot be told apart, or none is to be learned.
    """
    if not learned:
        raise RowDropped("no answer in it is to be learned (train: false, or a weight of 0)")
    answers = [_answer(messages, turn, render, stops) for turn in learned]
    pending, found = list(answers), []
    while pending:
        last = pending.pop()
        text = last.prompt + last.said
        standing = [a for a in answers if a.turn < last.turn and text.startswith(a.prompt + a.said)]
        segments: list[Segment] = []
        end = 0
        for answer in [*standing, last]:
            if len(answer.prompt) < end:
                continue  # a prompt begins before the answer of another one ends
            segments.append(Segment(text[end : len(answer.prompt)], OTHER, True))
            is_learned = answer is last or answer in pending
            segments += _said(answer, learn_reasoning) if is_learned else [Segment(answer.said, OTHER, False)]
            end = len(answer.prompt) + len(answer.said)
            if is_learned and answer is not last:
                pending.remove(answer)
        if last.rest:
            segments.append(Segment(last.rest, OTHER, True))
        found.append(Written(last.turn + 1, segments))
    return found[::-1]


def _answer(messages: list[Message], turn: int, render: Render, stops: Stops) -> Answer:
    message = messages[turn]
    thought = str(message.get("reasoning_content", ""))
    prompt = render(turn, True)
    whole = render(turn + 1, False)
    said = answer_in(prompt, whole, thought)
    if said is None:
        said = _said_behind_changes(turn, render, prompt, whole, thought)
    if said is None:
        why = _otherwise(messages[: turn + 1], prompt, whole)
        raise RowDropped(
            f"the chat template does not write this answer as what follows its prompt ({why}{WITH_PLACE})",
            f"turn {turn}",
        )
    if thought.strip() and thought.strip() not in said:
        raise RowDropped(f"the chat template leaves out the reasoning_content ({WITH_PLACE})", f"turn {turn}")
    stop = stops.call if message.get("tool_calls") else stops.answer
    found = [end for end in (stop, stops.answer) if end in said]
    if found:
        end = said.rindex(found[0]) + len(found[0])
        return Answer(turn, prompt, said[:end], said[end:], thought)
    if stops.written:
        raise RowDropped(f"the chat template does not end the answer with {stop}", f"turn {turn}")
    return Answer(turn, prompt, said + stop, "", thought)


def _otherwise(messages: list[Message], prompt: str, whole: str) -> str:
    """Say where prompt and conversation part, by the marks of the template; nothing where there are none."""
    same = len(commonprefix([prompt, whole]))  # noqa: RUF071 (character by character is what is meant)
    opened = prompt.rfind("<", 0, same)
    begin = opened if opened > prompt.rfind(">", 0, same) else same
    asked, said = (MARK.match(text[begin:].lstrip()) for text in (prompt, whole))
    if not (asked and said):
        return ""
    found = f"{masked(said[0])} where its prompt has {masked(asked[0])}"
    if sum("tool_calls" in message for message in messages) > 1 and "tool_calls" in messages[-1]:
        return f"it begins a second call of tools with {found}: end the row before that call, or "
    return f"it writes {found}; "


def _said_behind_changes(turn: int, render: Render, prompt: str, whole: str, thought: str) -> str | None:
    """Return the answer in `whole`, where the template changes earlier turns as soon as any answer is there.

    gpt-oss leaves out what was thought before a call once the answer is given: the prompt of that answer still has it.
    None where the template does something else, such as to write an answer in two places.
    """
    try:
        asked, other = render(turn, False), render(turn + 1, False, {"role": "assistant", "content": OTHER_ANSWER})
    except RowDropped:
        return None
    if not prompt.startswith(asked) or answer_in(prompt, other) is not None or other.count(OTHER_ANSWER) != 1:
        return None
    same = commonprefix([whole, other])  # noqa: RUF071 (character by character is what is meant)
    begin = prompt[len(asked) :]
    found = same.rfind(without_thought(begin))
    if found < 0 or not (begin or other.startswith(OTHER_ANSWER, len(same))):
        return None
    return answer_in(same[:found] + begin, whole, thought)


def _said(answer: Answer, learn_reasoning: bool) -> list[Segment]:
    """Return the answer as segments: one, or three where what was thought is in it and is not learned."""
    thought = answer.thought.strip() or split_thought(answer.said)[0]
    if learn_reasoning or not thought:
        return [Segment(answer.said, ANSWER, False)]
    before, _, after = answer.said.partition(thought)
    parts = ((before, ANSWER), (thought, THOUGHT), (after, ANSWER))
    return [Segment(text, kind, False) for text, kind in parts if text]
