"""What there is to know of rows that are more or less than a conversation to be learned: judged answers, and text.

{"prompt": "2 + 3?", "completion": "6", "label": false} -> that its answer is bad
{"text": "### Human: 2 + 3?### Assistant: 5"} -> that it looks like a conversation
"""

import re

from pydantic import JsonValue

from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_columns import ignored_by
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.recipe.source import SourceSpec

# Of the one message of a row of text; no chat template knows it.
TEXT_ROLE = "text"
# What begins a turn where a conversation was written as text, in the words of Guanaco, Alpaca, Vicuna and of templates.
TURN = re.compile(
    r"###\s*(?:human|assistant|instruction|response|user|system)\b|^\s*(?:human|user|assistant|gpt|q|a)\s*:"
    r"|<\|(?:im_start|start_header_id|user|assistant|system)\|>|<start_of_turn>|\[/?INST\]",
    re.IGNORECASE | re.MULTILINE,
)


def judgement_of(row: JsonRow, source: SourceSpec) -> bool:
    """Whether the answer in a row of `unpaired-preference` was judged good.

    Raises:
        RowDropped: the row holds no judgement.

    >>> judgement_of({"good": 1}, SourceSpec(files=["x.jsonl"], columns={"label": "good"}))
    True
    """
    column = source.columns.get("label", "label")
    if column not in row:
        raise RowDropped("a column is missing", column)
    found = judgement(row[column])
    if found is None:
        raise RowDropped("a label that is neither true nor false", column)
    return found


def is_judged(first_row: JsonRow, source: SourceSpec) -> bool:
    """Whether a row has a label that judges, and the recipe does not ignore it.

    >>> is_judged({"prompt": "2 + 3?", "completion": "6", "label": 0}, SourceSpec(files=["x.jsonl"]))
    True
    >>> is_judged({"prompt": "2 + 3?", "completion": "6", "label": 0}, SourceSpec(files=["x.jsonl"], ignore=["label"]))
    False
    """
    column = source.columns.get("label", "label")
    return column.casefold() not in ignored_by(source) and judgement(first_row.get(column)) is not None


def judgement(label: JsonValue) -> bool | None:
    """What a label says of an answer: true or false, 1 or 0 or -1, or either as text; None where it says neither.

    >>> [judgement(label) for label in (True, 0, -1, 1.0, "False", "good", None)]
    [True, False, False, True, False, None, None]
    """
    text = str(int(label) if isinstance(label, float) and label.is_integer() else label).strip().lower()
    return {"true": True, "1": True, "false": False, "0": False, "-1": False}.get(text)


def is_text(messages: list[Message]) -> bool:
    """Whether these are no conversation, but a row of text."""
    return messages[0]["role"] == TEXT_ROLE


def looks_like_turns(text: str) -> bool:
    """Whether a text seems to be a conversation that was written out: with two or more beginnings of turns.

    >>> [looks_like_turns(text) for text in ("### Human: 2 + 3?### Assistant: 5", "A: one thing", "It rained.")]
    [True, False, False]
    """
    return len(TURN.findall(text)) > 1
