"""Answers that are drawn from a model, several to a question, by the exam's own batched generation.

>>> draw(model, [[12, 7, 40]] * 4, 1, Decoding(limit=64, temperature=1.0), (progress, "step 3"))
[[9, 2, 1], [9, 1], [8, 2, 1], [9, 2, 1]]

A question is read once, however many answers are drawn to it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig

from finetuning.evaluation.decoding import Decoding
from finetuning.evaluation.generation import Batch, continuations, keep_head_whole, left_padded
from finetuning.progress import Progress


def draw(
    model: Any, prompts: Sequence[list[int]], stop: int, decoding: Decoding, told: tuple[Progress, str]
) -> list[list[int]]:
    """An answer to each prompt, with its stop token where there is one before the limit.

    Args:
        model: in eval mode, in whose number format all is computed that is computed here.
    """
    groups = [(prompt, len(list(same))) for prompt, same in groupby(prompts)]
    copies = groups[0][1] if len({count for _, count in groups}) == 1 else 1
    batch = left_padded([prompt for prompt, _ in groups] if copies > 1 else prompts, stop, model.device)
    with torch.no_grad(), keep_head_whole(model), only_what_is_asked(model):
        cache = read_once(model, batch, copies) if copies > 1 else None
        batch = Batch(*(part.repeat_interleave(copies, dim=0) for part in batch))
        found = continuations(model, batch, stop, decoding, told, cache)
    return [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in found]


def read_once(model: Any, prompts: Batch, copies: int) -> DynamicCache | None:
    """What a model keeps of all tokens of the prompts but the last, as often as answers are drawn to each.

    None where there is nothing to keep, or it cannot be copied.
    """
    if prompts.ids.shape[1] < 2:
        return None
    ids, mask = prompts.ids[:, :-1], prompts.mask[:, :-1]
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    cache = base.base_model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True).past_key_values
    if type(cache) is not DynamicCache:
        return None
    cache.batch_repeat_interleave(copies)
    return cache


@contextmanager
def only_what_is_asked(model: Any) -> Iterator[None]:
    """Draw by the model's own likelihoods within the block: no penalties and limits that its files ask for."""
    before = model.generation_config
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before_base = base.generation_config
    model.generation_config = base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config, base.generation_config = before, before_base
