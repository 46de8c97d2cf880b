"""Drawn answers: the model's own likelihoods, the same whether a question is read once or for each answer."""

from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.chat.template import stop_token
from finetuning.evaluation.decoding import Decoding
from finetuning.reinforcement.prompts import GroupBatches
from finetuning.reinforcement.sampling import draw
from finetuning.training.batches import StepBatches
from tests.finetuning.reinforcement.group_jobs import SILENT, rows_of
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative

TOLD = (SILENT, "step 1")


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma-3", "falcon-7b"])
def tiny(request, tmp_path_factory):
    folder = talkative(save_tiny_model(request.param, tmp_path_factory.mktemp("tiny"), ZEPHYR))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [row["input_ids"][: row["labels"].count(-100)] for row in rows_of(tokenizer)]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), prompts, stop_token(tokenizer)


def test_a_question_that_is_read_once_is_answered_as_one_that_is_read_for_each_answer(tiny):
    model, prompts, stop = tiny
    groups = [prompt for prompt in prompts for _ in range(3)]
    torch.manual_seed(7)
    once = draw(model, groups, stop, Decoding(10, 1.0), TOLD)
    torch.manual_seed(7)
    # Not of equal groups, so that each is read by itself; the order is the same.
    each = draw(model, [*groups, prompts[0]], stop, Decoding(10, 1.0), TOLD)
    greedy = draw(model, groups, stop, Decoding(10), TOLD)
    assert len(once) == len(groups) == len(each) - 1
    assert greedy[0] == greedy[1] == greedy[2] and greedy[::3] == draw(model, prompts, stop, Decoding(10), TOLD)
    assert len({tuple(ids) for ids in once}) > 4, "answers to one question are drawn one by one"


def test_answers_end_with_their_stop_token_or_at_the_limit(tiny):
    model, prompts, own = tiny
    stop = Counter(i for ids in draw(model, prompts * 8, own, Decoding(10, 1.0), TOLD) for i in ids).most_common(1)[0][
        0
    ]
    found = draw(model, [prompts[0]] * 64, stop, Decoding(10, 1.0), TOLD)
    for ids in found:
        assert stop not in ids[:-1] and (ids[-1] == stop or len(ids) == 10)


def test_first_tokens_come_as_often_as_the_model_finds_them_likely(tiny):
    model, prompts, stop = tiny
    torch.manual_seed(0)
    found = Counter(ids[0] for ids in draw(model, [prompts[1]] * 4000, stop, Decoding(1, 0.2), TOLD))
    with torch.no_grad():
        likely = (model(torch.tensor([prompts[1]])).logits[0, -1] / 0.2).softmax(0)
    for token, times in found.most_common(3):
        assert times / 4000 == pytest.approx(float(likely[token]), abs=4 * (0.25 / 4000) ** 0.5)


def test_a_files_own_penalties_are_not_asked_and_come_back(tiny):
    model, prompts, stop = tiny
    plain = draw(model, prompts, stop, Decoding(10), TOLD)
    model.generation_config.repetition_penalty = 5.0
    assert draw(model, prompts, stop, Decoding(10), TOLD) == plain
    assert model.generation_config.repetition_penalty == 5.0
    model.generation_config.repetition_penalty = None


def test_each_process_has_its_own_part_of_every_steps_groups_and_an_epoch_its_own_order():
    def of(process, epoch=0):
        steps = StepBatches([1] * 10, 4, 1, "random", 42, process, 2)  # pyright: ignore[reportArgumentType]
        batches = GroupBatches(steps, copies=2, times=3)
        batches.set_epoch(epoch)
        assert len(batches) == 6
        return list(batches)

    first, second = of(0), of(1)
    assert [len(part) for part in first] == [4] * 6 and first[0] == first[1] == first[2] != first[3]
    asked = [row for step in (0, 3) for part in (first, second) for row in part[step]]
    assert sorted(Counter(asked).values()) == [2] * 8, "two rows are left over"
    assert of(0, epoch=1) != first and of(0, epoch=1) == of(0, epoch=1)
