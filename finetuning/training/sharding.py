"""The frozen base model divided among the processes that train together (FSDP), each of which has the whole adapter.

>>> shard(trainer, "llama-70b.yaml")  # 4 processes: each keeps a quarter of each layer, and gathers it when it is used

What stands outside the layers (embeddings, the last norm, the head) is needed at both ends of a step, so that it would
be gathered most of the time; each process keeps it whole. So it does with what is trained: a process has the gradients
of its own rows, and transformers takes their mean over all processes, as it does for adapters of models that it has
sharded itself while it loaded them, which it cannot do with quantized ones.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from finetuning.errors import FinetuningError
from finetuning.training.layers import layers_of

if TYPE_CHECKING:
    from finetuning.training.resumable import ResumableTrainer

MIB = 2**20


def shard(trainer: "ResumableTrainer", where: str) -> dict[str, float]:
    """The MiB of all weights, and of those that this process holds, now that the model is on the trainer's device.

    Layers go there one by one, and nothing may refer to their undivided weights, so that the device never holds more
    than its parts and one layer. What bitsandbytes
    keeps beside the numbers of 4-bit weights (scales) stays in the layer itself, whole, and is put together with them
    again when they are gathered.

    Args:
        where: the recipe, for errors.

    Raises:
        FinetuningError: the architecture does not say what its layers are.
    """
    adapted: Any = trainer.model
    base, device = adapted.get_base_model(), trainer.args.device
    layers = layers_of(base)
    if not layers:
        raise FinetuningError(
            f"{where}: resources.strategy: fsdp divides a model by its layers, and {type(base).__name__} does not say "
            "which of its modules these are (_no_split_modules). Write strategy: ddp."
        )
    within = {module for layer in layers for module in layer.modules()}
    outside = {p for module in adapted.modules() if module not in within for p in module.parameters(recurse=False)}
    whole = outside | {p for p in adapted.parameters() if p.requires_grad}
    size = sum(p.nbytes for p in adapted.parameters())
    mesh = init_device_mesh(device.type, (trainer.args.world_size,))
    for layer in layers:
        layer.to(device)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    for module in adapted.modules():
        if module not in within:
            module._apply(lambda tensor: tensor.to(device), recurse=False)
    # Which divides nothing more: it knows the layers' order, to fetch the next one while one is computed.
    fully_shard(base.base_model, mesh=mesh, ignored_params=whole)
    trainer.is_distributed_loading_by_transformers = True
    held = sum(local(p).nbytes for p in adapted.parameters())
    return {"weights_mb": round(size / MIB, 3), "weights_held_mb": round(held / MIB, 3)}


def local(parameter: torch.Tensor) -> torch.Tensor:
    """What this process has of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
