"""A lack of memory is known by the words of each library, and nothing else is taken for one."""

import errno

import numpy as np
import pytest
import torch

from finetuning.errors import InfrastructureError
from finetuning.out_of_memory import is_out_of_memory


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA driver error: out of memory",
        "HIP out of memory. Tried to allocate 20.00 MiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Triton Error [CUDA]: out of memory",
        "Error out of memory at line 74 in file /src/csrc/ops.cu",
        "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nFailed to CUDA calloc async 608 bytes",
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4",
        "unable to mmap 5000 bytes from file <model.safetensors>: Cannot allocate memory (12)",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "std::bad_alloc",
    ],
)
def test_memory_ran_out_as_each_library_says_it(said):
    assert is_out_of_memory(RuntimeError(said))


def test_memory_ran_out_as_each_library_raises_it():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory")) and is_out_of_memory(MemoryError())
    with pytest.raises(MemoryError) as error:
        np.empty(2**50)
    assert is_out_of_memory(error.value)
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)


def test_an_error_that_a_lack_of_memory_caused_is_one():
    error = ValueError("the kernel could not be compiled")
    error.__cause__ = RuntimeError("Triton Error [CUDA]: out of memory")
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        # Of a kernel: it does not get smaller with the batch.
        RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
        RuntimeError("NCCL error: ncclSystemError: Error while creating shared memory segment (size 9637888)"),
        ValueError("evaluation.rows: 'out of memory' is no number"),
        OSError(errno.ENOSPC, "No space left on device"),
        InfrastructureError("training ran out of memory with 3 rows a pass"),
    ],
    ids=str,
)
def test_nothing_else_is_taken_for_a_lack_of_memory(error):
    assert not is_out_of_memory(error)
