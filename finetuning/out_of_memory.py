"""Tells whether memory ran out, in the words of each library that asks for some.

>>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
True
"""

import errno
import re

from finetuning.errors import FinetuningError

# The shared memory of a kernel is another kind, which no smaller batch mends; Triton calls that "out of resource".
WORDS = re.compile(
    r"out[ _-]?of[ _-]?memory\b"  # torch, CUDA, its driver, Triton, NCCL, bitsandbytes' "Error out of memory at line"
    r"|_ALLOC(ATION)?_FAILED\b"  # CUBLAS_STATUS_…, CUSOLVER_STATUS_…, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_…
    r"|\bcudaErrorMemoryAllocation\b"
    r"|\bFailed to CUDA (host )?[cm]?alloc\b"  # NCCL
    r"|\bcan(no|')t allocate memory\b"  # torch on a CPU, and the system itself
    r"|\bnot enough memory: you tried to allocate\b"
    r"|\bUnable to allocate [\d.]+ [KMGTP]?i?B\b"  # numpy
    r"|\bstd::bad_alloc\b",
    re.IGNORECASE,
)


def tells_of_no_memory(text: str) -> bool:
    """Return whether a library says in `text` that it was given no memory."""
    return WORDS.search(text) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a GPU or on the machine; so does an error that was raised from such a one.

    What a `FinetuningError` says was understood before, and is none.
    """
    if isinstance(error, FinetuningError):
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # torch's own is a RuntimeError too; its name is enough where torch is not imported.
    said = isinstance(error, RuntimeError) and tells_of_no_memory(str(error))
    if said or type(error).__name__ == "OutOfMemoryError":
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)
