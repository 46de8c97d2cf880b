import json
from itertools import islice

import numpy as np

from benchmarks.conversations import conversations, vocabulary, write


def contents(row) -> str:
    return "".join(message["content"] for message in row["messages"])


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first, again, other = (list(islice(conversations(seed), 50)) for seed in (1, 1, 2))
    assert first == again and first != other


def test_no_two_rows_are_equal_nor_any_two_first_questions():
    rows = list(islice(conversations(42), 12_000))
    assert len({contents(row) for row in rows}) == len({row["messages"][0]["content"] for row in rows}) == 12_000


def test_most_rows_have_one_turn_and_the_others_up_to_four():
    turns = [len(row["messages"]) // 2 for row in islice(conversations(42), 3_000)]
    assert 0.67 < turns.count(1) / 3_000 < 0.73 and set(turns) == {1, 2, 3, 4}


def test_user_and_assistant_take_turns():
    for row in islice(conversations(42), 50):
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_the_text_has_numbers_code_line_breaks_and_foreign_letters():
    rows = [contents(row) for row in islice(conversations(42), 500)]
    assert sum("```python" in row for row in rows) > 20 and sum("\n" in row for row in rows) > 100
    assert sum(any(letter.isdigit() for letter in row) for row in rows) > 200
    assert sum(not row.isascii() for row in rows) > 100


def test_a_row_has_about_as_many_tokens_as_real_chats(smollm2_tokenizer):
    texts = [
        smollm2_tokenizer.apply_chat_template(row["messages"], tokenize=False)
        for row in islice(conversations(42), 1_000)
    ]
    assert 100 < np.mean([len(ids) for ids in smollm2_tokenizer(texts)["input_ids"]]) < 160


def test_words_are_different_and_their_shares_add_up():
    words, _, cumulative = vocabulary()
    assert len(set(words)) == len(words) == len(cumulative) and np.isclose(cumulative[-1], 1)


def test_a_file_holds_so_many_rows_or_so_many_bytes(tmp_path):
    assert write(tmp_path / "rows.jsonl", rows=7) == 7
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(islice(conversations(42), 7))
    write(tmp_path / "bytes.jsonl", size=100_000)
    assert 100_000 <= (tmp_path / "bytes.jsonl").stat().st_size < 110_000
