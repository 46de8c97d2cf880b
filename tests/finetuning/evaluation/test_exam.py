"""Evaluation: both models on the same rows, their loss as training has it, and honest intervals."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation.comparison import compare, scores_of
from finetuning.evaluation.exam import Exam, exam_of, losses_of, measures_loss
from finetuning.evaluation.generation import Question
from finetuning.evaluation.intervals import figure_of
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from tests.finetuning.reinforcement.group_jobs import questions, rows_of
from tests.tiny_models import ZEPHYR, save_tiny_model

SILENT = Progress(lambda line: None, "")
LOSS, PERPLEXITY = METRICS["loss"], METRICS["perplexity"]


def test_the_loss_is_a_mean_over_tokens_and_not_over_rows():
    rows = [Outcome("", "", True, loss=1.0, supervised=1), Outcome("", "", True, loss=6.0, supervised=3)]
    assert figure_of(scores_of(LOSS, rows), LOSS.figure) == pytest.approx(7 / 4)
    assert figure_of(scores_of(PERPLEXITY, rows), PERPLEXITY.figure) == pytest.approx(math.exp(7 / 4))


def test_the_gain_in_perplexity_has_an_interval_of_perplexities():
    rng = np.random.default_rng(4)
    base = [Outcome("", "", True, loss=float(loss), supervised=2) for loss in rng.uniform(3, 5, 50)]
    tuned = [row._replace(loss=row.loss - 1) for row in base]
    found = compare(PERPLEXITY, base, tuned)
    assert found.gain == pytest.approx(found.tuned - found.base)
    assert found.interval[0] < found.gain < found.interval[1] < 0
    assert found.higher_is_better is False


def test_a_perplexity_beyond_all_numbers_is_a_large_one():
    base = [Outcome("", "", True, loss=800.0 + row, supervised=1) for row in range(6)]
    found = compare(PERPLEXITY, base, [row._replace(loss=2.0) for row in base])
    assert found.base == pytest.approx(1e100) and all(map(math.isfinite, (found.gain, *found.interval)))


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """A tiny model in float32, and an exam of three rows of different lengths."""
    folder = save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"), ZEPHYR)
    ids = [[5, 9, 11, 30, 2], [7, 8, 9], [40, 41, 42, 43, 44, 45, 2]]
    labels = [[-100, -100, 11, 30, 2], [-100, 8, 9], [-100, -100, -100, -100, 44, 45, 2]]
    questions = [Question(str(i), [], row[:2], "") for i, row in enumerate(ids)]
    return AutoModelForCausalLM.from_pretrained(folder), Exam(
        AutoTokenizer.from_pretrained(folder), questions, ids, labels
    )


def test_the_loss_of_a_row_is_transformers_own(exam):
    model, rows = exam
    for (loss, count), ids, labels in zip(
        losses_of(model, rows, SILENT, "base"), rows.input_ids, rows.labels, strict=True
    ):
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        assert count == sum(label != -100 for label in labels)
        assert loss / count == pytest.approx(mean, rel=1e-5)


def test_a_loss_that_is_no_number_is_an_error_and_no_score(exam):
    model, rows = exam
    broken = AutoModelForCausalLM.from_config(model.config)
    torch.nn.init.constant_(broken.get_output_embeddings().weight, math.nan)
    with pytest.raises(FinetuningError, match=r"the tuned model's loss of 0 is nan.*learning_rate"):
        losses_of(broken, rows, SILENT, "tuned")


def test_the_loss_is_measured_only_where_a_metric_asks_for_it():
    assert [measures_loss(EvaluationSpec(metrics=(name,))) for name in ("exact-match", "loss", "perplexity")] == [
        False,
        True,
        True,
    ]


def test_other_rows_or_other_tokens_are_another_exam(exam):
    _, rows = exam
    same = Exam(rows.tokenizer, rows.questions, rows.input_ids, rows.labels)
    fewer = Exam(rows.tokenizer, rows.questions[:2], rows.input_ids[:2], rows.labels[:2])
    other = Exam(rows.tokenizer, rows.questions, rows.input_ids, [rows.labels[0], rows.labels[1], [-100] * 7])
    assert rows.digest() == same.digest()
    assert len({rows.digest(), fewer.digest(), other.digest()}) == 3


def test_rows_that_no_answer_could_be_right_for_are_no_exam_and_a_citation_is_no_part_of_one(tmp_path):
    tiny = save_tiny_model("smollm2-135m", tmp_path / "tiny", ZEPHYR)
    spec = EvaluationSpec(metrics=("final-answer",))

    def examined(answer, plain):
        rows = rows_of(AutoTokenizer.from_pretrained(tiny), [answer] * 4)
        asked = [[row["messages"][0], {"role": "assistant", "content": plain}] for row in rows]
        shown = {"tools": None, "golden": [2], "rank": 1}
        rows = [row | shown | {"place": f"rows:{i}", "asked": asked[i]} for i, row in enumerate(rows)]
        questions(tmp_path, tiny, rows)
        return exam_of(spec, tmp_path)

    with pytest.raises(FinetuningError, match="4 of 4 references state no final answer"):
        examined("many [2]", "many")
    exam = examined("18 [2]", "18")
    assert exam.golden == [[2]] * 4 and {question.reference for question in exam.without} == {"18"}
