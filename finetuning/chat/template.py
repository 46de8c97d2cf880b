"""Gives a tokenizer its chat template, and says which token ends an answer."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from finetuning.chat.answers import answer_in
from finetuning.chat.template_settings import require_read, with_settings
from finetuning.chat.tokenization import added_tokens
from finetuning.chat.trial import bounded, require_bounded
from finetuning.chat.vocabulary import add_control_tokens, is_one_token
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import CHAT_TEMPLATES
from finetuning.secrets import masked

# Characters that a template may add to what the turns say, and how often it may repeat that.
LONGEST, MOST_TIMES = 500_000, 20
BOS = "{{- bos_token -}}\n"
INSTEAD = "Use chatml, chatml-tools or instruction instead."
# What looks like a control token in the text of a template.
TURNS: list[Message] = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
QUESTION_ALONE = TURNS[:1]
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}}
TRIALS = [(TURNS, None), ([{"role": "system", "content": "Add"}, *TURNS, *TURNS], None), (TURNS, [TOOL])]
CALL = {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"sum": "2 + 3"}}}
CALLING: list[Message] = [TURNS[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
RESULT: Message = {"role": "tool", "content": "5", "name": "add", "tool_call_id": "call00001"}
LAST_MARK = re.compile(r"<[^<>\s]+>$")
MARK = re.compile(r"<\|[A-Za-z0-9_]+\|>")


def texts(
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[Message]],
    add_generation_prompt: bool = False,
    tools: list[Any] | None = None,
) -> list[str]:
    """Return each conversation as the chat template writes it.

    Raises:
        RowDropped: the template refuses one of them, as some do with a system message, or writes far more than it says.
        FinetuningError: it does not end, or takes more memory than any text needs.
    """
    if not conversations:
        return []
    with bounded(len(conversations)):
        found = _rendered(tokenizer, conversations, add_generation_prompt, tools)
    said, longest = len(str(conversations)) + len(str(tools)), max(map(len, found))
    if longest > LONGEST + MOST_TIMES * said:
        raise RowDropped(f"the chat template makes {longest:,} characters of {said:,}")
    return found


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[Message]],
    add_generation_prompt: bool,
    tools: list[Any] | None,
) -> list[str]:
    try:
        return tokenizer.apply_chat_template(  # pyright: ignore[reportReturnType] # a list in, a list out
            conversations,
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (MemoryError, FinetuningError):
        raise
    except Exception as error:  # a template is a program, and stumbles over what it did not expect in its own ways
        raise RowDropped(f"the chat template refuses it: {masked(' '.join(str(error).split()))[:100]}") from error


def load_template(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    where: str,
    rows: int | None = None,
    template_kwargs: Mapping[str, JsonValue] | None = None,
) -> dict[str, str]:
    """Set the recipe's chat template; return the control tokens that the tokenizer was given, and where each came from.

    The template is given a fixed date, and its arguments as defaults: it makes the same of a conversation wherever it
    is used.

    Args:
        chat_template: `native`, the name of a file in `finetuning/chat_templates`, or the path of a `.jinja` file.
        where: the recipe's file.
        rows: of the model's embeddings; None where they are not known.
        template_kwargs: the recipe's `chat.template_kwargs`.

    Raises:
        FinetuningError: there is no such template, it does not read an argument, or no token of its own ends an answer.
    """
    file, where, template_kwargs = where, f"{where}: base_model.chat_template", template_kwargs or {}
    given: dict[str, str] = {}
    if chat_template == "native":
        _require_template(tokenizer, where)
        require_read(tokenizer.chat_template, template_kwargs, file)  # pyright: ignore[reportArgumentType]
        _change_template(tokenizer, lambda text: with_settings(text, template_kwargs))
        _try_out(tokenizer, tokenizer.chat_template, f"{where}: {chat_template}")
        try:
            _begin_with_bos(tokenizer)
        except RowDropped as reason:
            raise FinetuningError(f"{where}: native: {reason}. {INSTEAD}") from reason
    else:
        text = _template_text(tokenizer, chat_template, where)
        require_read(text, template_kwargs, file)
        text = with_settings(text, template_kwargs)
        _try_out(tokenizer, text, f"{where}: {chat_template}")
        tokens = _lacking_tokens(tokenizer, chat_template, text)
        given = add_control_tokens(tokenizer, tokens, text, rows) if tokens else {}
        tokenizer.chat_template = text
    try:
        stop_token(tokenizer)
    except FinetuningError as error:
        raise FinetuningError(f"{where}: {chat_template}: {error}") from error
    return given


def _try_out(tokenizer: PreTrainedTokenizerBase, template: Any, what: str) -> None:
    """Check that the template makes no more of a few short turns than it should, before any of it runs here.

    Raises:
        FinetuningError: it takes too much time or memory, or writes too much.
    """

    def render() -> int:
        tokenizer.chat_template = template
        return sum(_length_of(tokenizer, turns, tools) for turns, tools in TRIALS)

    require_bounded(render, what)


def _length_of(tokenizer: PreTrainedTokenizerBase, turns: list[Message], tools: list[Any] | None) -> int:
    """How many characters the template makes of a conversation, and of the prompt in it; 0 where it refuses it."""
    try:
        whole = _rendered(tokenizer, [turns], False, tools)
        return sum(map(len, whole + _rendered(tokenizer, [turns[:-1]], True, tools)))
    except RowDropped:
        return 0


def _require_template(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    if tokenizer.chat_template is None:
        raise FinetuningError(
            f"{where}: native, and the tokenizer has no chat template of its own (a base model, not a chat model). "
            "Write `chat_template: instruction`, which needs no new token, or `chat_template: chatml`, whose two are "
            "then trained with the adapter."
        )


def _begin_with_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a native template write the token that the tokenizer begins every text with, where it leaves it out.

    Zephyr's is one: where the template's text is tokenized as it stands, its model never saw a conversation like that.
    """
    written = texts(tokenizer, [QUESTION_ALONE], add_generation_prompt=True)[0]
    if bos_in_use(tokenizer) is not None and str(tokenizer.bos_token) not in written:
        _change_template(tokenizer, lambda text: BOS + text)


def _change_template(tokenizer: PreTrainedTokenizerBase, change: Callable[[str], str]) -> None:
    """Change the tokenizer's template, or each of those that it has by name."""
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {name: change(text) for name, text in template.items()}
    else:
        tokenizer.chat_template = change(str(template))


def bos_in_use(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that the tokenizer begins every text with, or None where there is none."""
    bos: Any = tokenizer.bos_token_id
    return bos if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else None


def _lacking_tokens(tokenizer: PreTrainedTokenizerBase, chat_template: str, text: str) -> list[str]:
    """Return the marks in the template's `text` that have to become tokens: ChatML's, and a file's if one ends answers.

    A file whose answers end in a token that is there may well mean its `<|user|>` as plain text, as Zephyr's does.
    """
    lacking = [mark for mark in dict.fromkeys(MARK.findall(text)) if not is_one_token(tokenizer, mark)]
    if not lacking or chat_template in ("chatml", "chatml-tools"):
        return lacking
    before, tokenizer.chat_template = tokenizer.chat_template, text
    try:
        return lacking if _after_answer(tokenizer).startswith(tuple(lacking)) else []
    except FinetuningError:
        return []
    finally:
        tokenizer.chat_template = before


class Stops(NamedTuple):
    """The texts of the tokens that end an answer, and a call of tools; and whether the template writes them itself.

    Where it does not, as GLM's, the token that begins the next turn ends the one before.
    """

    answer: str
    call: str
    written: bool


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token that ends an answer: the one that the chat template puts after it.

    Raises:
        FinetuningError: the template puts no token of the vocabulary there, or has no prompt that an answer follows.
    """
    return added_tokens(tokenizer)[stop_text(tokenizer)]


def stop_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of the token that ends an answer.

    Raises:
        FinetuningError: as `stop_token`.
    """
    return stops_of(tokenizer).answer


def stops_of(tokenizer: PreTrainedTokenizerBase) -> Stops:
    """Return the tokens that end what the model says.

    Raises:
        FinetuningError: as `stop_token`.
    """
    after = _after_answer(tokenizer)
    stop = _token_at_start(tokenizer, after)
    written = bool(after)
    if not written:
        stop = _token_at_start(tokenizer, _between(tokenizer, TURNS, [*TURNS, QUESTION_ALONE[0]]))
    if stop is None:
        raise FinetuningError(
            f"it ends an answer with {after!r}, which does not begin with a token of its own, so that the model could "
            f"not learn to stop. {INSTEAD} Its eos_token is {tokenizer.eos_token!r}."
        )
    return Stops(stop, _call_stop(tokenizer, stop, written) or stop, written)


def _call_stop(tokenizer: PreTrainedTokenizerBase, stop: str, written: bool) -> str | None:
    """Return the token that ends a call of tools; None where the template has none of its own for that."""
    for calling in (CALLING, with_text_arguments(CALLING)):
        try:
            if not written:
                return _token_at_start(tokenizer, _between(tokenizer, calling, [*calling, RESULT], [TOOL]))
            prompt = texts(tokenizer, [QUESTION_ALONE], add_generation_prompt=True, tools=[TOOL])[0]
            called = answer_in(prompt, texts(tokenizer, [calling], tools=[TOOL])[0])
        except RowDropped:
            continue
        if called is None or stop in called:
            return None
        ends = [token for token in added_tokens(tokenizer) if called.rstrip().endswith(token)]
        return max(ends, key=len) if ends else None
    return None


def with_text_arguments(messages: list[Message]) -> list[Message]:
    """Return the messages with the arguments of each call as JSON text, which some templates want."""
    return [
        message
        if "tool_calls" not in message
        else message | {"tool_calls": [_with_text_arguments(call) for call in message["tool_calls"]]}
        for message in messages
    ]


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return call | {"function": function | {"arguments": text}}


def _between(
    tokenizer: PreTrainedTokenizerBase, before: list[Message], after: list[Message], tools: list[Any] | None = None
) -> str:
    """Return what the template adds to a conversation for its next turn."""
    first, second = texts(tokenizer, [before], tools=tools)[0], texts(tokenizer, [after], tools=tools)[0]
    return second.removeprefix(first) if second.startswith(first) else ""


def _token_at_start(tokenizer: PreTrainedTokenizerBase, text: str) -> str | None:
    found = [token for token in added_tokens(tokenizer) if text.lstrip().startswith(token)]
    return max(found, key=len) if found else None


def before_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the last mark that a model writes before the answer itself: `</think>`, `<|message|>`, or nothing.

    Raises:
        FinetuningError: as `stop_token`.
    """
    found = LAST_MARK.search(_around_answer(tokenizer)[0])
    return found[0] if found else ""


def _after_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the chat template puts after an answer, from the first character that is not a space.

    Raises:
        FinetuningError: it refuses a question with its answer, or has no prompt that an answer follows.
    """
    return _around_answer(tokenizer)[1]


def _around_answer(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what stands between the generation prompt and an answer, and after it, without space around it."""
    question, answer = {"role": "user", "content": "question"}, {"role": "assistant", "content": "an answer"}
    try:
        prompt = texts(tokenizer, [[question]], add_generation_prompt=True)[0]
        text = texts(tokenizer, [[question, answer]])[0]
    except RowDropped as reason:
        raise FinetuningError(f"{reason}. {INSTEAD}") from reason
    said = answer_in(prompt, text)
    before = said.partition(answer["content"])[0].strip() if said else ""
    has_prompt = not before or prompt != texts(tokenizer, [[question]])[0]
    if said is None or answer["content"] not in said or not has_prompt:
        raise FinetuningError(
            f"with add_generation_prompt it makes {prompt!r}, and the whole conversation is {text!r}: the answer must "
            f"follow the prompt. {INSTEAD}"
        )
    return before, said[said.rindex(answer["content"]) + len(answer["content"]) :].lstrip()


def _template_text(tokenizer: PreTrainedTokenizerBase, chat_template: str, where: str) -> str:
    shipped = CHAT_TEMPLATES / f"{chat_template}.jinja"
    path = shipped if shipped.is_file() else Path(chat_template).expanduser()
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in CHAT_TEMPLATES.glob("*.jinja")))
        raise FinetuningError(
            f"{where}: {chat_template!r} is not a file (looked in {Path.cwd()}), nor one of native, {names}."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FinetuningError(f"{where}: {path} is not valid UTF-8. Convert it by iconv.") from error
    # A model that has always seen its first token at the start is lost without it; one that has not is led astray.
    return BOS + text if bos_in_use(tokenizer) is not None and path == shipped else text
