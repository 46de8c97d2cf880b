"""What a chat template has a place for, beside the text of turns: found by trying it out once."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from finetuning.chat.answers import OPENED, split_thought
from finetuning.chat.template import CALLING, QUESTION_ALONE, TOOL, TURNS, texts, with_text_arguments
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message

REASONING = "first this, then that"
WITH_PLACE = "base_model.chat_template: chatml-tools writes it"
NO_REASONING = (
    f"the chat template has no place for reasoning_content ({WITH_PLACE}, or write it into content: <think>…</think>)"
)
NO_TOOLS = "the chat template has no tools (base_model.chat_template: chatml-tools writes them)"
TOOLS_TWICE = (
    "the tools stand in the system turn (<tools>) and in the column tools, which the chat template writes as well: "
    "write ignore: [tools] for the source, or take them out of the text"
)
TWO_THOUGHTS = "a thought in reasoning_content and another one in the text (<think>…</think>): leave one of them out"


class Abilities(NamedTuple):
    """Whether a template writes what was thought before an answer, calls whose arguments are text, and tools at all."""

    reasoning: bool
    text_arguments: bool
    tools: bool


def abilities_of(tokenizer: PreTrainedTokenizerBase) -> Abilities:
    """Try out what the tokenizer's chat template does with reasoning and with calls of tools."""
    return Abilities(_writes_reasoning(tokenizer), _wants_text_arguments(tokenizer), _writes_tools(tokenizer))


def require_tools(messages: list[Message], tools: list[Any] | None, abilities: Abilities) -> None:
    """Check that the template has a place for the tools of a conversation, and that they stand in it once.

    Raises:
        RowDropped: it has none, or the system turn spells them out as well.
    """
    if not abilities.tools and (tools or any("tool_calls" in m or m["role"] == "tool" for m in messages)):
        raise RowDropped(NO_TOOLS, "tools" if tools else "")
    for message in messages if tools else []:
        spelled_out = message["content"].partition("<tools>")[2]
        if message["role"] == "system" and any(name in spelled_out for name in _names(tools or [])):
            raise RowDropped(TOOLS_TWICE, "tools")


def as_the_template_takes_them(messages: list[Message], abilities: Abilities) -> list[Message]:
    """Return the messages with the keys that a template knows, each value in the form that this one wants.

    What was thought stands in `reasoning_content`, also where the data have it in the text, in `<think>…</think>`. For
    a template without a place for it, such a text stays as it is.

    Raises:
        RowDropped: something was thought and the template has no place for it, or it stands in the text as well.
    """
    if all(len(message) == 2 for message in messages) and not abilities.reasoning:
        return messages
    found = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            message = {key: value for key, value in message.items() if key != "train"}
            if "reasoning_content" in message and not abilities.reasoning:
                raise RowDropped(NO_REASONING, f"turn {i}")
            thought, said = split_thought(message["content"]) if abilities.reasoning else ("", "")
            if thought and message.get("reasoning_content", thought).strip() != thought:
                raise RowDropped(TWO_THOUGHTS, f"turn {i}")
            if thought:
                message |= {"content": said, "reasoning_content": thought}
        found.append(message)
    return with_text_arguments(found) if abilities.text_arguments else found


def _writes_reasoning(tokenizer: PreTrainedTokenizerBase) -> bool:
    thought: Message = {"role": "assistant", "content": "5", "reasoning_content": REASONING}
    try:
        prompt = texts(tokenizer, [QUESTION_ALONE], add_generation_prompt=True)[0]
        return bool(OPENED.search(prompt)) or REASONING in texts(tokenizer, [[*QUESTION_ALONE, thought]])[0]
    except RowDropped:
        return False


def _writes_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes schemas or calls of tools; also where it refuses what it is tried out with."""
    asked = [CALLING[0], {"role": "assistant", "content": ""}]
    try:
        plain, offered = (texts(tokenizer, [TURNS], tools=tools)[0] for tools in (None, [TOOL]))
        if plain != offered:
            return True
        without = texts(tokenizer, [asked])[0]
    except RowDropped:
        return True
    for calling in (CALLING, with_text_arguments(CALLING)):
        try:
            return texts(tokenizer, [calling])[0] != without
        except RowDropped:
            continue
    return True


def _names(tools: list[Any]) -> Iterator[str]:
    """Yield the names of tools that have one, as schemas and as functions alone."""
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(function, dict) and isinstance(name := function.get("name"), str) and name:
            yield name


def _wants_text_arguments(tokenizer: PreTrainedTokenizerBase) -> bool:
    for as_text, calling in enumerate((CALLING, with_text_arguments(CALLING))):
        try:
            texts(tokenizer, [calling], tools=[TOOL])
            return bool(as_text)
        except RowDropped:
            continue
    return False
