"""Gives a tokenizer its chat template, and says which token ends an answer."""

import re
from datetime import date
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetuning.chat.tokenization import added_tokens
from finetuning.chat.vocabulary import add_control_tokens, is_one_token
from finetuning.dataset.formats import Message, RowDropped
from finetuning.errors import FinetuningError
from finetuning.recipe.base_model import CHAT_TEMPLATES

# What templates that write the date (Llama 3) take for today, so that the same rows give the same tokens on any day.
TODAY = date(2024, 7, 26)
BOS = "{{- bos_token -}}\n"
# What looks like a control token in the text of a template.
MARK = re.compile(r"<\|[A-Za-z0-9_]+\|>")


def texts(
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[Message]],
    add_generation_prompt: bool = False,
    tools: list[Any] | None = None,
) -> list[str]:
    """Return each conversation as the chat template writes it.

    Raises:
        RowDropped: the template refuses one of them, as some do with a system message.
    """
    if not conversations:
        return []
    try:
        return tokenizer.apply_chat_template(  # pyright: ignore[reportReturnType] # a list in, a list out
            conversations,
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            strftime_now=TODAY.strftime,
        )
    except Exception as error:  # a template is a program, and stumbles over what it did not expect in its own ways
        raise RowDropped(f"the chat template refuses it: {' '.join(str(error).split())[:100]}") from error


def load_template(
    tokenizer: PreTrainedTokenizerBase, chat_template: str, where: str, rows: int | None = None
) -> dict[str, str]:
    """Set the recipe's chat template; return the control tokens that the tokenizer was given, and where each came from.

    Args:
        chat_template: `native`, the name of a file in `finetuning/chat_templates`, or the path of a `.jinja` file.
        where: the recipe's file.
        rows: of the model's embeddings; None where they are not known.

    Raises:
        FinetuningError: there is no such template, or no token of its own ends an answer.
    """
    where = f"{where}: base_model.chat_template"
    given: dict[str, str] = {}
    if chat_template == "native":
        _require_template(tokenizer, where)
        _begin_with_bos(tokenizer)
    else:
        text = _template_text(tokenizer, chat_template, where)
        tokens = _lacking_tokens(tokenizer, chat_template, text)
        given = add_control_tokens(tokenizer, tokens, text, rows) if tokens else {}
        tokenizer.chat_template = text
    try:
        stop_token(tokenizer)
    except FinetuningError as error:
        raise FinetuningError(f"{where}: {chat_template}: {error}") from error
    return given


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
    written = texts(tokenizer, [[{"role": "user", "content": "question"}]])[0]
    if bos_in_use(tokenizer) is not None and str(tokenizer.bos_token) not in written:
        tokenizer.chat_template = BOS + str(tokenizer.get_chat_template())


def bos_in_use(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that the tokenizer begins every text with, or None where there is none."""
    bos: Any = tokenizer.bos_token_id
    return bos if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else None


def _lacking_tokens(tokenizer: PreTrainedTokenizerBase, chat_template: str, text: str) -> list[str]:
    """Return the marks in the template's `text` that have to become tokens: ChatML's, and a file's if one ends answers.

    A file whose answers end in a token that is there may well mean its `<|user|>` as plain text, as Zephyr's does.
    """
    lacking = [mark for mark in dict.fromkeys(MARK.findall(text)) if not is_one_token(tokenizer, mark)]
    if not lacking or chat_template == "chatml":
        return lacking
    before, tokenizer.chat_template = tokenizer.chat_template, text
    try:
        return lacking if _after_answer(tokenizer).startswith(tuple(lacking)) else []
    except FinetuningError:
        return []
    finally:
        tokenizer.chat_template = before


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token that ends an answer: the one that the chat template puts after it.

    Raises:
        FinetuningError: the template puts no token of the vocabulary there, or has no prompt that an answer follows.
    """
    after = _after_answer(tokenizer)
    ids = added_tokens(tokenizer)
    stops = [token for token in ids if after.startswith(token)]
    if not stops:
        raise FinetuningError(
            f"it ends an answer with {after!r}, which does not begin with a token of its own, so that the model could "
            f"not learn to stop. Use chatml or instruction instead (eos_token is {tokenizer.eos_token!r})."
        )
    return ids[max(stops, key=len)]


def _after_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the chat template puts after an answer, from the first character that is not a space.

    Raises:
        FinetuningError: it refuses a question with its answer, or has no prompt that an answer follows.
    """
    question, answer = {"role": "user", "content": "question"}, {"role": "assistant", "content": "an answer"}
    try:
        prompt = texts(tokenizer, [[question]], add_generation_prompt=True)[0]
        text = texts(tokenizer, [[question, answer]])[0]
    except RowDropped as reason:
        raise FinetuningError(f"{reason}. Use chatml or instruction instead.") from reason
    if not text.startswith(prompt) or not text[len(prompt) :].lstrip().startswith(answer["content"]):
        raise FinetuningError(
            f"with add_generation_prompt it makes {prompt!r}, and the whole conversation is {text!r}: the answer must "
            "follow the prompt, with nothing between them. Use chatml or instruction instead."
        )
    return text[text.rindex(answer["content"]) + len(answer["content"]) :].lstrip()


def stop_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of the token that ends an answer."""
    return str(tokenizer.convert_ids_to_tokens(stop_token(tokenizer)))


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
        raise FinetuningError(f"{where}: {path} is not valid UTF-8. Convert it: iconv -f latin1 -t utf-8.") from error
    # A model that has always seen its first token at the start is lost without it; one that has not is led astray.
    return BOS + text if bos_in_use(tokenizer) is not None and path == shipped else text
