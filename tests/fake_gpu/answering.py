"""The first tokens of a batch of answers, as the exam asks for them, on shapes alone. For a process with a fake GPU."""

from contextlib import suppress
from typing import Any

import torch

from finetuning.evaluation.decoding import Decoding
from finetuning.evaluation.generation import continuations, keep_head_whole, left_padded
from finetuning.memory import shapes
from tests.fake_gpu.counting import Counter
from tests.fake_gpu.traces import Answering, Answers
from tests.fake_gpu.tracing import counted

ASKED, STOP = 5, 6  # any tokens


class Enough(Exception):
    """So many tokens have been seen."""


class Tokens:
    """A `Progress` that is told of each token of a batch: tells the counter, remembers the most held, and ends it."""

    def __init__(self, counter: Counter, most: int) -> None:
        self.counter, self.most = counter, most
        self.peaks: list[int] = []
        counter.phase, counter.peak = "prompts", counter.bytes

    def update(self, _: str) -> None:
        """Begin the next token.

        Raises:
            Enough: it was the last one.
        """
        self.peaks.append(self.counter.peak)
        if len(self.peaks) == self.most:
            raise Enough
        self.counter.phase, self.counter.peak = f"token {len(self.peaks) + 1}", self.counter.bytes


def answered(asked: Answering) -> Answers:
    """What the prompts and the first tokens of their answers need of the GPU."""
    recipe = asked.recipe
    model = shapes.adapted_model(recipe, asked.config, recipe.base_model.attention[0], []).eval()
    counter = Counter(length=0, padded=len({*asked.prompts}) > 1)
    caches: list[Any] = []
    with counted(counter, model):
        for parameter in model.parameters():  # as `load_side` leaves an adapter that was trained in mixed precision
            parameter.data = parameter.data.to(model.dtype) if parameter.requires_grad else parameter.data
        counter.hold([*shapes.tensors_of(model)])
        weights, progress = counter.bytes, Tokens(counter, asked.tokens)
        model.get_base_model().register_forward_hook(lambda *given: caches.append(given[-1].past_key_values))
        prompts = left_padded([[ASKED] * length for length in asked.prompts], ASKED, "cuda")
        with keep_head_whole(model), torch.no_grad(), suppress(Enough):
            continuations(model, prompts, STOP, Decoding(asked.limit), (progress, ""))  # pyright: ignore[reportArgumentType]
        cache = sum(part.nbytes for layer in caches[-1].layers for part in (layer.keys, layer.values))
    products, waits, attention = (
        {phase: dict(counts) for phase, counts in tally.items()}
        for tally in (counter.products, counter.waits, counter.attention)
    )
    return Answers(weights, progress.peaks, cache, dict(counter.kernels), products, waits, attention)
