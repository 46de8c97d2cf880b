"""Which of torch's attention kernels a step of training takes where transformers asks for `sdpa`.

>>> with attention_backend("cpu", length=102):  # the plain one
...     loss.backward()
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

# Below so many tokens the backward pass of torch's fused attention on a CPU works through blocks of 32 queries, and
# takes three times as long as the plain matrix products (torch 2.13, 9 heads, 102 tokens: 31 ms against 9).
FUSED_FROM = 192


def attention_backend(device: str, length: int) -> AbstractContextManager[Any]:
    """Makes torch take what is fastest for forward and backward passes over rows of so many tokens on that device."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" and length < FUSED_FROM else nullcontext()
