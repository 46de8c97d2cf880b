"""Rows that repeat each other are found or dropped, and no question of eval is trained on, exactly or nearly."""

import numpy as np

from tests.finetuning.chat.made_rows import LONG, WORDS, Made, different, messages_of, question


def test_repeats_are_found_or_dropped_as_the_recipe_says(tmp_path, tokenizer):
    rows = different(40)
    nearly = {"question": rows[2]["question"] * 8 + " word", "answer": rows[2]["answer"]}
    rows[2] = {"question": rows[2]["question"] * 8, "answer": rows[2]["answer"]}
    rows += [dict(rows[1]), nearly]
    found = {
        dedup: Made(tmp_path / dedup, tokenizer, rows, dedup=dedup, chat=LONG) for dedup in ("none", "exact", "near")
    }
    assert [len(made.kept) for made in found.values()] == [42, 41, 40]
    assert (found["none"].found("duplicates"), found["none"].found("near_duplicates")) == ([41], [42])
    assert found["exact"].reasons == {"word for word an earlier row": [41]}
    assert found["near"].reasons == {"word for word an earlier row": [41], "nearly an earlier row": [42]}
    assert [made.failed() for made in found.values()] == [{"duplicates", "near_duplicates"}, {"near_duplicates"}, set()]


def test_no_question_of_the_eval_sources_is_trained_on_exactly_or_nearly(tmp_path, tokenizer):
    rows = different(30)
    long = "Tell me about " + ", ".join(WORDS)
    rows[4]["question"] = long + " and nothing else"
    held_out = [
        {"question": rows[3]["question"].upper(), "answer": "told otherwise"},
        {"question": long + " and nothing more", "answer": "x"},
        {"question": "Who is it?", "answer": "x"},
    ]
    made = Made(tmp_path, tokenizer, rows, eval_rows=held_out, chat=LONG)
    assert made.reasons == {"the question is in eval": [4], "nearly a question in eval": [5]}
    assert len(made.eval) == 3 and len(made.train) == 28
    counted = made.summary.checks["overlap"]
    assert (counted.rows, counted.of) == (2, 30) and "overlap" in made.failed()


def test_the_written_files_have_no_question_in_common_by_any_measure(tmp_path, tokenizer):
    rng = np.random.default_rng(0)
    asked = [" ".join([row["question"], *rng.choice(WORDS, 60)]) for row in different(60)]
    rows = [
        {"question": question + " " * n + "!" * (n == 2), "answer": f"#### {i} {n}"}
        for i, question in enumerate(asked)
        for n in range(3)
    ]
    made = Made(tmp_path, tokenizer, rows, fraction=0.2, chat=LONG)
    train, held_out = ({question(row) for row in split} for split in (made.train, made.eval))
    assert len(train | held_out) > 60 and not train & held_out
    nearest = max(jaccard(one, other) for one in train for other in held_out)
    assert nearest < 0.85


def jaccard(one: str, other: str) -> float:
    first, second = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (one, other))
    return len(first & second) / len(first | second)


def test_a_long_system_prompt_makes_no_questions_alike(tmp_path, tokenizer):
    system = {"role": "system", "content": " ".join(WORDS) * 2}
    rows = [{"messages": [system, *messages_of(row)]} for row in different(30)]
    made = Made(tmp_path, tokenizer, rows, format="messages", chat=LONG, dedup="near")
    assert len(made.kept) == 30 and len(made.eval) == 3
