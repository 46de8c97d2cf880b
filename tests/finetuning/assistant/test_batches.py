"""Many answers at once: each is what it would be alone, whenever it began and whoever left meanwhile."""

import queue
import threading
from contextlib import nullcontext

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetuning.assistant import batches
from finetuning.assistant.batches import Busy, Engine, Manner, Row
from finetuning.chat.rendering import Renderer
from finetuning.chat.segments import Conversation
from tests.tiny_models import CONFIGS, ZEPHYR, save_tiny_model, talkative
from tests.waiting import PATIENCE

LIMIT, NO_TOKEN = 20, 10**6
TUNED = Manner("tuned")


def loaded(folder):
    model = AutoModelForCausalLM.from_pretrained(talkative(folder), dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def tiny(request, tmp_path_factory):
    """A tiny model of each architecture in float32, and its tokenizer."""
    return loaded(save_tiny_model(request.param, tmp_path_factory.mktemp("tiny"), ZEPHYR))


@pytest.fixture
def small(tmp_path):
    return loaded(save_tiny_model("smollm2-135m", tmp_path, ZEPHYR))


def prompts(tokenizer, count):
    renderer = Renderer(tokenizer)
    texts = ["Solve for y: " + "1 + " * number + f"1 = {number}y" for number in range(count)]
    return [renderer.prompt(Conversation([{"role": "user", "content": text}])) for text in texts]


def alone(model, prompt, stop, limit=LIMIT):
    """New tokens of transformers' own generation for one prompt, which is not padded."""
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": limit, "do_sample": False, "eos_token_id": stop, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist()


class Client:
    """Waits for an answer, and keeps its tokens."""

    def __init__(self, prompt, limit=LIMIT, manner=TUNED, put=None):
        self.tokens, self.ended, self.begun = [], queue.SimpleQueue(), threading.Event()
        self.row = Row(prompt, limit, manner, put or self.put, self.ended.put)

    def put(self, token):
        self.tokens.append(token)
        self.begun.set()
        return False

    def reason(self):
        return self.ended.get(timeout=PATIENCE)


def engine_of(model, tokenizer, stop):
    return Engine(model, lambda side: nullcontext(), tokenizer, stop)


def a_token_that_ends_some(model, asked):
    """A token that some answers come to and others do not, so that rows leave at different times."""
    new = [alone(model, prompt, NO_TOKEN) for prompt in asked]
    first = {token: [ids.index(token) if token in ids else LIMIT for ids in new] for ids in new for token in ids}
    return max(first, key=lambda token: len(set(first[token])))


def test_answers_that_began_at_different_times_are_those_of_each_alone(tiny):
    model, tokenizer = tiny
    asked = prompts(tokenizer, 7)
    stop = a_token_that_ends_some(model, asked)
    engine, clients = engine_of(model, tokenizer, stop), [Client(prompt) for prompt in asked]
    for client in clients[:3]:
        engine.ask(client.row)
    for client in clients[:3]:
        client.begun.wait(1)
    for client in clients[3:]:
        engine.ask(client.row)
    reasons = [client.reason() for client in clients]
    engine.close()
    expected = [alone(model, prompt, stop) for prompt in asked]
    assert [client.tokens for client in clients] == [[t for t in ids if t != stop] for ids in expected]
    assert reasons == ["stop" if ids[-1] == stop else "length" for ids in expected]
    assert len({len(ids) for ids in expected}) > 1, "all answers are as long, so no row left before another"


def test_batches_of_one_manner_become_one(small):
    model, tokenizer = small
    made = [batches.Batch([Client(prompt).row], 0, model.device) for prompt in prompts(tokenizer, 2)]
    for batch in made:
        batch.advance(model, NO_TOKEN)
    assert made[0].takes(made[1])
    other = batches.Batch([Client([5], manner=Manner("base")).row], 0, model.device)
    other.advance(model, NO_TOKEN)
    assert not made[0].takes(other), "of another side"
    made[0].take(made[1])
    assert len(made[0].rows) == 2 and made[0].ids.shape == made[0].mask.shape


@torch.inference_mode()
def test_a_batch_is_no_wider_than_the_longest_of_those_in_it(tiny):
    model, tokenizer = tiny
    asked = [(prompt, limit) for limit in (30, 21, 17) for prompt in prompts(tokenizer, 6)]
    clients = [Client(prompt, limit) for prompt, limit in asked]
    made = [batches.Batch([client.row], 0, model.device) for client in clients]
    batch, widths = made[0], []
    batch.advance(model, NO_TOKEN)
    for new in made[1:]:
        new.advance(model, NO_TOKEN)
        if not batch.takes(new):
            return  # What this model keeps is not put together: rows only leave its batches, and none joins.
        batch.take(new)
        batch.advance(model, NO_TOKEN)
        widths.append((batch.ids.shape[1], max(len(row.prompt_ids) + row.written for row in batch.rows)))
        assert batch.mask.shape == batch.ids.shape
        assert {layer.keys.shape[-2] for layer in batches.layers_of(batch.cache)} == {batch.ids.shape[1] - 1}
    while batch.rows:
        batch.advance(model, NO_TOKEN)
    assert [width for width, _ in widths] == [longest for _, longest in widths]
    assert [client.tokens for client in clients] == [alone(model, prompt, NO_TOKEN, limit) for prompt, limit in asked]


def test_a_long_answer_keeps_nobody_waiting(small):
    model, tokenizer = small
    first, second = prompts(tokenizer, 2)
    engine = engine_of(model, tokenizer, NO_TOKEN)
    long, short = Client(first, limit=400), Client(second, limit=4, manner=Manner("base"))
    engine.ask(long.row)
    long.begun.wait(PATIENCE)
    engine.ask(short.row)
    assert short.reason() == "length"
    assert len(long.tokens) < 400
    long.row.left.set()
    assert long.reason() == "left"
    engine.close()


def test_whoever_leaves_frees_a_place(small, monkeypatch):
    monkeypatch.setattr(batches, "MOST_AT_WORK", 1)
    model, tokenizer = small
    first, second = prompts(tokenizer, 2)
    engine = engine_of(model, tokenizer, NO_TOKEN)
    leaving, waiting = Client(first, limit=450), Client(second, limit=3)
    engine.ask(leaving.row)
    leaving.begun.wait(PATIENCE)
    engine.ask(waiting.row)
    leaving.row.left.set()
    assert (leaving.reason(), waiting.reason()) == ("left", "length")
    assert engine.at_work() == 0
    engine.close()


def test_too_many_are_turned_away(small, monkeypatch):
    monkeypatch.setattr(batches, "MOST_AT_WORK", 1)
    monkeypatch.setattr(batches, "MOST_WAITING", 2)
    model, tokenizer = small
    engine, (prompt,) = engine_of(model, tokenizer, NO_TOKEN), prompts(tokenizer, 1)
    clients = [Client(prompt, limit=450) for _ in range(3)]
    engine.ask(clients[0].row)
    clients[0].begun.wait(PATIENCE)
    for client in clients[1:]:
        engine.ask(client.row)
    with pytest.raises(Busy, match="2 questions wait"):
        engine.ask(Client(prompt).row)
    engine.close()
    assert all(isinstance(client.reason(), Busy) for client in clients)
    with pytest.raises(Busy):
        engine.ask(Client(prompt).row)


def test_whoever_left_while_waiting_takes_nobodys_place(small, monkeypatch):
    monkeypatch.setattr(batches, "MOST_AT_WORK", 1)
    monkeypatch.setattr(batches, "MOST_WAITING", 1)
    model, tokenizer = small
    engine, (prompt,) = engine_of(model, tokenizer, NO_TOKEN), prompts(tokenizer, 1)
    long, gone, last = Client(prompt, limit=450), Client(prompt), Client(prompt)
    engine.ask(long.row)
    long.begun.wait(PATIENCE)
    engine.ask(gone.row)
    gone.row.left.set()
    engine.ask(last.row)
    assert gone.reason() == "left" and gone.tokens == []
    engine.close()


@pytest.mark.parametrize("step", ["__init__", "take"])
def test_whatever_fails_the_others_are_answered(small, monkeypatch, step):
    model, tokenizer = small
    first, second = prompts(tokenizer, 2)
    engine = engine_of(model, tokenizer, NO_TOKEN)

    def fail(*given):
        raise MemoryError("no memory")

    clients = [Client(first, limit=200), Client(second, limit=200)]
    with monkeypatch.context() as patch:
        if step == "take":
            patch.setattr(batches.Batch, "take", fail)
            engine.ask(clients[0].row)
            clients[0].begun.wait(PATIENCE)
        else:
            patch.setattr(batches.Batch, "__init__", fail)
            engine.ask(clients[0].row)
        engine.ask(clients[1].row)
        assert all("memory ran out" in str(client.reason()) for client in clients)
    again = Client(first)
    engine.ask(again.row)
    assert again.reason() == "length" and again.tokens == alone(model, first, NO_TOKEN)
    engine.close()


def test_one_seed_draws_one_answer_whatever_runs_beside_it(small):
    model, tokenizer = small
    first, second = prompts(tokenizer, 2)

    def drawn(seed, *beside):
        engine = engine_of(model, tokenizer, NO_TOKEN)
        client = Client(first, manner=Manner("tuned", 1.5, 1.0, seed))
        others = [Client(second, manner=manner) for manner in beside]
        for one in (*others, client):
            engine.ask(one.row)
        client.reason()
        engine.close()
        return client.tokens

    noise = (Manner("tuned"), Manner("tuned", 1.5, 1.0, 3), Manner("tuned", 1.5))
    assert drawn(7) == drawn(7, *noise) != drawn(8)
    torch.manual_seed(1)
    unseeded = {tuple(client) for client in (drawn(None), drawn(None))}
    assert len(unseeded) == 2


def test_an_error_of_one_answer_is_its_own(small):
    def broken(token):
        raise ValueError("told nobody")

    model, tokenizer = small
    first, second = prompts(tokenizer, 2)
    engine = engine_of(model, tokenizer, NO_TOKEN)
    bad, good = Client(first, put=broken), Client(second)
    engine.ask(bad.row)
    engine.ask(good.row)
    assert isinstance(bad.reason(), ValueError) and good.reason() == "length"
    assert good.tokens == alone(model, second, NO_TOKEN)
    engine.close()


def test_a_model_that_fails_ends_its_answers_and_goes_on(small, monkeypatch):
    model, tokenizer = small
    (prompt,) = prompts(tokenizer, 1)
    engine = engine_of(model, tokenizer, NO_TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(model, "generate", lambda **given: (_ for _ in ()).throw(MemoryError("no memory")))
        client = Client(prompt)
        engine.ask(client.row)
        assert "memory ran out with 1 answers at once" in str(client.reason())
    again = Client(prompt)
    engine.ask(again.row)
    assert again.reason() == "length"
    engine.close()
