"""Answers that vLLM draws: whether it can, what trl is told of it, and the weights that it draws them by.

Its likelihoods are not those of the model that learns: other kernels round otherwise, and an adapter is added to the
weights. trl measures both on each answer, weighs an answer by their ratio, and learns nothing from one whose ratio is
above `MOST`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoTokenizer
from trl.import_utils import is_vllm_available

from finetuning.chat.vocabulary import new_tokens
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.training.job import TrainingJob

MOST = 3.0  # trl's own


def require_vllm(job: TrainingJob) -> None:
    """Check that vLLM is installed, and can have the base model as it will be.

    Raises:
        InfrastructureError: it is not installed.
        FinetuningError: the chat template needs tokens that the base model has no rows for.
    """
    if find_spec("vllm") is None or not is_vllm_available():
        raise InfrastructureError(
            f"{job.where}: training.use_vllm: vLLM is not installed where the training runs. Install it there, as "
            "docs/training.md says (`pip install -e '.[vllm]'`), or leave use_vllm out."
        )
    trust = job.model_kwargs["trust_remote_code"]
    folders = (job.chat_dataset / "tokenizer", job.base_model)
    if new_tokens(*(AutoTokenizer.from_pretrained(folder, trust_remote_code=trust) for folder in folders)):
        raise FinetuningError(
            f"{job.where}: training.use_vllm: the chat template needs tokens that are new to the base model, and vLLM "
            "has no rows for them. Write `base_model.chat_template: instruction`, which needs none, or leave use_vllm "
            "out."
        )


def vllm_settings(job: TrainingJob, model: Any) -> dict[str, Any]:
    """trl's settings for the answers of a job; none where it has them drawn by the model that learns."""
    spec = job.training
    if not spec.use_vllm:
        return {}
    longest = job.max_length + spec.max_completion_length
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return {
        "use_vllm": True,
        "trust_remote_code": job.model_kwargs["trust_remote_code"],
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": spec.vllm_gpu_memory_utilization,
        "vllm_max_model_length": min(longest, context or longest),
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "sequence_mask",
        "vllm_importance_sampling_clip_max": MOST,
    }


def draw_as_here(generation: Any, stop: int) -> None:
    """Have trl's `VLLMGeneration` end answers at the stop token alone, and hand on weights that stay what they are."""
    generation.generation_kwargs |= {"stop_token_ids": [stop], "ignore_eos": True}
    # trl adds the adapter to all weights and takes it off again, which in 16 bits leaves others behind at each step.
    generation._iter_named_params = partial(merged_parameters, generation.model)


def merged_parameters(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight of a model under its own name, with the adapter's part in it while it is looked at."""
    layers = {
        id(parameter): module
        for module in model.modules()
        if isinstance(module, BaseTunerLayer)
        for parameter in module.get_base_layer().parameters(recurse=False)
    }
    for name, parameter in model.named_parameters():
        if model.prefix in name or "original_module" in name:
            continue
        own = name.removeprefix("base_model.model.").replace(".base_layer", "").replace("modules_to_save.default.", "")
        if id(parameter) in layers:
            with _merged(layers[id(parameter)]):
                yield own, parameter.data
        else:
            yield own, parameter.data


@contextmanager
def _merged(layer: Any) -> Iterator[None]:
    """Add the adapter to a layer's weights within the block. They are bit for bit the same after it."""
    before = [(parameter, parameter.data.clone()) for parameter in layer.get_base_layer().parameters(recurse=False)]
    layer.merge()
    try:
        yield
    finally:
        layer.unmerge()
        for parameter, data in before:
            parameter.data.copy_(data)
