"""Generation: a batch answers as each row alone does, on every architecture, and rows leave it when they end."""

from typing import ClassVar

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from finetuning.chat.template import stop_token
from finetuning.errors import FinetuningError
from finetuning.evaluation.generation import Answer, Question, UntilSomeEnd, answer_of, generate, left_padded
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from tests.tiny_models import CONFIGS, ZEPHYR, save_tiny_model, talkative

SILENT = Progress(lambda line: None, "")
LIMIT = 24
NO_TOKEN = 10**6


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def tiny(request, tmp_path_factory):
    """A tiny model of each architecture in float32, and its tokenizer."""
    folder = talkative(save_tiny_model(request.param, tmp_path_factory.mktemp("tiny"), ZEPHYR))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def questions(tokenizer, count=7):
    texts = ["Solve for y: " + "1 + " * number + f"1 = {number}y" for number in range(count)]
    prompts = [[{"role": "user", "content": text}] for text in texts]
    renderer = Renderer(tokenizer)
    return [Question(str(i), prompt, renderer.prompt(Conversation(prompt)), "") for i, prompt in enumerate(prompts)]


def a_token_that_ends_some(model, tokenizer):
    """A token that some answers come to and others do not, so that rows leave the batch at different times."""
    new = [alone(model, question, stop=NO_TOKEN) for question in questions(tokenizer)]
    first = {token: [ids.index(token) if token in ids else LIMIT for ids in new] for ids in new for token in ids}
    return max(first, key=lambda token: len(set(first[token])))


def alone(model, question, stop):
    """New tokens of transformers' own generation for one prompt, which is not padded."""
    ids = torch.tensor([question.prompt_ids])
    settings = {"max_new_tokens": LIMIT, "do_sample": False, "eos_token_id": stop, "pad_token_id": 0}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return output[0, ids.shape[1] :].tolist()


def test_a_batch_answers_as_transformers_does_row_by_row(tiny, monkeypatch):
    model, tokenizer = tiny
    stop = a_token_that_ends_some(model, tokenizer)
    monkeypatch.setattr("finetuning.evaluation.generation.stop_token", lambda tokenizer: stop)
    asked = questions(tokenizer)
    together = generate(model, tokenizer, asked, EvaluationSpec(max_new_tokens=LIMIT, batch_size=5), SILENT, "tiny")
    expected = [answer_of(tokenizer, alone(model, question, stop), stop) for question in asked]
    assert together == expected
    assert len({answer.text for answer in expected}) > 1, "all answers are equal, so their order proves nothing"
    assert len({answer.tokens for answer in expected}) > 1, "all answers are as long, so no row left before another"


def test_a_row_that_has_ended_costs_the_others_nothing(tiny, monkeypatch):
    model, tokenizer = tiny
    stop = a_token_that_ends_some(model, tokenizer)
    monkeypatch.setattr("finetuning.evaluation.generation.stop_token", lambda tokenizer: stop)
    computed = []
    hook = model.register_forward_pre_hook(
        lambda module, args, inputs: computed.append(inputs["input_ids"].shape[0]), with_kwargs=True
    )
    answers = generate(
        model, tokenizer, questions(tokenizer), EvaluationSpec(max_new_tokens=LIMIT, batch_size=7), SILENT, "tiny"
    )
    hook.remove()
    # A forward pass for each token of each answer, and none for rows that have ended.
    assert sum(computed) == sum(answer.tokens for answer in answers)


def test_an_answer_ends_before_its_stop_token():
    class Letters:
        added_tokens_decoder: ClassVar[dict] = {}

        def decode(self, ids, skip_special_tokens):
            return "".join(chr(96 + i) for i in ids)

    stopped, cut = answer_of(Letters(), [1, 2, 9, 9], 9), answer_of(Letters(), [1, 2, 3, 4], 9)  # type: ignore[arg-type]
    assert stopped == Answer("ab", 3, True)
    assert cut == Answer("abcd", 4, False)


def test_padding_is_on_the_left_and_hidden():
    ids, mask = left_padded([[5, 6, 7], [8]], 0, "cpu")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_no_answer_is_longer_than_the_limit_or_has_padding_in_it(tiny):
    model, tokenizer = tiny
    spec = EvaluationSpec(max_new_tokens=3, batch_size=3)
    answers = generate(model, tokenizer, questions(tokenizer, 4), spec, SILENT, "tiny")
    assert all("</s>" not in answer.text and answer.tokens <= 3 for answer in answers)
    assert stop_token(tokenizer) == tokenizer.eos_token_id


def test_a_frozen_head_is_not_copied_for_every_row(tiny):
    model, tokenizer = tiny
    in_one_piece = []
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, given, output: in_one_piece.append(given[0].is_contiguous()))
    generate(model, tokenizer, questions(tokenizer, 3), EvaluationSpec(max_new_tokens=2), SILENT, "tiny")
    hook.remove()
    assert in_one_piece and all(in_one_piece)
    assert not head._forward_pre_hooks, "the model is left as it was"


def test_rows_leave_a_large_batch_in_groups():
    criterion = UntilSomeEnd(9, 0, SILENT, "tiny")
    batch = torch.zeros(64, 3, dtype=torch.long)
    batch[:3, -1] = 9
    assert not criterion(batch, None).any()
    batch[:4, -1] = 9
    assert criterion(batch, None).all()


def test_memory_that_runs_out_names_the_setting(tiny):
    model, tokenizer = tiny

    def no_room(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = model.get_input_embeddings().register_forward_pre_hook(no_room)
    with pytest.raises(FinetuningError, match=r"evaluation\.batch_size: .* 3 prompts answered together.*2\.00 GiB"):
        generate(model, tokenizer, questions(tokenizer, 3), EvaluationSpec(), SILENT, "tiny")
    hook.remove()
