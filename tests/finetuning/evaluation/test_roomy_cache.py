"""A cache with room: it holds what transformers' own one holds, whatever is done to it, and copies it rarely."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer

from finetuning.chat.template import stop_token
from finetuning.evaluation import generation
from finetuning.evaluation.decoding import Decoding
from finetuning.evaluation.generation import continuations, left_padded
from finetuning.evaluation.roomy_cache import ROOM, RoomyLayer, give_room
from tests.finetuning.reinforcement.group_jobs import SILENT
from tests.tiny_models import ZEPHYR, save_tiny_model, talkative


def rows_of(cache):
    return torch.arange(len(cache.layers[0].keys))


CHANGES = {
    "nothing": lambda cache: None,
    "rows leave and change places": lambda cache: cache.reorder_cache(rows_of(cache)[[-1, 0]]),
    "rows change places": lambda cache: cache.batch_select_indices(rows_of(cache).flip(0)),
    "rows come again": lambda cache: cache.batch_repeat_interleave(2),
    "the last tokens are taken back": lambda cache: cache.crop(-2),
    "all is forgotten": lambda cache: cache.reset(),
}


def both():
    caches = DynamicCache(), DynamicCache()
    prompt = torch.randn(2, 3, 2, 7, 4)
    for cache in caches:
        for layer in range(2):
            cache.update(prompt[0] + layer, prompt[1] + layer, layer)
    give_room(caches[1])
    assert all(type(layer) is RoomyLayer for layer in caches[1].layers)
    return caches


def grow(caches, tokens):
    rows = caches[0].layers[0].keys.shape[0] if caches[0].get_seq_length() else 3
    new = torch.randn(2, rows, 2, tokens, 4)
    for layer in range(2):
        plain, roomy = (cache.update(new[0] + layer, new[1] + layer, layer) for cache in caches)
        assert all(torch.equal(a, b) for a, b in zip(plain, roomy, strict=True))
    assert caches[0].get_seq_length() == caches[1].get_seq_length()


@pytest.mark.parametrize("change", CHANGES)
def test_it_holds_what_the_plain_one_holds(change):
    caches = both()
    for tokens in (1, 3, ROOM, 2 * ROOM + 1):
        grow(caches, tokens)
        for cache in caches:
            CHANGES[change](cache)
        grow(caches, 1)
        grow(caches, 1)


def test_a_new_token_moves_nothing_where_there_is_room():
    _, cache = both()
    more = torch.ones(3, 2, 1, 4)
    places = [cache.update(more, more, 0)[0].data_ptr() for _ in range(ROOM + 1)]
    assert len(set(places)) == 1
    assert cache.update(more, more, 0)[0].data_ptr() != places[0]


def test_what_is_kept_in_another_way_stays_as_it_is():
    cache = DynamicCache()
    cache.update(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), 1)  # layer 0 has nothing yet
    give_room(cache)
    assert [type(layer) for layer in cache.layers] == [DynamicLayer, RoomyLayer]
    for other in (None, object()):
        give_room(other)


@pytest.mark.parametrize("recipe", ["smollm2-135m", "gemma-3", "falcon-7b"])
def test_answers_are_those_of_transformers_own_cache(recipe, tmp_path, monkeypatch):
    folder = talkative(save_tiny_model(recipe, tmp_path, ZEPHYR))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, stop = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), stop_token(tokenizer)
    prompts = left_padded([tokenizer(text)["input_ids"] for text in ("a b", "what is it", "c d e f")], stop, "cpu")
    asked = (model, prompts, stop, Decoding(ROOM + 20), (SILENT, ""))
    roomy = continuations(*asked)
    monkeypatch.setattr(generation, "give_room", lambda cache: None)
    assert continuations(*asked) == roomy
