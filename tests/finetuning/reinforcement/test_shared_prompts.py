"""A question that is read once with all answers to it: the likelihoods that each answer has alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetuning.reinforcement.shared_prompts import packed, reads_once, scored
from tests.tiny_models import save_tiny_model, talkative

PROMPTS = [[5, 6, 7, 8], [5, 6, 7, 8], [9, 10], [5, 6, 7, 8]]
ANSWERS = [[20, 21, 22], [30], [40, 41], [50, 51, 52, 53]]


def test_answers_to_one_question_share_a_row_and_no_answer_looks_at_another():
    found = packed(PROMPTS, ANSWERS, "cpu")
    assert found.ids.tolist() == [
        [5, 6, 7, 8, 20, 21, 22, 30],
        [9, 10, 40, 41, 0, 0, 0, 0],
        [5, 6, 7, 8, 50, 51, 52, 53],
    ]
    assert found.places[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 4]
    assert found.targets.tolist() == [20, 21, 22, 30, 40, 41, 50, 51, 52, 53]
    assert found.sources.tolist() == [3, 4, 5, 3, 9, 10, 19, 20, 21, 22]
    assert found.mask[0, 0, 7].tolist() == [True] * 4 + [False] * 3 + [True]
    assert found.mask.any(dim=-1).all(), "no token looks at nothing, which has no softmax"


def test_a_row_that_would_become_too_long_is_followed_by_another_one_of_the_same_question():
    found = packed(PROMPTS[:2], ANSWERS[:2], "cpu", most=7)
    assert found.ids.tolist() == [[5, 6, 7, 8, 20, 21, 22], [5, 6, 7, 8, 30, 0, 0]]


def model_of(name, folder, kernel="sdpa"):
    folder = save_tiny_model(name, folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=kernel).eval()


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen-2", "gemma-2b", "phi-2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_likelihoods_are_those_of_each_answer_alone(tmp_path, name, temperature):
    model = model_of(name, tmp_path)
    assert reads_once(model)
    found, spread = scored(model, model.get_output_embeddings(), packed(PROMPTS, ANSWERS, "cpu"), temperature)
    start = 0
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / temperature
        likely, part = logits.log_softmax(1), slice(start, start + len(answer))
        torch.testing.assert_close(found[part], likely[range(len(answer)), answer], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(spread[part], -(likely.exp() * likely).sum(1), rtol=1e-4, atol=1e-5)
        start += len(answer)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("gemma-3", "sdpa"),  # layers that look back a part of the way
        ("zephyr-7b-beta", "sdpa"),
        ("gpt-2", "eager"),
    ],
)
def test_a_model_that_cannot_read_so_is_read_answer_by_answer(tmp_path, name, kernel):
    assert not reads_once(model_of(name, tmp_path, kernel))


def test_a_model_that_takes_no_notice_of_the_places_that_it_is_told_is_found_by_trying_it(tmp_path):
    folder = talkative(save_tiny_model("smollm2-135m", tmp_path))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert reads_once(model)

    def in_a_row(module, args, read):
        return args, read | {"position_ids": torch.arange(read["input_ids"].shape[1])[None]}

    model.register_forward_pre_hook(in_a_row, with_kwargs=True)
    assert not reads_once(model)
