"""A model on this machine as a judge: it replies as it does behind its server, and is in memory while it is asked."""

import gc
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.evaluation import judging_model
from finetuning.evaluation.judged import measure
from finetuning.evaluation.judging_model import JudgingModel, JudgingWeights
from finetuning.judge.judge import Judge, folder_name
from finetuning.judge.protocol import Pair, question
from finetuning.progress import Progress
from finetuning.recipe.judge import JudgeSpec
from tests.assistants import KWARGS, served, tiny_source
from tests.judges import judge_by

SILENT = Progress(lambda line: None, "")
CHOICES = [Pair([{"role": "user", "content": f"{n}?"}], "no", f"yes, {n}") for n in range(10)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_source(tmp_path_factory.mktemp("model"), max_position_embeddings=2048)


class Exclusive:
    """Who has the GPU."""

    held = times = 0

    @contextmanager
    def __call__(self):
        self.held, self.times = self.held + 1, self.times + 1
        try:
            yield
        finally:
            self.held -= 1


def weights_of(source, adapter=True):
    its = source.adapter if adapter else None
    return JudgingWeights("lora_adapter/tiny/01", source.base_model, its, source.tokenizer, KWARGS, True)


def model_of(source, exclusive=None, adapter=True, **more):
    spec = JudgeSpec(**{"name": "tiny", "max_tokens": 4, **more})
    return spec, JudgingModel(spec, weights_of(source, adapter), SILENT, exclusive or Exclusive())


def models():
    gc.collect()
    return sum(isinstance(found, PreTrainedModel) for found in gc.get_objects())


def test_it_replies_as_behind_its_server(source):
    asked = [question(pair, swapped) for pair in CHOICES[:3] for swapped in (False, True)]
    with served(source) as server:
        spec = JudgeSpec(endpoint=f"{server.url}/v1", name="tiny", max_tokens=4)
        with judge_by(spec, source.base_model.parent / "asked", SILENT) as judge:
            behind = [judge.asker.ask(messages) for messages in asked]
    _, model = model_of(source)
    with model.at_work():
        here = [model.ask(messages) for messages in asked]
        _, base = model_of(source, adapter=False)
        with base.at_work():
            assert [base.ask(messages).text for messages in asked] != [reply.text for reply in here]
    assert [reply.text for reply in here] == [reply.text for reply in behind] and model.sent == len(asked)
    assert all(reply.tokens[0] > 100 and 1 <= reply.tokens[1] <= 4 for reply in here)


def test_it_is_loaded_once_a_round_and_is_out_of_memory_after_it(source, tmp_path, monkeypatch):
    exclusive, loaded = Exclusive(), []
    load_side = judging_model.load_side

    def load(*asked):
        assert exclusive.held == 1, "another process may be at work on the GPU"
        model = load_side(*asked)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(judging_model, "load_side", load)
    spec, model = model_of(source, exclusive)
    with Judge(spec, model, tmp_path / folder_name(model), SILENT) as judge:
        found = measure(judge, CHOICES)
        assert len(loaded) == 1 and loaded[0]() is None and exclusive.held == 0
        assert measure(judge, CHOICES) == found and len(loaded) == exclusive.times == 1, "nothing is asked twice"
        measure(judge, [Pair([{"role": "user", "content": "new?"}], "a", "b")])
        assert len(loaded) == 2 and loaded[1]() is None
    assert found.questions == 20 and not found.carries_verdict


def test_a_failure_leaves_no_model_behind(source, tmp_path):
    exclusive = Exclusive()
    spec, model = model_of(source, exclusive, max_requests=5)
    before = models()
    with Judge(spec, model, tmp_path, SILENT) as judge, pytest.raises(FinetuningError, match="all 5 requests"):
        judge.decide(CHOICES, "human choices")
    assert exclusive.held == 0 and models() == before
    assert len((tmp_path / "asked.jsonl").read_text().split("\n\n")) == 5, "what was judged is kept"


@pytest.mark.parametrize("where", ["load_side", "generate"])
def test_where_memory_runs_out_the_judge_is_named_and_not_the_batch_of_the_exam(source, monkeypatch, where):
    def no_memory(*asked):
        error = torch.OutOfMemoryError("CUDA out of memory")
        if where == "load_side":
            raise error
        raise InfrastructureError("evaluation.batch_size: lower it") from error

    monkeypatch.setattr(judging_model, where, no_memory)
    _, model = model_of(source)
    told = r"^evaluation\.judge\.name: memory ran out .* tiny is too large for this machine \(CUDA out of memory\)"
    with model.at_work(), pytest.raises(InfrastructureError, match=told):
        model.ask(question(CHOICES[0], False))


def test_a_question_that_is_too_long_for_it_is_no_choice_and_the_others_are_asked(source, tmp_path):
    long = Pair([{"role": "user", "content": "why? " * 2000}], "a", "b")
    spec, model = model_of(source)
    with Judge(spec, model, tmp_path, SILENT) as judge:
        found = judge.decide([*CHOICES[:2], long], "human choices")
    assert found.decisions[2].straight == found.decisions[2].swapped == "unclear"
    assert "the model reads and writes 2,048" in (tmp_path / "asked.jsonl").read_text()


def test_a_template_without_a_system_message_is_asked_in_one(tmp_path):
    plain = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}" + (
        "{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )
    source = tiny_source(tmp_path, plain, max_position_embeddings=2048)
    _, model = model_of(source)
    with model.at_work():
        assert model.ask(question(CHOICES[0], False)).tokens[0] > 100


def test_other_weights_are_another_judge(source):
    names = [
        folder_name(JudgingModel(JudgeSpec(name="tiny"), replace(weights_of(source), source=of), SILENT, Exclusive()))
        for of in ("lora_adapter/01", "lora_adapter/02")
    ]
    assert len(set(names)) == 2
