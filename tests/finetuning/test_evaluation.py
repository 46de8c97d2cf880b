"""Evaluation: the same answers in a batch as alone, honest intervals, and adapters that do nothing are refused."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation import Question, answer_of, bootstrap_interval, generate, load_tuned, require_final_answers
from finetuning.progress import Progress
from finetuning.recipe import EvaluationSpec
from finetuning.rendering import Conversation, Renderer
from tests.tiny_models import ZEPHYR, save_tiny_model

SILENT = Progress(lambda line: None, "")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny model in float32 and its tokenizer."""
    folder = save_tiny_model("smollm2-135m", tmp_path_factory.mktemp("tiny"), ZEPHYR)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for weight in model.parameters():  # a fresh model says the same to everything
        torch.nn.init.normal_(weight, std=0.4)
    return model, AutoTokenizer.from_pretrained(folder)


def questions(tokenizer, count):
    texts = ["Solve for y: " + "1 + " * number + "1 = 1y ." for number in range(count)]
    prompts = [[{"role": "user", "content": text}] for text in texts]
    renderer = Renderer(tokenizer)
    return [Question(str(i), prompt, renderer.prompt(Conversation(prompt)), "") for i, prompt in enumerate(prompts)]


def test_a_batch_answers_as_each_row_alone_does(tiny):
    model, tokenizer = tiny
    asked = questions(tokenizer, 7)
    together, alone = (
        generate(model, tokenizer, asked, EvaluationSpec(max_new_tokens=12, batch_size=size), SILENT, "tiny")
        for size in (4, 1)
    )
    assert together == alone
    assert len({answer.text for answer in alone}) > 1, "all answers are equal, so their order proves nothing"


def test_an_answer_ends_before_its_stop_token():
    class Letters:
        def decode(self, ids, skip_special_tokens):
            return "".join(chr(96 + i) for i in ids)

    stopped, cut = answer_of(Letters(), [1, 2, 9, 9], 9), answer_of(Letters(), [1, 2, 3, 4], 9)  # type: ignore[arg-type]
    assert (stopped.text, stopped.tokens, stopped.stopped) == ("ab", 3, True)
    assert (cut.text, cut.tokens, cut.stopped) == ("abcd", 4, False)


def test_the_interval_of_equal_differences_is_their_value():
    assert bootstrap_interval(np.full(50, 0.5)) == (0.5, 0.5)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        low, high = bootstrap_interval(rng.normal(0.3, 1.0, 80))
        covered += low <= 0.3 <= high
    assert 50 <= covered <= 60


def test_few_rows_give_a_wider_interval_than_many():
    rng = np.random.default_rng(2)
    rows = rng.choice([-1.0, 0.0, 1.0], 400)
    few, many = bootstrap_interval(rows[:20]), bootstrap_interval(rows)
    assert few[1] - few[0] > 2 * (many[1] - many[0])


def test_an_adapter_that_learned_nothing_is_refused(tiny, tmp_path):
    model, _ = tiny
    get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    fresh = AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(FinetuningError, match=r"B matrices of the adapter are zero.*nothing was learned"):
        load_tuned(fresh, tmp_path)


def test_padding_never_reaches_an_answer(tiny):
    model, tokenizer = tiny
    with torch.inference_mode():
        answers = generate(
            model, tokenizer, questions(tokenizer, 3), EvaluationSpec(max_new_tokens=3, batch_size=3), SILENT, "tiny"
        )
    assert all("</s>" not in answer.text and answer.tokens <= 3 for answer in answers)


def test_references_without_a_final_answer_are_a_mistake_and_not_a_score_of_zero():
    asked = [Question("train-00.parquet:3", [], [], "Paris, of course."), Question("x", [], [], "#### 4")]
    with pytest.raises(FinetuningError, match=r"1 of 2 references state no final answer.*train-00\.parquet:3"):
        require_final_answers(asked)
