"""Answers that vLLM draws: whether it is there, and what trl is told of it.

Its likelihoods are not those of the model that learns: other kernels round otherwise. trl measures both on each answer,
weighs an answer by their ratio, and learns nothing from one whose ratio is above `MOST`.
"""

from importlib.util import find_spec
from typing import Any

from trl.import_utils import is_vllm_available

from finetuning.errors import InfrastructureError
from finetuning.training.job import TrainingJob

MOST = 3.0  # trl's own


def require_vllm(where: str) -> None:
    """Check that vLLM is installed.

    Raises:
        InfrastructureError: it is not.
    """
    if find_spec("vllm") is None or not is_vllm_available():
        raise InfrastructureError(
            f"{where}: training.use_vllm: vLLM is not installed where the training runs. Install it there, as "
            "docs/training.md says (`pip install -e '.[vllm]'`), or leave use_vllm out."
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
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": spec.vllm_gpu_memory_utilization,
        "vllm_max_model_length": min(longest, context or longest),
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "sequence_mask",
        "vllm_importance_sampling_clip_max": MOST,
    }
