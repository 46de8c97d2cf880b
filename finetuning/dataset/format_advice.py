"""What to write for rows whose columns no format has: the format that is nearest, and `columns` that loses nothing.

["Problem", "Solution"] -> write `format: question-answer` with `columns: {question: Problem, answer: Solution}`
["input_text", "output_text"] -> the same of these, and not that one of them is a text to be learned without the other
"""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from pydantic import JsonValue

from finetuning.dataset.formats import OPTIONAL_COLUMNS
from finetuning.dataset.other_formats import looks_like_turns
from finetuning.dataset.raw_summary import JsonRow
from finetuning.dataset.row_columns import ignored_by, judged_conversation, not_ignored
from finetuning.dataset.tool_calls import are_calls
from finetuning.dataset.turns import as_turns, holds_messages, role_of
from finetuning.recipe.columns import (
    FIGURES,
    JUDGED_CONVERSATIONS,
    MORE_COLUMNS,
    OF_A_QUESTION,
    carries_meaning,
    meaning_of,
    words_of,
)
from finetuning.recipe.source import FORMAT_COLUMNS, SourceSpec
from finetuning.recipe.spec import in_yaml

# Column names that mean the same to those who publish data sets.
ASKED = {
    *("question", "prompt", "instruction", "problem", "query", "input", "inputs", "request", "task", "user", "human"),
    *("source_text", "utterance"),
}
ANSWERED = {
    *("answer", "answers", "completion", "output", "outputs", "response", "solution", "reply", "target", "targets"),
    *("assistant", "gpt"),
}
CHATS = {"messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns"}
REJECTED = {"rejected", "dispreferred", "nonpreferred", "unpreferred", "negative", "loser"}
CHOSEN = {"chosen", "preferred", "accepted", "positive", "winner"}
LABELS = {"label", "kto_tag", "desirable"}
MEANINGS = (ASKED, ANSWERED, CHATS, REJECTED, CHOSEN, LABELS)
# What else stands beside a text that is not meant to be learned by itself.
BESIDE_A_TEXT = {
    *("summary", "highlights", "abstract", "translation", "sentiment", "emotion", "intent", "entities", "label"),
    *("labels", "choices", "options", "document", "article", "role", "text"),
}
BELONGING = {"role", "parent_id"}  # of rows that are turns of a conversation
# What the turns of a conversation hold, by the column that is a list of them.
TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}
# Where columns could be those of several formats, the one that asks for the least comes first.
PLAINNESS = {"question-answer": 0, "prompt-completion": 1}
SENTENCE = 2  # words


class Near(NamedTuple):
    """What a format has and lacks of its columns, and which of the data set's could stand for those that it lacks."""

    format: str
    present: list[str]
    missing: list[str]
    columns: dict[str, str]
    dropped: list[str]
    """Columns that say something and would not be read."""

    @property
    def distance(self) -> tuple[int, ...]:
        """First counts what nothing stands for, then what is lost, then what has another name; last, what is there."""
        lost, renamed = len(self.missing) - len(self.columns), len(self.columns)
        plainness = PLAINNESS.get(self.format, len(PLAINNESS))
        return lost, len(self.dropped), renamed, -len(self.present), plainness

    @property
    def is_advisable(self) -> bool:
        """Whether its columns can be told; of a conversation and of a text, only where no other column is lost."""
        is_alone = len(self.present) + len(self.missing) == 1
        return len(self.missing) == len(self.columns) > 0 and not (is_alone and self.dropped)


def unknown(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, formats: Sequence[str]) -> list[str]:
    """The lines that say what each format lacks, the nearest first, and what to write."""
    every = [near(format, columns, first_row, source) for format in formats]
    every.sort(key=lambda found: found.distance)
    lines = [
        f"  {found.format} lacks {listed(found.missing)}"
        if found.missing
        else f"  {found.format} has turns of another kind"
        for found in every
    ]
    best = next((found for found in every if found.is_advisable), None)
    if best is None:
        return [*lines, _example(columns, first_row, source, formats)]
    mapped = in_yaml({**source.columns, **best.columns})
    advice = f"Write `format: {best.format}` with `columns: {mapped}`, if that is what they are."
    if best.dropped:
        advice += f" It does not read {listed(best.dropped)}; `ignore: {in_yaml(best.dropped)}` learns without."
    return [*lines, advice]


def near(format: str, columns: Sequence[str], first_row: JsonRow, source: SourceSpec) -> Near:
    """What a format has, lacks and would lose of a data set's columns."""
    present, missing, standing = [], [], {}
    wanted = needed(format, source, first_row)
    if format == "preference" and "prompt" not in wanted and any(_stands_for("prompt", column) for column in columns):
        wanted = {"prompt": "prompt", **wanted}
    chat = _chat_alone(columns, first_row) if format == "unpaired-preference" and "prompt" in wanted else None
    if chat:
        wanted = {chat: chat, "label": wanted["label"]}
    for name, column in wanted.items():
        if column in columns and (name not in TURNS or are_turns_of(first_row.get(column), TURNS[name])):
            present.append(column)
            continue
        missing.append(name)
        taken = {*standing.values(), *_own(format, columns), *source.columns.values()}
        free = [other for other in columns if other not in taken and meaning_of(other) in (None, "context")]
        stand_in = _stand_in(name, free, first_row)
        if stand_in:
            standing[name] = stand_in
    more = MORE_COLUMNS.get(format, OF_A_QUESTION)
    read = {*present, *standing.values(), *_own(format, columns), *source.columns.values()}
    free = [column for column in columns if column not in read and meaning_of(column) not in more]
    return Near(format, present, missing, standing, [c for c in free if says_something(c, first_row.get(c))])


def _chat_alone(columns: Sequence[str], first_row: JsonRow) -> str | None:
    """What a format calls the conversation that rows hold, where no column seems to be a prompt or a completion."""
    if any(_stands_for(name, column) for column in columns for name in ("prompt", "completion")):
        return None
    return next((name for name, keys in TURNS.items() if _stand_in(name, columns, first_row)), None)


def says_something(column: str, value: JsonValue = None) -> bool:
    """Whether a column seems to be part of what is to be learned, by its name or by what it holds.

    >>> says_something("final_answer"), says_something("answer_id"), says_something("body", "It rained all day.")
    (True, False, True)
    """
    if column.lower() in BELONGING or carries_meaning(column, of_a_question=True):
        return True
    words = words_of(column)
    if not words or words[-1] in FIGURES:
        return False
    if any(set(words) & names or column.lower() in names for names in (*MEANINGS, BESIDE_A_TEXT)):
        return True
    return holds_messages(value) or (isinstance(value, str) and len(value.split()) >= SENTENCE)


def beside_a_text(columns: Sequence[str], source: SourceSpec) -> list[str]:
    """The columns that are lost where a text is all that is learned."""
    text, ignored = source.columns.get("text", "text"), ignored_by(source)
    return [c for c in columns if c != text and c.casefold() not in ignored and says_something(c)]


def text_advice(lost: Sequence[str], source: SourceSpec) -> str:
    """What to write where a text stands beside other columns."""
    text = source.columns.get("text", "text")
    advice = f"Write `format: text` and `ignore: {in_yaml(lost)}` to learn the text alone"
    if {column.lower() for column in lost} & BELONGING:
        return f"{advice}; where the rows are turns, write each conversation as one row of `messages`."
    if len(lost) > 1:
        return f"{advice}, or `format` and `columns` of what they are."
    question, answer = (lost[0], text) if _stands_for("question", lost[0]) else (text, lost[0])
    return f"{advice}, or {_pair(question, answer)}."


def _example(columns: Sequence[str], first_row: JsonRow, source: SourceSpec, formats: Sequence[str]) -> str:
    general = "Write `format` and `columns`, which gives the format's names and then the data set's"
    for column in columns:
        value = first_row.get(column)
        if isinstance(value, str) and (form := literal_of(value)):
            return f"{listed([column])} {form}: write it with json.dumps, and it is read as what it holds."
        entry = value[0] if isinstance(value, list) and value else value
        if isinstance(entry, dict) and len(columns) == 1:
            keys = listed(list(entry))
            return (
                f"`columns` maps whole columns, and {listed([column])} has records with the keys {keys}: turns have "
                "role and content, or from and value; anything else has to be a column of its own."
            )
    held = [column for column in columns if isinstance(first_row.get(column), (list, dict))]
    answers = next((column for column in held if _stands_for("answer", column)), None)
    if answers:
        return (
            f"{general}; {listed([answers])} holds records or a list: the answer has to be a text, a column of its own."
        )
    said = [c for c in columns if _may_be_said(c, first_row.get(c)) and c not in source.columns.values()]
    telling = [c for c in said if says_something(c, first_row.get(c))] or said
    if "question-answer" not in formats or not telling:
        return f"{general}, or add what is missing."
    if len(telling) == 1:
        lost = [c for c in columns if c != telling[0] and (c in said or says_something(c, first_row.get(c)))]
        if held or lost or any(_stands_for(name, telling[0]) for name in ("question", "answer")):
            return f"{general}; columns to be left out go into `ignore`."
        text = in_yaml({"text": telling[0]})
        return f"{general}, such as `format: text` with `columns: {text}`, which learns it as it is."
    named = any(_stands_for(name, column) for name in ("question", "answer") for column in telling)
    if not named and (held or len(said) > 2):
        return f"{general}; columns to be left out go into `ignore`."
    answer = next((column for column in telling if _stands_for("answer", column)), telling[1])
    question = next(column for column in telling if column != answer)
    return f"{general}, such as {_pair(question, answer)}; columns to be left out go into `ignore`."


def literal_of(text: str) -> str | None:
    """What a text is that seems to be a list or record as Python or numpy shows one, and is no JSON.

    >>> literal_of("[{'role': 'user'}]"), literal_of('[{"role": "user"}]'), literal_of("{x} is set")
    ("begins like a list of records and is no JSON, but Python's way to show one", None, None)
    """
    if not re.match(r"""\s*(\[\s*\{|\{)\s*['"][^'"]*['"]\s*:""", text):
        return None
    try:
        orjson.loads(text)
    except ValueError:
        kind = "a list of records" if text.lstrip().startswith("[") else "a record"
        return f"begins like {kind} and is no JSON, but Python's way to show one"
    return None


def _may_be_said(column: str, value: JsonValue) -> bool:
    """Whether a column may be a question or an answer by itself: a text that is no setting, figure or conversation."""
    words = words_of(column)
    is_figure = bool(words) and words[-1] in FIGURES
    is_text = value is None or (isinstance(value, str) and not looks_like_turns(value))
    is_number = isinstance(value, (int, float)) and _stands_for("answer", column)
    return (is_text or is_number) and not is_figure and meaning_of(column) not in ("system", "history", "tools")


def _pair(question: str, answer: str) -> str:
    return f"`format: question-answer` with `columns: {in_yaml({'question': question, 'answer': answer})}`"


def _own(format: str, columns: Sequence[str]) -> set[str]:
    """Return columns that the format has a use for under their own names."""
    return {name for name in FORMAT_COLUMNS[format] if name in columns and name not in TURNS}


def _stand_in(name: str, columns: Sequence[str], first_row: JsonRow) -> str | None:
    """Return the column that seems to hold what a format calls `name`, by its turns, its meaning, or its spelling."""
    if name in TURNS:
        return next((column for column in columns if are_turns_of(first_row.get(column), TURNS[name])), None)
    if name == "completions":
        return None
    alike = [column for column in columns if _stands_for(name, column)]
    near = difflib.get_close_matches(name, [column.lower() for column in columns], n=1, cutoff=0.75)
    alike += [column for column in columns if column.lower() in near]
    if name == "prompt":  # of a pair of answers, all that was said before them
        alike += [column for column in columns if column.lower() in CHATS]
    held = {column: first_row.get(column) for column in alike}
    return next((c for c, value in held.items() if not isinstance(value, (list, dict)) or _is_said(value)), None)


def _stands_for(name: str, column: str) -> bool:
    """Whether a column's name means what a format calls `name`; an answer that was judged is not just any answer."""
    words = words_of(column)
    if words and words[-1] in FIGURES:
        return False
    same = next((meaning for meaning in MEANINGS if name in meaning), {name})
    judged = next((meaning for meaning in (REJECTED, CHOSEN) if set(words) & meaning), same)
    return judged is same and (column.lower() in same or bool(set(words) & same))


def _is_said(value: JsonValue) -> bool:
    return are_calls(value) or holds_messages(value)


def needed(format: str, source: SourceSpec, first_row: JsonRow) -> dict[str, str]:
    """Return the format's columns by their names in the data set; those that it may lack only if they are named."""
    optional, columns = OPTIONAL_COLUMNS.get(format, ()), source.columns
    chosen = as_turns(first_row.get(columns.get("chosen", "chosen")))
    if format == "preference" and chosen is not None and not _begins_with_a_question(chosen):
        optional = ()
    more = [name for name in MORE_COLUMNS.get(format, OF_A_QUESTION) if name in columns]
    if format == "unpaired-preference":
        whole = judged_conversation(not_ignored(first_row, source), columns)
        if whole:
            columns = {"completion": whole, **columns}
            more = [name for name in more if name not in JUDGED_CONVERSATIONS]
        if whole or _begins_with_a_question(as_turns(first_row.get(columns.get("completion", "completion")))):
            optional = ("prompt",)
    return {
        name: str(columns.get(name, name))
        for name in dict.fromkeys([*FORMAT_COLUMNS[format], *more])
        if name in columns or name not in optional
    }


def _begins_with_a_question(turns: JsonValue) -> bool:
    """Whether these are turns of which the first one is not an answer: a whole conversation."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and role_of(first.get("role", first.get("from"))) != "assistant"


def are_turns_of(value: JsonValue, keys: tuple[str, ...]) -> bool:
    """Whether a value is a list of turns with those keys, or the JSON text of one, of which the end may be cut off."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = orjson.loads(value)
        except ValueError:
            key = re.match(r'\s*\[\s*\{\s*"(\w+)"\s*:', value)
            return key is not None and key[1] in keys
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and set(keys) <= value[0].keys()


def listed(words: Sequence[str]) -> str:
    shown = [word if len(word) <= 60 and word.isprintable() else repr(word[:60]) for word in words[:20]]
    return ", ".join(shown) + (f" and {len(words) - 20} more" if len(words) > 20 else "") or "none"
