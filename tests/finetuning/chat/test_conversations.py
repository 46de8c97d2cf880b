"""Rows of a raw data set as conversations: each with its place, those that are none dropped, digests and columns."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.chat import conversations
from finetuning.chat.conversations import Row, batches, conversation_of, digests, messages_column
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template
from finetuning.checks.findings import FindingsTable
from finetuning.dataset.raw_dataset import write_raw
from finetuning.recipe.dataset import DatasetSpec, EvalSpec
from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import SourceSpec
from finetuning.recipe.training import TrainingSpec


@pytest.fixture
def renderer(tiny_tokenizer):
    load_template(tiny_tokenizer, "instruction", "x.yaml")
    return Renderer(tiny_tokenizer)


def read(tmp_path, renderer, rows, eval_rows=None, **keys):
    """The batches of those rows, and what was dropped."""
    sources = {}
    for name, some in (("train", rows), ("eval", eval_rows)):
        if some is not None:
            path = tmp_path / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in some))
            sources[name] = (SourceSpec(files=[str(path)], **{"format": "question-answer", **keys}),)
    held_out = EvalSpec(sources=sources["eval"]) if "eval" in sources else EvalSpec(fraction=0.5)
    dataset = DatasetSpec(sources=sources["train"], eval=held_out)
    stems = {f"{name}-00": "1" for name in sources}
    write_raw(dataset, stems, tmp_path / "raw", api=None, file="x.yaml")
    formats = dict.fromkeys(stems, keys.get("format", "question-answer"))
    with FindingsTable(tmp_path / "dropped.parquet") as dropped:
        recipe = Recipe.model_construct(dataset=dataset, training=TrainingSpec())
        found = list(batches(tmp_path / "raw", recipe, formats, renderer, dropped))
    return found, pq.read_table(tmp_path / "dropped.parquet").to_pylist()


def numbered(count: int) -> list[dict]:
    return [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(count)]


def one(*contents: str, system: str | None = None, tools=None) -> Row:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]
    return Row("a:1", Conversation(messages, tools))


def test_rows_come_in_order_in_batches_with_their_places(tmp_path, renderer, monkeypatch):
    monkeypatch.setattr(conversations, "BATCH_ROWS", 4)
    found, dropped = read(tmp_path, renderer, numbered(10))
    assert [len(batch.rows) for batch in found] == [4, 4, 2] and not dropped
    rows = [row for batch in found for row in batch.rows]
    assert [row.conversation.messages[0]["content"] for row in rows] == [f"{n}?" for n in range(10)]
    assert [row.place.rpartition(":")[2] for row in rows] == [str(n + 1) for n in range(10)]
    assert all(row.place.partition(":")[0].endswith("train.jsonl") for row in rows)
    texts = [laid_out.text for batch in found for laid_out in batch.laid_out]
    assert texts[3] == "### User:\n3?\n\n### Assistant:\n#### 3</s>\n\n"


def test_long_rows_come_in_batches_of_few(tmp_path, renderer, monkeypatch):
    monkeypatch.setattr(conversations, "BATCH_BYTES", 100)
    rows = [{"question": "word " * 30, "answer": str(n)} for n in range(5)]
    found, _ = read(tmp_path, renderer, rows)
    assert [len(batch.rows) for batch in found] == [1] * 5


def test_rows_of_the_eval_sources_are_known_as_such(tmp_path, renderer):
    found, _ = read(tmp_path, renderer, numbered(3), eval_rows=numbered(2))
    assert [(batch.is_eval, len(batch.rows)) for batch in found] == [(False, 3), (True, 2)]


def test_rows_that_are_no_conversation_are_dropped_with_place_reason_field_and_text(tmp_path, renderer):
    rows = numbered(5)
    rows[1]["answer"], rows[3]["question"] = " ", 7
    found, dropped = read(tmp_path, renderer, rows)
    assert sum(len(batch.rows) for batch in found) == 3
    assert [(row["place"].rpartition(":")[2], row["check"], row["reason"], row["field"]) for row in dropped] == [
        ("2", "bad_rows", "empty answer", "turn 1"),
        ("4", "bad_rows", "a number in the user turn, not text", "question"),
    ]
    assert json.loads(dropped[1]["text"]) == rows[3]


def test_a_batch_of_which_nothing_is_left_is_none(tmp_path, renderer):
    found, dropped = read(tmp_path, renderer, [{"question": "q", "answer": ""}] * 3)
    assert found == [] and len(dropped) == 3


def test_rows_that_were_not_chosen_belong_to_no_check(tmp_path, renderer):
    rows = [{"instruction": "q", "completions": [{"model": name, "response": "a"}]} for name in ("gpt-4", "bard")]
    found, dropped = read(tmp_path, renderer, rows, format="ultrafeedback", model="gpt-4")
    assert sum(len(batch.rows) for batch in found) == 1
    assert [(row["check"], row["reason"]) for row in dropped] == [("", "no answer of gpt-4")]


def test_rows_that_the_template_refuses_are_dropped_and_the_others_of_their_batch_stay(tmp_path, renderer):
    renderer.tokenizer.chat_template = (
        "{% if '7' in messages[0]['content'] %}{{ raise_exception('I fear sevens') }}{% endif %}"
        + renderer.tokenizer.chat_template
    )
    found, dropped = read(tmp_path, Renderer(renderer.tokenizer), numbered(20))
    assert sum(len(batch.rows) for batch in found) == 18
    assert {(row["check"], row["reason"]) for row in dropped} == {
        ("refused_rows", "the chat template refuses it: I fear sevens")
    }


CITY, SUM = ({"name": name, "arguments": {key: "x"}} for name, key in (("weather", "city"), ("add", "expr")))


def with_calls(call) -> list[dict]:
    return [
        {"role": "user", "content": "2 + 3?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "5"},
    ]


def test_nulls_that_a_table_adds_are_none_of_the_data(tmp_path, renderer):
    rows = [{"messages": with_calls(call), "tools": [{"name": "f", call["name"]: {"a": 1}}]} for call in (CITY, SUM)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    padded = pq.read_table(tmp_path / "a.parquet").to_pylist()[0]
    assert padded["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "x", "expr": None}
    dataset = DatasetSpec(sources=(SourceSpec(files=[str(tmp_path / "a.parquet")], format="messages"),))
    write_raw(dataset, {"train-00": "1"}, tmp_path / "raw", api=None, file="x.yaml")
    (raw,) = conversations._raw_rows(tmp_path / "raw/train-00.parquet")
    found = [conversations._row(place, json.loads(text), dataset.sources[0], "messages") for place, text in raw]
    assert [row.conversation.messages for row in found] == [row["messages"] for row in rows]
    assert [row.conversation.tools for row in found] == [row["tools"] for row in rows]


def test_nulls_that_the_data_itself_has_stay(tmp_path, renderer):
    call = {"name": "weather", "arguments": {"city": "x", "day": None}}
    source = SourceSpec(files=["x.jsonl"], format="messages")
    row = conversations._row("x.jsonl:1", {"messages": with_calls(call)}, source, "messages")
    assert row.conversation.messages[1]["tool_calls"][0]["function"] == call


def test_the_same_words_have_the_same_digests_and_others_have_others():
    rows = [one("2 + 3?", "5"), one("2 + 3?", "5"), one("2 + 3?", "6"), one("2 + 4?", "5")]
    whole, asked, _ = digests(rows, 42)
    assert whole[0] == whole[1] and len(set(whole)) == 3
    assert asked[0] == asked[1] == asked[2] != asked[3]
    assert digests([rows[0]], 43)[0] == whole[:1] and digests([rows[0]], 43)[1] != asked[:1]
    assert all(0 <= digest < 2**64 for digest in whole + asked)


@pytest.mark.parametrize("other", ["what IS 2 + 3?", "What is  2\n+ 3?", " What is 2 + 3?\n"])
def test_case_and_space_make_no_other_question(other):
    whole, asked, _ = digests([one("What is 2 + 3?", "5"), one(other, "5")], 42)
    assert asked[0] == asked[1]
    assert (whole[0] == whole[1]) == ("IS" not in other), "white space repeats the row, another case does not"


def test_a_question_is_all_that_the_user_says_and_nothing_else():
    rows = [one("a", "x", "b", "y"), one("a", "z", "b", "w", system="s"), one("a", "x"), one("b", "x")]
    _, asked, _ = digests(rows, 42)
    assert asked[0] == asked[1] and len(set(asked)) == 3


def test_tools_make_another_conversation():
    whole, asked, _ = digests([one("a", "x"), one("a", "x", tools=[{"name": "add"}])], 42)
    assert whole[0] != whole[1] and asked[0] == asked[1]


CONTENT = st.text(min_size=1, max_size=10)
PLAIN = st.lists(CONTENT, min_size=2, max_size=4).map(lambda texts: one(*texts))
ARGUMENTS = st.dictionaries(
    st.text(max_size=3), st.one_of(st.integers(-9, 9), st.text(max_size=3), st.none()), max_size=2
)


def with_tools(asked: str, arguments: dict, answered: str, tools) -> Row:
    calls = [{"function": {"name": "f", "arguments": arguments}}]
    messages = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": answered, "name": "f", "tool_call_id": "1"},
        {"role": "assistant", "content": asked},
    ]
    return Row("a:1", Conversation(messages, tools))


TOOLS = st.one_of(st.none(), st.just([{"name": "f", "parameters": {"a": None}}]))
WITH_TOOLS = st.builds(with_tools, CONTENT, ARGUMENTS, CONTENT, TOOLS)


@settings(max_examples=60)
@given(st.lists(st.one_of(PLAIN, WITH_TOOLS), max_size=5))
def test_messages_come_back_out_of_their_column(rows):
    column = messages_column([row.conversation.messages for row in rows]).to_pylist()
    assert len(column) == len(rows)
    for row, messages in zip(rows, column, strict=True):
        tools = row.conversation.tools
        record = {"messages": messages, "tools": json.dumps(tools) if tools else None}
        assert conversation_of(record) == row.conversation


def test_what_was_asked_until_each_answer_but_the_last_is_known_too():
    _, asked, before = digests([one("a", "x"), one("a", "x", "b", "y", "c", "z"), one("a", "q", "b", "r")], 42)
    assert before == [(1, asked[0]), (1, asked[2]), (2, asked[0])]
