"""Counts what a GPU would have to do, from the operations that torch dispatches on shapes alone.

>>> with FakeTensorMode(allow_non_fake_inputs=True), Counter() as counter:
...     train()
>>> counter.peak, counter.kernels["step 2"], counter.waits["step 2"]
(5_301_600_256, 1_214, Counter({"item at trl/…:1643": 2, …}))

Where a program asks for a number, which shapes do not have, it is given one: that is where it would wait for the GPU.
"""

import sys
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from types import FrameType
from typing import Any
from weakref import finalize

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from tests.fake_gpu.traces import Kernel

# torch hands out a GPU's memory in multiples of so many bytes.
GRAIN = 512
# Operations that start no kernel.
WITHOUT_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
# Where the two factors of a matrix product are among its arguments.
PRODUCTS = {"mm": 0, "addmm": 1, "addmm_": 1, "bmm": 0, "baddbmm": 1, "_grouped_mm": 0}
# Functions of transformers that ask whether rows are packed, of which they are told by other means; and those that ask
# whether a mask hides nothing. To any other question the answer is yes.
IS_PACKED = {"_is_packed_sequence", "_flash_attention_forward"}
HAVE_ENDED = {"StopCheck.__call__"}  # which asks whether all answers of a batch have
HIDES_NOTHING = {"_ignore_causal_mask_sdpa", "flash_attention_mask", "GenerationMixin.generate"}
LIBRARIES = (
    "finetuning/",
    "trl/",
    "transformers/",
    "accelerate/",
    "peft/",
    "bitsandbytes/",
    "torch/optim",
    "torch/nn/",
)


class Counter(TorchDispatchMode):
    """The bytes of tensors on a GPU that live, and what happens there, by the phase in which it does.

    Args:
        length: what a program is told that asks for a whole number, as the length of the longest row.
        padded: whether a mask hides something.
    """

    def __init__(self, length: int, padded: bool) -> None:
        super().__init__()
        self.length, self.padded, self.phase = length, padded, ""
        self.bytes = self.peak = 0
        self.kernels: Tally[str] = Tally()
        self.products: defaultdict[str, Tally[str]] = defaultdict(Tally)
        """Matrix products by their number format."""
        self.multiplications: Tally[str] = Tally()
        """Of two numbers, in matrix products, without attention's."""
        self.work: defaultdict[str, Tally[Kernel]] = defaultdict(Tally)
        """Kernels by what they do, without attention's."""
        self.waits: defaultdict[str, Tally[str]] = defaultdict(Tally)
        """Of the host for the GPU, by operation and place."""
        self.attention: defaultdict[str, Tally[str]] = defaultdict(Tally)
        """Calls of attention kernels by name."""
        self.collectives: defaultdict[str, Tally[str]] = defaultdict(Tally)
        """Calls of several processes to each other by name."""
        self.exchanged: defaultdict[str, Tally[str]] = defaultdict(Tally)
        """Bytes that they are about: of what is reduced, or of all that is gathered."""
        self._known = WeakIdKeyDictionary()
        self._is_within_one = False

    @contextmanager
    def in_one_kernel(self) -> Iterator[None]:
        """Start no kernels within the block, whose operations are steps of one."""
        self._is_within_one = True
        try:
            yield
        finally:
            self._is_within_one = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, function._schema.name.split("::")[-1]
        first = next((x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)), None)
        if first is not None:
            known, answer = self.answer(name, first, args)
            if known:
                return answer
        if function.namespace == "c10d":
            self.note_collective(name, args)
        elif name == "_to_copy" and first is not None:
            self.note_transfer(first, kwargs)
        result = function(*args, **kwargs)
        made = self.hold(result)
        if name not in WITHOUT_KERNEL and (made or function._schema.is_mutable) and any(map(on_gpu, tree_leaves(args))):
            self.note_kernel(name, args, kwargs, result)
        return result

    def answer(self, name: str, first: torch.Tensor, args: Any) -> tuple[bool, Any]:
        """Whether the numbers of a tensor are asked for, and what is said instead."""
        if name == "_local_scalar_dense":
            self.wait("item", first)
            if first.dtype == torch.bool:
                return True, self.truth()
            return True, 1.0 if first.dtype.is_floating_point else self.length
        if name == "is_pinned":  # asked of what was made to be so
            return True, True
        if name in ("equal", "is_nonzero"):
            self.wait(name, first)
            return True, False
        if name in ("nonzero", "masked_select"):  # as many as there can be
            self.wait(name, first)
            shape = (first.numel(), first.dim()) if name == "nonzero" else (first.numel(),)
            return True, self.made(first.new_empty(shape, dtype=torch.int64 if name == "nonzero" else first.dtype))
        mask = next((x for x in args[1] if x is not None), None) if "index" in name and is_list(args) else None
        if mask is None or mask.dtype not in (torch.bool, torch.uint8):
            return False, None
        self.wait(name, first)
        if name == "index":
            return True, self.made(first.new_empty((mask.numel(), *first.shape[mask.dim() :])))
        return True, self.made(first if name.endswith("_") else torch.empty_like(first))

    def truth(self) -> bool:
        """What is said to who asks whether something is so."""
        asking = {name for frame in frames() for name in (frame.f_code.co_name, frame.f_code.co_qualname)}
        return not (asking & (IS_PACKED | HAVE_ENDED) or (self.padded and asking & HIDES_NOTHING))

    def wait(self, name: str, tensor: torch.Tensor) -> None:
        """Count that the host waits until the GPU has made the tensor."""
        if on_gpu(tensor):
            self.waits[self.phase][f"{name} at {place()}"] += 1

    def made(self, result: torch.Tensor) -> torch.Tensor:
        """Count what a kernel made."""
        self.hold(result)
        self.kernels[self.phase] += 1
        self.work[self.phase][Kernel("index", 2 * bytes_of(result), 0)] += 1
        return result

    def note_kernel(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Count a kernel, what it reads and makes, and the matrix product that it is."""
        if self._is_within_one:
            return
        self.kernels[self.phase] += 1
        if name == "gemm_4bit":  # which writes the weights out first, and two kernels earlier their scales
            self.kernels[self.phase] += 3
            left, weights = args[0], prod(args[2])
            self.work[self.phase][Kernel("dequantize_4bit", int(2.5 * weights), 0)] += 1
            moved = bytes_of([left, result]) + 2 * weights
            self.work[self.phase][Kernel(name, moved, self.note_product(left, result))] += 1
            return
        read = args[1:] if name == "addmm" and not kwargs.get("beta", 1) else (args, kwargs)
        operations = self.note_product(args[PRODUCTS[name]], result) if name in PRODUCTS else 0
        self.work[self.phase][Kernel(name, bytes_of(read) + bytes_of(result), operations)] += 1

    def note_product(self, left: torch.Tensor, result: torch.Tensor) -> int:
        """Count a matrix product by its left factor (…, inner) and its result; the operations that it takes."""
        self.products[self.phase][str(left.dtype).removeprefix("torch.")] += 1
        self.multiplications[self.phase] += (count := result.numel() * left.shape[-1])
        return 2 * count

    def note_attention(self, kernel: str) -> None:
        """Count a call of an attention kernel."""
        self.kernels[self.phase] += 1
        self.attention[self.phase][kernel] += 1

    def note_collective(self, name: str, args: Any) -> None:
        """Count that all processes exchange the tensors that are the first argument."""
        self.collectives[self.phase][name] += 1
        self.exchanged[self.phase][name] += sum(x.nbytes for x in tree_leaves(args[0]) if isinstance(x, torch.Tensor))

    def note_transfer(self, tensor: torch.Tensor, kwargs: dict[str, Any]) -> None:
        """Count a copy between host and GPU for which the host waits."""
        there = torch.device(kwargs.get("device") or tensor.device).type
        if there != tensor.device.type and not kwargs.get("non_blocking"):
            self.waits[self.phase][f"copy to {there} at {place()}"] += 1

    def hold(self, tensors: Any) -> int:
        """Count the tensors in this tree from now on, each memory once; the bytes that are new."""
        before = self.bytes
        for tensor in tree_leaves(tensors):
            if not on_gpu(tensor) or tensor.untyped_storage() in self._known:
                continue
            storage = tensor.untyped_storage()
            self._known[storage] = size = -(-storage.nbytes() // GRAIN) * GRAIN
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            finalize(storage, self._free, size).atexit = False
        return self.bytes - before

    def _free(self, size: int) -> None:
        self.bytes -= size


def on_gpu(value: Any) -> bool:
    """Whether it is a tensor there."""
    return isinstance(value, torch.Tensor) and value.device.type == "cuda"


def bytes_of(tensors: Any) -> int:
    """Of the tensors of a tree that are on the GPU, each of them once."""
    there = {id(x): x.numel() * x.element_size() for x in tree_leaves(tensors) if on_gpu(x)}
    return sum(there.values())


def is_list(args: Any) -> bool:
    """Whether the second argument of an operation is a list, as that of one that indexes is."""
    return len(args) > 1 and isinstance(args[1], (list, tuple))


def frames() -> Any:
    """The frames of the callers, innermost first."""
    frame: FrameType | None = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back


def place() -> str:
    """Where a library, or the project, is: file, line and function."""
    for frame in frames():
        file = frame.f_code.co_filename.split("site-packages/")[-1]
        if any(library in file for library in LIBRARIES):
            file = file[file.find("finetuning/") :] if "finetuning/" in file else file
            return f"{file}:{frame.f_lineno} {frame.f_code.co_name}"
    return "autograd"
