"""Traces trainings and answers in a process of its own, to which one GPU is given for as long as it lives.

>>> with fake_gpu("H100") as traced:
...     traced(Training(recipe, MistralConfig(num_hidden_layers=2), lengths=[512, 300])).peaks
[5_301_600_256, 5_640_000_000]
"""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.fake_gpu.device import install


@dataclass(frozen=True)
class Training:
    """What is traced: two steps of training, and an evaluation."""

    recipe: Any
    """A `Recipe` with the number format and the kernel of the GPU (`Gpu.adapted`)."""
    config: Any
    """Of the base model (transformers)."""
    lengths: list[int]
    """Tokens of each row of training, all of which are learned but the first."""
    supervised: int | None = None
    """How many at the end of each row are learned, where it is not all."""
    evaluates: bool = True
    kept_layers: int = 0
    """How many layers, the last ones, keep their activations where the others compute them twice."""
    processes: int = 1
    """How many train together; what the first of them does is traced."""
    writes_weights_out: bool = False
    fuses: bool = True
    """Whether adapters and norms compute as they do here; else as in peft and transformers."""


class Kernel(NamedTuple):
    """What one kernel does."""

    name: str
    """torch's, or a library's, of the operation."""
    bytes: int
    """Of what it reads and makes."""
    operations: int
    """Of matrix products; a multiplication and an addition are two."""


@dataclass(frozen=True)
class Trace:
    """What two steps need of a GPU, by phase: `step 1`, `optimizer 1`, `step 2`, `optimizer 2`, `evaluation`."""

    weights: int
    """Bytes of the base model and its adapter."""
    peaks: list[int] = field(default_factory=list)
    """The most bytes that each step held."""
    eval_peak: int = 0
    kernels: dict[str, int] = field(default_factory=dict)
    products: dict[str, dict[str, int]] = field(default_factory=dict)
    """Matrix products by number format."""
    multiplications: dict[str, int] = field(default_factory=dict)
    """Of two numbers, in these products."""
    work: dict[str, dict[Kernel, int]] = field(default_factory=dict)
    """How often each kernel was started; attention's, which reads little for what it computes, is not among them."""
    waits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of the host for the GPU, by operation and place."""
    attention: dict[str, dict[str, int]] = field(default_factory=dict)
    """Calls of attention kernels by name."""
    scales_loss: bool = False
    """Whether gradients are scaled, as float16 needs it."""
    collectives: dict[str, dict[str, int]] = field(default_factory=dict)
    """Calls of several processes to each other by name."""
    exchanged: dict[str, dict[str, int]] = field(default_factory=dict)
    """Bytes that they are about."""


@dataclass(frozen=True)
class Answering:
    """What is traced: the prompts of a batch, and the first tokens of their answers."""

    recipe: Any
    config: Any
    prompts: list[int]
    """Tokens of each."""
    tokens: int = 3
    """Of each answer, that are traced."""
    limit: int = 256
    """Most tokens of one answer."""


@dataclass(frozen=True)
class Answers:
    """What they need of a GPU, by phase: `prompts`, which gives the first token, `token 2`, `token 3` …"""

    weights: int
    """Bytes of the base model and its adapter."""
    peaks: list[int]
    """The most bytes that each phase held."""
    cache: int
    """Bytes of keys and values after the last one."""
    kernels: dict[str, int]
    products: dict[str, dict[str, int]]
    waits: dict[str, dict[str, int]]
    attention: dict[str, dict[str, int]]


@contextmanager
def fake_gpu(name: str) -> Iterator[Callable[[Any], Any]]:
    """A function that traces a `Training` on that GPU, as a `Trace`, or an `Answering`, as `Answers`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=install, initargs=(name,)) as process:
        yield lambda what: process.submit(_traced, what).result()


def _traced(what: Training | Answering) -> Trace | Answers:
    from tests.fake_gpu.answering import answered  # which imports torch, and finds the device there
    from tests.fake_gpu.tracing import traced

    try:
        return traced(what) if isinstance(what, Training) else answered(what)
    except Exception:  # which may not be one that can be handed on
        raise RuntimeError(traceback.format_exc()) from None
