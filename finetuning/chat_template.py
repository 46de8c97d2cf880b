"""Gives a tokenizer its chat template, and says which token ends an answer."""

from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from finetuning.errors import FinetuningError
from finetuning.formats import Message, RowDropped
from finetuning.recipe import CHAT_TEMPLATES
from finetuning.tokenization import added_tokens, token_ids


def texts(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]], add_generation_prompt: bool = False
) -> list[str]:
    """Each conversation as the chat template writes it.

    Raises:
        RowDropped: the template refuses one of them, as some do with a system message.
    """
    if not conversations:
        return []
    try:
        return tokenizer.apply_chat_template(  # pyright: ignore[reportReturnType] # a list in, a list out
            conversations, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise RowDropped(f"the chat template refuses it: {' '.join(str(error).split())[:100]}") from error


def load_template(tokenizer: PreTrainedTokenizerBase, chat_template: str, where: str) -> None:
    """Nothing; the tokenizer then has the chat template that the recipe names.

    Args:
        chat_template: `native`, the name of a file in `finetuning/chat_templates`, or the path of a `.jinja` file.
        where: the recipe's file.

    Raises:
        FinetuningError: there is no such template, the vocabulary lacks a token that it needs, or it has no stop token.
    """
    where = f"{where}: base_model.chat_template"
    if chat_template == "native" and tokenizer.chat_template is None:
        raise FinetuningError(
            f"{where}: native, and the tokenizer has no chat template of its own (a base model, not a chat model). "
            "Write `chat_template: instruction`, which needs no new token."
        )
    if chat_template == "chatml":
        missing = [token for token in ("<|im_start|>", "<|im_end|>") if not _is_one_token(tokenizer, token)]
        if missing:
            raise FinetuningError(
                f"{where}: chatml needs {' and '.join(missing)}, which the tokenizer's vocabulary does not have, and "
                "an adapter adds no tokens. Write `chat_template: instruction`, which needs none."
            )
    if chat_template != "native":
        tokenizer.chat_template = _template_text(tokenizer, chat_template, where)
    try:
        stop_token(tokenizer)
    except FinetuningError as error:
        raise FinetuningError(f"{where}: {chat_template}: {error}") from error


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends an answer: the one that the chat template puts after it.

    Raises:
        FinetuningError: the template puts no token of the vocabulary there, or has no prompt that an answer follows.
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
    after = text[text.rindex(answer["content"]) + len(answer["content"]) :].lstrip()
    ids = added_tokens(tokenizer)
    stops = [token for token in ids if after.startswith(token)]
    if not stops:
        raise FinetuningError(
            f"it ends an answer with {after!r}, which does not begin with a token of its own, so that the model could "
            f"not learn to stop. Use chatml or instruction instead (eos_token is {tokenizer.eos_token!r})."
        )
    return ids[max(stops, key=len)]


def stop_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the token that ends an answer."""
    return str(tokenizer.convert_ids_to_tokens(stop_token(tokenizer)))


def _template_text(tokenizer: PreTrainedTokenizerBase, chat_template: str, where: str) -> str:
    shipped = CHAT_TEMPLATES / f"{chat_template}.jinja"
    path = shipped if shipped.is_file() else Path(chat_template).expanduser()
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in CHAT_TEMPLATES.glob("*.jinja")))
        raise FinetuningError(
            f"{where}: {chat_template!r} is no file (looked in {Path.cwd()}), nor one of native, {names}."
        )
    text = path.read_text(encoding="utf-8")
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    # A model that has always seen its first token at the start is lost without it; one that has not is led astray.
    return "{{- bos_token -}}\n" + text if begins and path == shipped else text


def _is_one_token(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    ids = token_ids(tokenizer, [token])[0]
    return len(ids) == 1 and tokenizer.convert_ids_to_tokens(ids[0]) == token
