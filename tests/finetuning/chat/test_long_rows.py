"""A row that is too long is dropped, cut or an error, as the recipe says, and each is counted."""

from itertools import chain

from finetuning.chat.conversations import conversation_of
from finetuning.tokens import NOT_SUPERVISED
from tests.finetuning.chat.made_rows import Made, line_of, messages_of, rows_of
from tests.rendered import render


def test_rows_that_are_too_long_are_dropped_and_counted(tmp_path, tokenizer):
    rows = rows_of(50)
    rows[5]["answer"], rows[6]["answer"] = "word " * 300, "word " * 200
    made = Made(tmp_path, tokenizer, rows, chat={"tolerance": 0.02})
    assert made.reasons == {"longer than 256 tokens": [6, 7]}
    assert max(len(row["input_ids"]) for row in made.kept) <= 256
    longest, second = (len(render(tokenizer, messages_of(rows[n])).input_ids) for n in (5, 6))
    counted = made.summary.checks["max_length"]
    assert (counted.rows, counted.of) == (2, 50)
    assert (counted.percentiles[100], counted.percentiles[98]) == (longest, second)
    assert made.summary.lengths.max == longest
    assert "max_length" in made.failed()
    again = Made(tmp_path / "again", tokenizer, rows, chat={"tolerance": 0.02, "max_length": second})
    assert "max_length" not in again.failed()


def test_a_single_row_that_is_too_long_is_one_too_many_where_that_is_an_error(tmp_path, tokenizer):
    rows = rows_of(200)
    rows[5]["answer"] = "word " * 300
    made = Made(tmp_path, tokenizer, rows, chat={"over_length": "error", "tolerance": 0.5})
    assert made.failed() >= {"max_length"}
    dropping = Made(tmp_path / "b", tokenizer, rows, chat={"over_length": "drop", "tolerance": 0.5})
    assert "max_length" not in dropping.failed()


def test_a_row_that_is_cut_through_its_answer_is_found_to_have_no_stop_token(tmp_path, tokenizer):
    rows = rows_of(50)
    rows[5]["answer"], rows[6]["question"] = "word " * 300, "word " * 300
    made = Made(tmp_path, tokenizer, rows, chat={"over_length": "truncate", "tolerance": 0.1})
    cut = next(row for row in made.kept if line_of(row) == 6)
    full = render(tokenizer, messages_of(rows[5]))
    assert (cut["input_ids"], cut["labels"]) == (full.input_ids[:256], full.labels[:256])
    assert made.reasons == {"no answer within the first 256 tokens": [7]}
    assert made.found("max_length") == made.found("stop_token") == [6]
    assert made.summary.checks["max_length"].rows == 2
    assert "stop_token" in made.failed() and "max_length" not in made.failed()


def test_a_long_conversation_is_cut_behind_an_answer_in_tokens_and_messages(tmp_path, tokenizer):
    turns = list(chain.from_iterable(messages_of({"question": f"q{n} " * 20, "answer": "#### 1"}) for n in range(9)))
    rows = [{"messages": turns}, *({"messages": messages_of(row)} for row in rows_of(20))]
    made = Made(tmp_path, tokenizer, rows, format="messages", chat={"over_length": "truncate", "tolerance": 0.1})
    (cut,) = (row for row in made.kept if line_of(row) == 1)
    messages = conversation_of(cut).messages
    assert 2 <= len(messages) < len(turns) and messages == turns[: len(messages)]
    whole = render(tokenizer, messages)
    end = len(cut["input_ids"])
    assert cut["input_ids"] == whole.input_ids[:end] and cut["labels"] == whole.labels[:end]
    assert cut["labels"][-1] == tokenizer.eos_token_id
    assert all(label == NOT_SUPERVISED for label in whole.labels[end:])
    assert made.found("max_length") == [1] and made.failed() <= {"near_duplicates"}
