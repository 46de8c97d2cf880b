"""What stands for kernels that run on a GPU alone: they keep and make what the real ones do, and compute nothing.

FlashAttention as its source has it (github.com/Dao-AILab/flash-attention, csrc/flash_attn/flash_api.cpp); torch's
`scaled_dot_product_attention` by the rules by which it chooses on CUDA; the Triton kernels of trl's head.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

from finetuning.base_model import varlen
from finetuning.fused import gates, rotations
from tests.fake_gpu.counting import Counter, bytes_of
from tests.fake_gpu.traces import Kernel

HALF = (torch.float16, torch.bfloat16)
WIDEST_HEAD = 256
OWN = torch.library.Library("aten", "IMPL")


class Kernels:
    """The kernels, and the counter that is told of their calls."""

    counter: Counter | None = None


def note(kernel: str) -> None:
    """Tell whoever counts."""
    if Kernels.counter is not None:
        Kernels.counter.note_attention(kernel)


class Flash(torch.autograd.Function):
    """FlashAttention 2 on queries (…, heads, width): keeps its inputs, its output and a number for each query."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads, width = query.shape[-2:]
        if query.dtype not in HALF or width > WIDEST_HEAD or heads % key.shape[-2]:
            raise RuntimeError(f"no flash kernel takes {query.dtype}, {tuple(query.shape)}, {tuple(key.shape)}")
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, sums_like(query))
        return out

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        *rest, heads, width = query.shape
        wide = torch.empty(*rest, heads, 32 * math.ceil(width / 32), dtype=torch.float32, device=query.device)
        products = sums_like(query)
        # Gradients of keys that heads share are made for each head, and added up.
        of_heads = [torch.empty_like(query) for _ in range(2 if key.shape[-2] != heads else 0)]
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del wide, products, of_heads
        return gradients


class Efficient(torch.autograd.Function):
    """torch's memory-efficient kernel, which takes a mask in the format of the queries."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any) -> torch.Tensor:
        bias = [] if mask is None else [mask.to(query.dtype)]
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, sums_like(query), *bias)
        return out

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        wide, products = torch.empty_like(query, dtype=torch.float32), sums_like(query)
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del wide, products
        return *gradients, None


def sums_like(query: torch.Tensor) -> torch.Tensor:
    """A number in float32 for each head of each token, of queries (…, heads, width)."""
    return torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """By the kernel that torch takes on CUDA (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp)."""
    query, key, value = (as_autocast_does(x) for x in (query, key, value))
    if attn_mask is None and query.dtype in HALF and query.shape[-1] <= WIDEST_HEAD:
        note("sdpa: flash")
        out: Any = Flash.apply(*(x.transpose(1, 2) for x in (query, key, value)))
        return out.transpose(1, 2)
    if enable_gqa:
        raise RuntimeError("with a mask, keys that heads share would go to the slowest kernel of all")
    note("sdpa: efficient")
    return Efficient.apply(query, key, value, attn_mask)  # type: ignore[return-value]


def as_autocast_does(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the number format of the block's mixed precision."""
    is_wide = torch.is_autocast_enabled("cuda") and tensor.dtype == torch.float32
    return tensor.to(torch.get_autocast_dtype("cuda")) if is_wide else tensor


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> Any:
    """`flash_attn_func` of rows of one length."""
    note("flash_attention_2")
    return Flash.apply(query, key, value)


def flash_attention_of_parts(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    **_: Any,
) -> Any:
    """`flash_attn_varlen_func` of rows one behind the other."""
    if cu_seqlens_q.dtype != torch.int32 or cu_seqlens_q.device.type != "cuda" or not isinstance(max_seqlen_q, int):
        raise TypeError(f"{cu_seqlens_q.dtype} on {cu_seqlens_q.device}, {type(max_seqlen_q)}")
    note("flash_attention_2: varlen")
    return Flash.apply(q, k, v)


def attention_by_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    """torch's `varlen_attn`, which is FlashAttention 2 too."""
    if bounds.dtype != torch.int32 or bounds.device.type != "cuda":
        raise TypeError(f"{bounds.dtype} on {bounds.device}")
    note("varlen")
    return Flash.apply(query, key, value)  # type: ignore[return-value]


def install_kernels() -> None:
    """Let transformers and trl find them, for good."""
    import transformers.modeling_flash_attention_utils as flash
    from transformers import PreTrainedModel, masking_utils
    from transformers.models.falcon import modeling_falcon

    varlen.varlen_attn = attention_by_torch
    functional.scaled_dot_product_attention = varlen.scaled_dot_product_attention = scaled_dot_product_attention
    torch._C._nn.scaled_dot_product_attention = scaled_dot_product_attention
    # As transformers keeps what it loaded of flash-attn; it looks at nothing of it but its arguments.
    flash._loaded_implementation = "flash_attention_2"
    flash._flash_fn = flash_attention
    flash._flash_varlen_fn, flash._flash_with_kvcache_fn = flash_attention_of_parts, None
    flash._pad_fn, flash._unpad_fn = flash._pad_input, flash._unpad_input
    flash._process_flash_kwargs_fn = flash._lazy_define_process_function(flash_attention_of_parts)
    flash._process_with_kvcache_kwargs_fn = dict
    PreTrainedModel._check_and_adjust_attn_implementation = lambda _, kernel, *__, **___: kernel or "sdpa"
    modeling_falcon._flash_attention_forward = flash._flash_attention_forward
    # Tensors that are shapes alone pass for those of a compiler, for which transformers asks no questions.
    for module in (masking_utils, flash):
        if hasattr(module, "is_tracing"):
            module.is_tracing = lambda *_: False
    # Of what has a kernel on CUDA, a build of torch without CUDA would start the steps that it consists of elsewhere.
    OWN.impl("silu_backward", lambda gradient, _: torch.empty_like(gradient), "CUDA")
    OWN.impl("_fused_rms_norm", _rms_norm, "CUDA")
    OWN.impl("_fused_rms_norm_backward", lambda gradient, *_: (torch.empty_like(gradient), None), "CUDA")
    gates.one_kernel = rotations.one_kernel = _in_one
    install_head()


def _in_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one kernel, which a compiler would make of it."""

    def called(*args: Any) -> Any:
        counter = Kernels.counter
        if counter is None:
            return function(*args)
        with counter.in_one_kernel():
            result = function(*args)
        counter.note_kernel(getattr(function, "__name__", "compiled"), args, {}, result)
        return result

    return called


def _rms_norm(x: torch.Tensor, shape: list[int], *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of rows, and in float32 the root mean square of each."""
    rows = x.shape[: x.dim() - len(shape)]
    return torch.empty_like(x), x.new_empty((*rows, *(1 for _ in shape)), dtype=torch.float32)


def install_head() -> None:
    """Let trl's head run as on a GPU."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    chunked_logprob._use_triton = utils._use_triton = lambda device: device.type == "cuda"
    chunked_logprob._forward_kernel = chunked_logprob._backward_kernel = _Triton()
    chunked_logprob.triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b))
    chunked_logprob._addmm_fp32 = _add_product


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """`total += a @ b`, in float32."""
    if (counter := Kernels.counter) is not None:
        work = Kernel("addmm_", bytes_of([a, b]) + 2 * bytes_of(total), counter.note_product(a, total))
        counter.work[counter.phase][work] += 1


class _Triton:
    """A kernel of Triton's: `kernel[grid](…)`, which reads its first argument and writes as much."""

    def __getitem__(self, grid: Any) -> Any:
        return self

    def __call__(self, read: Any, *_: Any, **__: Any) -> None:
        if (counter := Kernels.counter) is not None:
            counter.kernels[counter.phase] += 1
            counter.work[counter.phase][Kernel("chunked_logprob", 2 * bytes_of(read), 0)] += 1
