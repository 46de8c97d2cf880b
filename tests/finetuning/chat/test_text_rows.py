"""Rows of text on their way to training: as the tokenizer has them, whole, and nothing of a long one lost."""

import random
import string

import pytest
from tokenizers import processors

from finetuning.chat.template import load_template
from finetuning.errors import FinetuningError
from finetuning.evaluation.exam import exam_of
from finetuning.recipe.evaluation import EvaluationSpec
from tests.finetuning.chat.made_rows import SECRET, WORDS, Made, different, line_of, rows_of
from tests.finetuning.test_secrets import PLANTED

KEYS = {"format": "text"}


@pytest.fixture(params=["a begin token", "none"])
def tokenizer(tiny_tokenizer, request):
    if request.param == "a begin token":
        bos = (tiny_tokenizer.bos_token, tiny_tokenizer.bos_token_id)
        tiny_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos[0]} $A", pair=f"{bos[0]} $A $B", special_tokens=[bos]
        )
    load_template(tiny_tokenizer, "instruction", "x.yaml")
    return tiny_tokenizer


def long_text(words: int) -> str:
    """A text in which nothing is said twice."""
    draw = random.Random(0)
    return " ".join("".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(words))


def texts(count: int) -> list[dict]:
    """Texts that have nothing in common."""
    return [{"text": f"{row['question']} {row['answer']}"} for row in different(count)]


def test_a_text_has_the_tokenizers_own_tokens_and_an_end_and_all_of_it_is_learned(tmp_path, tokenizer):
    rows = texts(30)
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert (len(made.train), len(made.eval)) == (27, 3) and made.failed() == set()
    for row in made.kept:
        said = rows[line_of(row) - 1]["text"]
        own = tokenizer(said)["input_ids"]
        assert row["input_ids"] == [*own, tokenizer.eos_token_id]
        begun = int(own[0] == tokenizer.bos_token_id)
        assert row["labels"] == [-100] * begun + row["input_ids"][begun:]
        assert [(m["role"], m["content"]) for m in row["messages"]] == [("text", said)]
    assert made.summary.text_rows == 27 and made.summary.notes == []


def test_a_long_text_is_cut_into_rows_that_hold_all_of_it(tmp_path, tokenizer):
    rows, long = texts(30), long_text(200)
    rows[6]["text"] = long
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    pieces = [row for row in made.kept if line_of(row) == 7]
    assert len(pieces) > 2 and len(made.dropped) == 0 and made.failed() == set()
    assert all(len(row["input_ids"]) <= 256 for row in pieces)
    assert max(len(row["input_ids"]) for row in pieces) - min(len(row["input_ids"]) for row in pieces) <= 2
    begun = tokenizer(long)["input_ids"][0] == tokenizer.bos_token_id
    held = sorted(token for row in pieces for token in row["input_ids"][begun:])
    assert held == sorted([*tokenizer(long)["input_ids"][begun:], tokenizer.eos_token_id])
    assert all((row["input_ids"][0] == tokenizer.bos_token_id) == begun for row in pieces)
    assert sum(row["input_ids"][-1] == tokenizer.eos_token_id for row in pieces) == 1
    (note,) = made.summary.notes
    assert note.startswith(f"1 of 30 texts are longer than chat.max_length: they were cut into {len(pieces)} rows")


def test_all_pieces_of_a_text_are_in_one_split(tmp_path, tokenizer):
    rows = [{"text": " ".join([*(f"{row['text']} " * 25).split(), str(n)])} for n, row in enumerate(texts(20))]
    made = Made(tmp_path, tokenizer, rows, fraction=0.3, **KEYS)
    trained, examined = ({line_of(row) for row in side} for side in (made.train, made.eval))
    assert len(trained) + len(examined) == 20 and examined and not trained & examined


def test_a_mark_that_is_spelled_out_is_learned_as_text_and_found(tmp_path, tokenizer):
    rows = texts(30)
    rows[6]["text"] = "It ends </s> here"
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    (row,) = [row for row in made.kept if line_of(row) == 7]
    assert row["input_ids"].count(tokenizer.eos_token_id) == 1
    assert made.found("special_tokens") == [7]


def test_texts_that_look_like_conversations_go_through_with_a_note(tmp_path, tokenizer):
    rows = [{"text": f"### Human: {row['question']}### Assistant: {row['answer']}"} for row in different(30)]
    made = Made(tmp_path, tokenizer, rows, **KEYS)
    assert len(made.kept) == 30 and made.failed() == set()
    (note,) = made.summary.notes
    assert note.startswith("30 of 30 texts look like conversations") and "no chat template is applied" in note


def test_repeated_and_nearly_repeated_texts_are_dropped(tmp_path, tokenizer):
    rows, long = texts(30), " ".join(WORDS[:15])
    rows += [rows[0], {"text": long}, {"text": long + " again"}]
    made = Made(tmp_path, tokenizer, rows, dedup="near", **KEYS)
    assert made.reasons == {"word for word an earlier row": [31], "nearly an earlier row": [33]}


@pytest.mark.parametrize("over_length", ["error", "truncate"])
def test_what_would_be_ignored_is_refused(tmp_path, tokenizer, over_length):
    with pytest.raises(FinetuningError, match=f"chat.over_length: {over_length} would be ignored for rows of text"):
        Made(tmp_path, tokenizer, texts(30), chat={"over_length": over_length}, **KEYS)


def test_a_text_is_examined_by_its_second_half(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, texts(60), **KEYS)
    exam = exam_of(EvaluationSpec(metrics=("perplexity",), rows=5, max_new_tokens=4), made.folder)
    assert len(exam.questions) == 5
    for question, row in zip(exam.questions, made.eval, strict=False):
        half = len(row["input_ids"]) // 2
        assert question.prompt_ids == row["input_ids"][:half]
        assert question.reference == tokenizer.decode(row["input_ids"][half : half + 4], skip_special_tokens=True)
    assert exam.labels == [row["labels"] for row in made.eval[:5]]


def test_an_exam_asks_questions_where_eval_has_them(tmp_path, tokenizer):
    made = Made(tmp_path, tokenizer, texts(30), eval_rows=rows_of(8), eval_format="question-answer", **KEYS)
    assert made.summary.text_rows == 30
    exam = exam_of(EvaluationSpec(metrics=("exact-match",), rows=5), made.folder)
    assert [question.reference[:4] for question in exam.questions] == ["####"] * 5


def test_no_piece_of_a_text_with_a_secret_is_in_the_preview(tmp_path, tokenizer):
    rows = [{"text": f"{n} {PLANTED['Private Key']}\n{long_text(150 + n)[n:]}"} for n in range(20)]
    made = Made(tmp_path, tokenizer, rows, **KEYS, similarity=1)
    assert len(made.train) > 20 and made.summary.preview == []


def test_half_of_a_secret_that_a_limit_left_is_not_in_the_preview(tmp_path, tokenizer):
    rows = [row | {"answer": f"{'so ' * 8}{SECRET}"} for row in different(30)]
    long = Made(tmp_path / "whole", tokenizer, rows, similarity=1).train
    limit = max(len(row["input_ids"]) for row in long) - 8
    made = Made(tmp_path, tokenizer, rows, chat={"over_length": "truncate", "max_length": limit}, similarity=1)
    shown = ["".join(token.text for token in tokens) for tokens in made.summary.preview]
    assert [text for row in made.train if SECRET[:8] in (text := tokenizer.decode(row["input_ids"]))]
    assert not [text for text in shown if SECRET[:8] in text]
