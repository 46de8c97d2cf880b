"""Evaluation: both models on the same rows, their loss as training has it, and honest intervals."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation.comparison import compare, figure_of, paired_bootstrap
from finetuning.evaluation.exam import Exam, losses_of, measures_loss, require_final_answers
from finetuning.evaluation.generation import Question
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from tests.tiny_models import ZEPHYR, save_tiny_model

SILENT = Progress(lambda line: None, "")
MATCH, LOSS, PERPLEXITY = METRICS["exact-match"], METRICS["loss"], METRICS["perplexity"]


def right(*answers):
    """Outcomes of exact match, right where True."""
    return [Outcome("yes", "yes" if answer else "no", True) for answer in answers]


def test_the_interval_of_equal_gains_is_their_value():
    assert paired_bootstrap(MATCH, right(*[False] * 50), right(*[True] * 50)) == (1.0, 1.0)


def test_the_interval_covers_the_true_gain_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(60):
        base, tuned = (right(*rng.random(80) < share) for share in (0.3, 0.6))
        low, high = paired_bootstrap(MATCH, base, tuned)
        covered += low <= 0.3 <= high
    assert 50 <= covered <= 60


def test_few_rows_give_a_wider_interval_than_many():
    rng = np.random.default_rng(2)
    base, tuned = (right(*rng.random(400) < 0.5) for _ in range(2))
    few, many = paired_bootstrap(MATCH, base[:20], tuned[:20]), paired_bootstrap(MATCH, base, tuned)
    assert few[1] - few[0] > 2 * (many[1] - many[0])


def test_rows_are_drawn_for_both_models_together():
    rng = np.random.default_rng(3)
    base = right(*rng.random(100) < 0.5)
    low, high = paired_bootstrap(MATCH, base, base)
    assert (low, high) == (0.0, 0.0)  # drawn apart, the same answers would seem to differ


def test_the_loss_is_a_mean_over_tokens_and_not_over_rows():
    rows = [Outcome("", "", True, loss=1.0, supervised=1), Outcome("", "", True, loss=6.0, supervised=3)]
    assert figure_of(LOSS, rows) == pytest.approx(7 / 4)
    assert figure_of(PERPLEXITY, rows) == pytest.approx(math.exp(7 / 4))


def test_the_gain_in_perplexity_has_an_interval_of_perplexities():
    rng = np.random.default_rng(4)
    base = [Outcome("", "", True, loss=float(loss), supervised=2) for loss in rng.uniform(3, 5, 50)]
    tuned = [row._replace(loss=row.loss - 1) for row in base]
    found = compare(PERPLEXITY, base, tuned)
    assert found.gain == pytest.approx(found.tuned - found.base)
    assert found.interval[0] < found.gain < found.interval[1] < 0
    assert found.higher_is_better is False


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


def test_references_without_a_final_answer_are_a_mistake_and_not_a_score_of_zero():
    asked = [Question("train-00.parquet:3", [], [], "Paris, of course."), Question("x", [], [], "#### 4")]
    with pytest.raises(FinetuningError, match=r"1 of 2 references state no final answer.*train-00\.parquet:3"):
        require_final_answers(asked)
