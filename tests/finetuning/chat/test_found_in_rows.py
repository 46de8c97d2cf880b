"""Secrets, special tokens spelled out, lost characters and begin tokens are found, and no secret is shown."""

import json

import pyarrow.parquet as pq
import pytest
from tokenizers import processors

from finetuning.chat import tokenized_rows
from tests.finetuning.chat.made_rows import SECRET, Made, different, line_of, rows_of


def test_a_secret_is_in_no_file_but_that_of_its_split(tmp_path, tokenizer):
    rows = different(20)
    rows[3]["answer"] = f"The key is {SECRET}"
    rows[4]["question"] += f" {SECRET} </s>"
    rows[5] = {"question": f"{SECRET} " + "word " * 300, "answer": "x"}
    rows[6] = {"question": SECRET, "answer": ""}
    made = Made(tmp_path, tokenizer, rows)
    assert made.found("secrets") == [4, 5]
    found = {line_of(row): row["field"] for row in made.findings if row["check"] == "secrets"}
    assert found == {4: "turn 1", 5: "turn 0"} and made.failed() >= {"secrets"}
    splits = {row["place"]: name for name in ("train", "eval") for row in getattr(made, name)}
    for path in made.folder.rglob("*"):
        if path.is_file() and path.stem not in splits.values():
            text = str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
            assert SECRET not in text, path.name
    assert SECRET not in json.dumps(made.summary.as_json() | {"preview": []})


def test_a_secret_is_not_in_the_preview(tmp_path, tokenizer):
    rows = [row | {"answer": f"{SECRET} {n}"} for n, row in enumerate(different(20))]
    made = Made(tmp_path, tokenizer, rows)
    shown = ["".join(token.text for token in tokens) for tokens in made.summary.preview]
    assert not [text for text in shown if SECRET in text]


def test_text_that_spells_out_a_special_token_is_learned_as_text_and_found(tmp_path, tokenizer):
    rows = different(20)
    rows[3]["question"], rows[4]["answer"] = "What does </s> mean?", "It is <pad>, </s> or <s>."
    made = Made(tmp_path, tokenizer, rows)
    assert made.found("special_tokens") == [4, 5] and made.failed() == {"special_tokens"}
    for row in made.kept:
        assert row["input_ids"].count(tokenizer.eos_token_id) == 1
        assert tokenizer.bos_token_id not in row["input_ids"] and tokenizer.pad_token_id not in row["input_ids"]


def test_text_that_the_vocabulary_has_no_bytes_for_does_not_survive_and_is_found(tmp_path, smollm2_tokenizer):
    rows = different(20)
    rows[3]["answer"] = "a \x1d b \U00040000 c"
    made = Made(tmp_path, smollm2_tokenizer, rows)
    assert made.found("round_trip") == [4] and made.failed() == {"round_trip"}


def test_only_so_many_rows_are_decoded_again(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenized_rows, "ROUND_TRIP_ROWS", 7)
    made = Made(tmp_path, tokenizer, rows_of(20))
    assert made.summary.checks["round_trip"].of == 7


@pytest.mark.parametrize(("template", "failed"), [("", {"bos_token"}), ("{{ bos_token }}", set())])
def test_a_begin_token_that_the_model_uses_must_be_there_once(tmp_path, tokenizer, template, failed):
    first = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[first])
    tokenizer.chat_template = template + tokenizer.chat_template
    made = Made(tmp_path, tokenizer, different(20))
    assert made.failed() == failed
    assert made.summary.checks["bos_token"].rows == (20 if failed else 0)
    assert made.summary.checks["bos_token"].of == 20


def test_a_begin_token_that_is_there_twice_is_found(tmp_path, tokenizer):
    first = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[first])
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + tokenizer.chat_template
    assert Made(tmp_path, tokenizer, different(20)).failed() == {"bos_token"}


def test_a_model_without_a_begin_token_needs_none(tmp_path, tokenizer):
    assert Made(tmp_path, tokenizer, different(20)).summary.checks["bos_token"].of == 0
