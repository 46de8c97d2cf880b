"""Makes token ids and labels of conversations, by the base model's chat template.

[{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]
-> <|im_start|>user\\n2 + 3?<|im_end|>\\n<|im_start|>assistant\\n5<|im_end|>\\n
   of which "5<|im_end|>" is supervised: the answer and the stop token, nothing else
"""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from finetuning.errors import FinetuningError
from finetuning.formats import Message, RowDropped
from finetuning.recipe import CHAT_TEMPLATES, ChatSpec, Recipe
from finetuning.rendering import NOT_SUPERVISED, Rendered, Segment, added_tokens, encode, segments, texts, token_ids
from finetuning.splits import Conversation, Dropped, split_conversations

BATCH_ROWS = 1_000
HISTOGRAM_BINS = 20
PREVIEW_CONVERSATIONS = 3
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("place", pa.string()),
    ]
)


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


def render(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Rendered:
    """The token ids of a whole conversation, and labels for each answer and the stop token after it.

    Raises:
        RowDropped: the template does not take these messages, or one of them holds the stop token.
        FinetuningError: the template changes what went before when a turn is added.
    """
    return encode(tokenizer, segments(tokenizer, [messages], _stop_text(tokenizer)))[0]


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """The token ids that an answer to `messages` follows: the very ones that precede it in training."""
    answered = [*messages, {"role": "assistant", "content": "an answer"}]
    found = segments(tokenizer, [answered], _stop_text(tokenizer))[0]
    last = max(i for i, segment in enumerate(found) if segment.supervised)
    return encode(tokenizer, [found[:last]])[0].input_ids


def write_chat(raw_folder: Path, folder: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `folder` then holds: `train.parquet`, `eval.parquet` and `tokenizer/`, counted and shown.

    Every row of `raw_folder` is in train, in eval, or counted in `dropped` with a reason. `lengths` are in tokens;
    their `max` is that of the longest row before any was dropped or cut.

    Args:
        tokenizer: with its chat template set (`load_template`).

    Raises:
        FinetuningError: too many rows are longer than `chat.max_length`, or a split is empty.
    """
    where = recipe.file
    folder.mkdir(parents=True, exist_ok=True)
    split = split_conversations(raw_folder, recipe.dataset)
    train, evaluation = (
        _write(folder / f"{name}.parquet", rows, tokenizer, recipe.chat, split.dropped, where)
        for name, rows in (("train", split.train), ("eval", split.eval))
    )
    lengths = train.lengths | evaluation.lengths
    _check_lengths(lengths, recipe.chat, where)
    for name, written in (("train", train), ("eval", evaluation)):
        if not written.rows:
            raise FinetuningError(f"{where}: dataset: the {name} split is empty. {_what_became(split.dropped)}")
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "train_rows": train.rows,
        "eval_rows": evaluation.rows,
        "dropped": split.dropped.records(),
        "truncated": train.truncated + evaluation.truncated,
        "tokens": sum(train.kept_lengths),
        "supervised_tokens": train.supervised_tokens,
        "stop_token": _stop_text(tokenizer),
        "lengths": {"train": _histogram(train.kept_lengths), "max": max(lengths.values())},
        "preview": [_preview(tokenizer, rendered) for rendered in train.first],
    }


@dataclass
class _Written:
    """What went into the file of one split."""

    lengths: dict[str, int] = field(default_factory=dict)  # tokens, by place, of every row before any limit
    kept_lengths: list[int] = field(default_factory=list)
    supervised_tokens: int = 0
    truncated: int = 0
    first: list[Rendered] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.kept_lengths)

    def add(self, rendered: Rendered) -> None:
        self.kept_lengths.append(len(rendered.input_ids))
        self.supervised_tokens += len(rendered.labels) - rendered.labels.count(NOT_SUPERVISED)
        if len(self.first) < PREVIEW_CONVERSATIONS:
            self.first.append(rendered)


def _write(
    path: Path,
    conversations: list[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    chat: ChatSpec,
    dropped: Dropped,
    where: str,
) -> _Written:
    written = _Written()
    stop = _stop_text(tokenizer)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, len(conversations), BATCH_ROWS):
            batch = [(row.place, row.messages) for row in conversations[start : start + BATCH_ROWS]]
            taken = _pieces(tokenizer, batch, stop, dropped, where)
            records = []
            encoded = encode(tokenizer, [pieces for _, _, pieces in taken])
            for (place, messages, _), whole in zip(taken, encoded, strict=True):
                written.lengths[place] = len(whole.input_ids)
                try:
                    rendered = _limited(whole, chat)
                except RowDropped as reason:
                    dropped.add(str(reason), place)
                    continue
                written.truncated += rendered is not whole
                written.add(rendered)
                records.append({"messages": messages, **rendered._asdict(), "place": place})
            writer.write_table(pa.Table.from_pylist(records, SCHEMA))
    return written


def _pieces(
    tokenizer: PreTrainedTokenizerBase, batch: list[tuple[str, list[Message]]], stop: str, dropped: Dropped, where: str
) -> list[tuple[str, list[Message], list[Segment]]]:
    """The rows of `batch` (place and messages) that the template takes, with their pieces."""
    try:
        found = segments(tokenizer, [messages for _, messages in batch], stop)
    except (RowDropped, FinetuningError) as error:
        if len(batch) > 1:  # alone, each of them tells whether it was the one
            return [taken for row in batch for taken in _pieces(tokenizer, [row], stop, dropped, where)]
        place = batch[0][0]
        if isinstance(error, FinetuningError):
            raise FinetuningError(f"{where}: base_model.chat_template: {place}: {error}") from error
        dropped.add(str(error), place)
        return []
    return [(place, messages, pieces) for (place, messages), pieces in zip(batch, found, strict=True)]


def _limited(rendered: Rendered, chat: ChatSpec) -> Rendered:
    if len(rendered.input_ids) <= chat.max_length:
        return rendered
    if chat.over_length != "truncate":
        raise RowDropped(f"longer than {chat.max_length} tokens")
    cut = Rendered(rendered.input_ids[: chat.max_length], rendered.labels[: chat.max_length])
    if cut.labels.count(NOT_SUPERVISED) == len(cut.labels):
        raise RowDropped(f"no answer within the first {chat.max_length} tokens")
    return cut


def _check_lengths(lengths: dict[str, int], chat: ChatSpec, where: str) -> None:
    over = sum(length > chat.max_length for length in lengths.values())
    tolerance = 0.0 if chat.over_length == "error" else chat.tolerance
    if over <= tolerance * len(lengths):
        return
    place, longest = max(lengths.items(), key=lambda item: item[1])
    ranked = sorted(lengths.values(), reverse=True)
    enough = ranked[int(tolerance * len(ranked))]
    raise FinetuningError(
        f"{where}: chat.max_length: {over} of {len(lengths)} rows ({over / len(lengths):.1%}) are longer than "
        f"{chat.max_length} tokens, and {tolerance:.1%} may be. The longest is {place} with {longest}. Write "
        f"`max_length: {longest}`, which holds them all"
        + (f", or `max_length: {enough}`, which holds enough of them" if enough < longest else "")
        + (", or `over_length: drop`" if chat.over_length == "error" else ", or a higher `tolerance`")
        + "."
    )


def _what_became(dropped: Dropped) -> str:
    records = [f"{r['rows']} rows were dropped: {r['reason']} (such as {r['example']})" for r in dropped.records()]
    return "; ".join(records[:5]) + "." if records else "No row was dropped: the sources have too few."


def _histogram(lengths: list[int]) -> dict[str, list[int]]:
    """At most HISTOGRAM_BINS counts of lengths and, one more, the edges between them; all bins equally wide."""
    low, high = min(lengths), max(lengths) + 1
    width = -(-(high - low) // HISTOGRAM_BINS)
    counts, edges = np.histogram(lengths, bins=np.arange(low, high + width, width))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _preview(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[dict[str, Any]]:
    pairs = zip(*rendered, strict=True)
    return [
        {"text": tokenizer.decode([token for token, _ in part]), "supervised": supervised}
        for supervised, part in groupby(pairs, key=lambda pair: pair[1] != NOT_SUPERVISED)
    ]


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


def _stop_text(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.convert_ids_to_tokens(stop_token(tokenizer)))
