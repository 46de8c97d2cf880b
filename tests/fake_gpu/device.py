"""Makes torch take this machine for one with a GPU. Imports no torch before the device is there.

>>> install("H100")
>>> torch.cuda.get_device_capability()
(9, 0)

The device has no memory and no kernels: its tensors have to be shapes alone (FakeTensorMode).
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

SOURCE = Path(__file__).with_name("device.cpp")
TORCH = Path(find_spec("torch").submodule_search_locations[0])
IMPORTED_BEFORE = ("torch._dynamo", "bitsandbytes", "accelerate", "peft", "trl.trainer.sft_trainer")


class Card(NamedTuple):
    """What torch says of a GPU."""

    capability: tuple[int, int]
    memory: int
    """Bytes."""
    bf16: bool
    """Whether it has products of bfloat16."""


GPUS = {
    "H100": Card((9, 0), 80 << 30, True),
    "A10G": Card((8, 6), 24 << 30, True),
    "T4": Card((7, 5), 15 << 30, False),
}


def obstacle() -> str | None:
    """Why there can be no such device here; None where there can."""
    if (TORCH / "lib" / "libtorch_cuda.so").exists():
        return "this build of torch has a CUDA of its own"
    return None if shutil.which("g++") else "g++ compiles the device, and is not installed"


def library() -> Path:
    """The device as a library, compiled once for each version of torch: into the user's cache, in half a minute."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetuning" / "fake-gpu"
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = cache / f"{version('torch')}-{digest}.so"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    headers = [f"-I{TORCH}/include", f"-I{TORCH}/include/torch/csrc/api/include"]
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        draft = Path(folder) / path.name
        command = ["g++", "-std=c++20", "-shared", "-fPIC", *headers, SOURCE, "-o", draft]
        subprocess.run([*command, f"-L{TORCH}/lib", "-ltorch_cpu", "-lc10"], check=True)
        draft.replace(path)
    return path


def install(gpu: str) -> None:
    """Give this process the GPU of that name (`GPUS`), for good. To be called before anything imports torch."""
    # torch remembers whether there is an accelerator from the first time that it is asked.
    for name in (TORCH / "lib" / "libc10.so", TORCH / "lib" / "libtorch_cpu.so", library()):
        ctypes.CDLL(str(name), mode=ctypes.RTLD_GLOBAL)
    # While they are imported, these would look for more of a GPU than there is.
    for module in IMPORTED_BEFORE:
        import_module(module)
    import torch
    from transformers.utils import import_utils

    for name, said in sayings(GPUS[gpu], gpu).items():
        setattr(torch.cuda, name, said)
    torch._C._cuda_getDeviceCount = lambda: 1
    for question in ("is_torch_cuda_available", "is_torch_bf16_gpu_available", "is_torch_tf32_available"):
        getattr(import_utils, question).cache_clear()


def sayings(card: Card, name: str) -> dict[str, Any]:
    """The functions of `torch.cuda` by name, as they answer where that card is."""
    import torch

    state = torch.zeros(16, dtype=torch.uint8)
    properties = SimpleNamespace(
        name=name,
        major=card.capability[0],
        minor=card.capability[1],
        total_memory=card.memory,
        multi_processor_count=132,
        warp_size=32,
    )
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": card.capability,
        "get_device_name": f"NVIDIA {name}",
        "get_device_properties": properties,
        "mem_get_info": (card.memory, card.memory),
        "get_rng_state": state,
        "is_current_stream_capturing": False,
        **dict.fromkeys(("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"), 0),
        **dict.fromkeys(("set_device", "init", "_lazy_init", "set_rng_state", "manual_seed", "manual_seed_all")),
        **dict.fromkeys(("synchronize", "empty_cache", "reset_peak_memory_stats")),
    }
    functions: dict[str, Any] = {key: _always(value) for key, value in answers.items()}
    # torch emulates bfloat16 where it is told that this would do.
    functions["is_bf16_supported"] = lambda including_emulation=True: card.bf16 or including_emulation
    return functions | {"device": _Device}


def _always(value: Any) -> Any:
    return lambda *_, **__: value


class _Device:
    """`with torch.cuda.device(0):`, where there is but one."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...
