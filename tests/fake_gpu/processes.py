"""Lets a process that has a fake GPU train as the first of several: what they would send is counted, and not sent.

torch's own process group `fake` stands for NCCL's.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from bitsandbytes.nn import modules
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

from finetuning.training import sharding, trainer


@contextmanager
def first_of(processes: int) -> Iterator[None]:
    """Be the first of so many processes within the block."""
    if processes == 1:
        yield
        return
    told = {"WORLD_SIZE": str(processes), "RANK": "0", "LOCAL_RANK": "0"}
    os.environ |= told
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=processes)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        yield
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.distributed.destroy_process_group()
        for name in told:
            del os.environ[name]


def install_processes() -> None:
    """Leave out what reads the numbers that processes send, for good: all of it happens once, before the first step."""
    from torch.nn.parallel import distributed

    distributed._verify_param_shape_across_processes = lambda *_, **__: None
    distributed._sync_module_states = lambda *_, **__: None
    DistributedDataParallelKwargs.register_comm_hook = lambda self, model: let_reduce(model)
    # Which processes there are is a tensor of numbers.
    sharding.init_device_mesh = without_shapes(sharding.init_device_mesh)
    # bitsandbytes puts a class of its own around a gathered weight, which one of shapes alone does not take.
    modules.fix_4bit_weight_quant_state_from_module = lambda m: setattr(m.weight, "quant_state", m.quant_state)
    # What an evaluation found, which each process has of its own rows.
    trainer.gather_object = lambda found: found
    for name, stand_in in {"Stream": Stream, "Event": Event}.items():
        setattr(torch.cuda, name, stand_in)
    torch.cuda.current_stream = lambda *_: Stream()
    torch.cuda.stream = lambda _: torch.device("cuda")


def without_shapes(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose tensors have their data and are not counted."""

    def called(*given: Any) -> Any:
        with _disable_current_modes():
            return call(*given)

    return called


def let_reduce(model: Any) -> None:
    """Let a model that is trained by several processes do without the results that torch's own group does not give."""
    model.register_comm_hook(None, reduced)
    model.logger = SimpleNamespace(set_runtime_stats_and_log=lambda: None)  # of times, by a GPU's clock
    model.reducer = AsItIs(model.reducer)


class AsItIs:
    """torch's reducer, which would look after the first step in which order gradients came.

    It does not where it is to find parameters that were not used, as transformers wants it of adapters.
    """

    def __init__(self, reducer: Any) -> None:
        self.reducer = reducer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False


def reduced(_: Any, bucket: torch.distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """As torch reduces gradients that lie in one piece."""
    torch.distributed.all_reduce(bucket.buffer())
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


class Event:
    """A moment of the GPU, which has always come."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> "Event":
        """Itself."""
        return self

    def wait(self, *_: Any) -> None:
        """Go on at once."""

    synchronize = wait

    def query(self) -> bool:
        """True."""
        return True


class Stream(Event):
    """What the GPU does one after the other; all of them are one here."""

    device = torch.device("cuda", 0)

    def wait_event(self, _: Event) -> None:
        """Go on at once."""

    def wait_stream(self, _: "Stream") -> None:
        """Go on at once."""

    def record_event(self, *_: Any) -> Event:
        """Now."""
        return Event()
