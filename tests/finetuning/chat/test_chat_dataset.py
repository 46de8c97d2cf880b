"""From raw rows to both splits: what is kept, what is dropped, and that nothing gets lost between."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from finetuning.chat import chat_dataset as chat_module
from finetuning.chat import shuffling
from finetuning.chat.chat_summary import ChatSummary
from finetuning.chat.conversations import conversation_of
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import load_template
from finetuning.checks.judgement import CHAT_CHECKS
from finetuning.errors import FinetuningError
from finetuning.tokens import NOT_SUPERVISED
from tests.conftest import train_tiny_tokenizer
from tests.finetuning.chat.made_rows import SECRET, WHERE, Made, different, line_of, question, rows_of
from tests.rendered import render


def test_both_splits_hold_messages_tokens_labels_and_places(tmp_path, tokenizer):
    made, originals = Made(tmp_path, tokenizer, rows_of(50)), rows_of(50)
    assert (len(made.train), len(made.eval)) == (made.summary.train_rows, made.summary.eval_rows) == (45, 5)
    renderer = Renderer(tokenizer)
    for row in made.kept:
        original, (messages, tools) = originals[line_of(row) - 1], conversation_of(row)
        assert [message["content"] for message in messages] == [original["question"], original["answer"]]
        assert (row["input_ids"], row["labels"]) == render(tokenizer, messages)
        prompt = renderer.prompt(Conversation(messages[:-1]))
        assert row["input_ids"][: len(prompt)] == prompt and tools is None
        assert row["place"].startswith(str(tmp_path)) or row["place"].startswith("train.jsonl")
    assert sorted(map(line_of, made.kept)) == list(range(1, 51))


def test_the_folder_holds_what_later_steps_need_and_nothing_else(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    names = ["dropped.parquet", "eval.parquet", "findings.parquet", "tokenizer", "train.parquet"]
    assert sorted(path.name for path in made.folder.iterdir()) == names


def test_the_summary_is_read_again_from_json(tmp_path, tokenizer):
    summary = Made(tmp_path, tokenizer, rows_of(50)).summary
    written = json.loads(json.dumps(summary.as_json()))
    assert ChatSummary.of(written, "artifact.json") == summary
    assert {name for name, counted in written["checks"].items() if "percentiles" in counted} == {"max_length"}


def test_the_summary_counts_tokens_of_train(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    lengths, summary = [len(row["input_ids"]) for row in made.train], made.summary
    assert summary.tokens == sum(lengths)
    learned = sum(label != NOT_SUPERVISED for row in made.train for label in row["labels"])
    assert summary.supervised_tokens == learned
    assert summary.stop_token == "</s>" and summary.dropped == []
    assert summary.lengths.max == max(len(row["input_ids"]) for row in made.kept)
    histogram = summary.lengths.train
    assert sum(histogram.counts) == 45 and len(histogram.edges) == len(histogram.counts) + 1 <= 22
    assert histogram.edges[0] == min(lengths) and histogram.edges[-1] > max(lengths)


def test_the_preview_shows_token_by_token_what_is_trained_on(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    assert len(made.summary.preview) == 3
    for shown, row in zip(made.summary.preview, made.train, strict=False):
        assert [token.id for token in shown] == row["input_ids"]
        assert "".join(t.text for t in shown if t.supervised) == row["messages"][-1]["content"] + "</s>"
        assert "".join(token.text for token in shown) == tokenizer.decode(row["input_ids"])


def test_the_tokenizer_is_kept_with_its_template(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, rows_of(50))
    kept = AutoTokenizer.from_pretrained(made.folder / "tokenizer")
    assert kept.chat_template == tokenizer.chat_template
    messages = conversation_of(made.train[0]).messages
    assert render(kept, messages) == render(tokenizer, messages)


def test_the_same_recipe_and_seed_give_the_same_splits(tmp_path, tokenizer):
    one, again, other = (Made(tmp_path / n, tokenizer, rows_of(50), seed=s) for n, s in (("a", 4), ("b", 4), ("c", 5)))
    assert [list(map(line_of, split)) for split in (one.train, one.eval)] == [
        list(map(line_of, split)) for split in (again.train, again.eval)
    ]
    assert set(map(line_of, one.eval)) != set(map(line_of, other.eval))


def test_more_rows_than_a_batch_are_all_written_through_any_number_of_buckets(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(shuffling, "BUCKET_BYTES", 50_000)
    made = Made(tmp_path, tokenizer, rows_of(2100))
    assert (made.summary.train_rows, made.summary.eval_rows) == (len(made.train), len(made.eval))
    assert sorted(map(line_of, made.kept)) == list(range(1, 2101))
    assert [row["messages"][0]["content"] for row in made.train[:5]] != sorted(
        row["messages"][0]["content"] for row in made.train[:5]
    )


def test_rows_without_a_conversation_are_dropped_with_place_and_reason(tmp_path, tokenizer):
    rows = rows_of(40)
    rows[3]["answer"], rows[7]["answer"], rows[9]["question"] = "", " ", 5
    made = Made(tmp_path, tokenizer, rows)
    assert made.reasons == {"empty answer": [4, 8], "a number in the user turn, not text": [10]}
    assert [(dropped.reason, dropped.rows) for dropped in made.summary.dropped] == [
        ("empty answer", 2),
        ("a number in the user turn, not text", 1),
    ]
    counted = made.summary.checks["bad_rows"]
    assert (counted.rows, counted.of) == (3, 40)
    assert counted.examples[0].field == "turn 1" and counted.examples[0].place.endswith(":4")
    assert made.failed() == {"bad_rows"}


def test_right_rows_pass_every_check(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, different(60))
    assert made.summary.checks.keys() == CHAT_CHECKS.keys()
    assert made.failed() == set() and made.findings == made.dropped == []
    assert all(counted.rows == 0 for counted in made.summary.checks.values())


CONTENT = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["2 + 3?", "</s>", "<s>x", "word " * 80, SECRET, "### User:\n", "a  b", "A b"]),
    st.sampled_from([None, 7, ["x"], {}]),
)
ROLE = st.sampled_from(["user", "assistant", "system", "tool", "x"])
MESSAGE = st.fixed_dictionaries({"role": ROLE, "content": CONTENT})
DIALOGUE = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3).map(
    lambda turns: [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
)
WITH_SYSTEM = DIALOGUE.map(lambda turns: [{"role": "system", "content": "Be brief."}, *turns])
ROW = st.one_of(DIALOGUE, WITH_SYSTEM, st.lists(MESSAGE, max_size=3)).map(lambda messages: {"messages": messages})
SURE = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]} for text in "ABCDEF"]


@pytest.fixture(scope="module")
def instruction():
    tokenizer = train_tiny_tokenizer()
    load_template(tokenizer, "instruction", WHERE)
    return tokenizer


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(ROW, max_size=12),
    eval_rows=st.one_of(st.none(), st.lists(ROW, max_size=4)),
    dedup=st.sampled_from(["none", "exact", "near"]),
    over_length=st.sampled_from(["drop", "truncate", "error"]),
)
def test_every_row_is_in_train_in_eval_or_dropped_once(
    tmp_path_factory, instruction, rows, eval_rows, dedup, over_length
):
    folder = tmp_path_factory.mktemp("any")
    keys = {
        "format": "messages",
        "dedup": dedup,
        "chat": {"max_length": 60, "over_length": over_length},
        "fraction": 0.3,
    }
    held_out = None if eval_rows is None else [*eval_rows, SURE[0]]
    made = Made(folder, instruction, [*SURE, *rows], eval_rows=held_out, **keys)
    places = [row["place"] for row in made.kept + made.dropped]
    files = {"train": len(SURE) + len(rows)} | ({"eval": len(held_out)} if held_out else {})
    expected = [f"{name}:{line}" for name, count in files.items() for line in range(1, count + 1)]
    assert sorted(place.rpartition("/")[2].replace(".jsonl", "") for place in places) == sorted(expected)
    assert made.summary.train_rows + made.summary.eval_rows == len(made.kept)
    assert sum(dropped.rows for dropped in made.summary.dropped) == len(made.dropped)
    assert not set(map(question, made.train)) & set(map(question, made.eval))
    for row in made.kept:
        ids, labels = row["input_ids"], row["labels"]
        assert len(ids) == len(labels) <= 60
        assert all(label in (token, NOT_SUPERVISED) for token, label in zip(ids, labels, strict=True))
        if over_length != "truncate":
            messages = conversation_of(row).messages
            assert instruction.decode(ids) == instruction.apply_chat_template(messages, tokenize=False)
            learned = [message["content"] + "</s>" for message in messages if message["role"] == "assistant"]
            assert instruction.decode([label for label in labels if label != NOT_SUPERVISED]) == "".join(learned)


def test_lines_that_no_row_is_read_from_are_no_rows(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, [*rows_of(20), "{broken", ""])
    assert len(made.kept) == 20 and made.summary.checks["bad_rows"].of == 20


def test_an_empty_split_is_an_error_that_says_what_became_of_the_rows(tmp_path, tokenizer):
    with pytest.raises(FinetuningError) as error:
        Made(tmp_path, tokenizer, [{"question": "q", "answer": ""}] * 3)
    text = str(error.value)
    assert text.startswith(f"{WHERE}: dataset: the train split is empty. 3 rows were dropped: empty answer (such as ")
    assert text.endswith("train.jsonl:1:turn 1). Take them out of the data, or write the answers.")
    with pytest.raises(
        FinetuningError, match=r"the (train|eval) split is empty\. No row was dropped: the sources have too few rows"
    ):
        Made(tmp_path / "one", tokenizer, rows_of(1))
    with pytest.raises(FinetuningError, match=r"the train split is empty\. 1 row was dropped: the question is in eval"):
        Made(tmp_path / "same", tokenizer, rows_of(1), eval_rows=rows_of(1))


def test_every_reason_to_leave_a_row_out_of_the_splits_is_told():
    from finetuning.chat.splits import KEPT, Fate

    assert set(chat_module.LEFT_OUT) | set(KEPT) == set(Fate)


def test_dev_rows_are_a_split_of_their_own(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, different(40), dev={"fraction": 0.2})
    dev = pq.read_table(made.folder / "dev.parquet").to_pylist()
    assert (len(made.train), len(made.eval), len(dev)) == (28, 4, 8)
    assert (made.summary.train_rows, made.summary.eval_rows, made.summary.dev_rows) == (28, 4, 8)
    assert {question(row) for row in dev}.isdisjoint(question(row) for row in made.kept)
    assert not made.failed()


def test_too_few_rows_for_dev_are_told(tmp_path, tokenizer):
    with pytest.raises(FinetuningError) as error:
        Made(tmp_path, tokenizer, different(2), fraction=0.5, dev={"fraction": 0.5})
    assert "the train split is empty. No row was dropped: 2 rows are left, which are too few for" in str(error.value)
