"""What a training by rewards is made of, beside what all trainings are."""

from typing import Any

from trl import GRPOConfig

from finetuning.reinforcement.group_trainer import GroupTrainer
from finetuning.reinforcement.prompts import prompt_rows
from finetuning.reinforcement.rewards import Rewards
from finetuning.reinforcement.vllm import require_vllm, vllm_settings
from finetuning.training.job import BatchSize, TrainingJob
from finetuning.training.lora_adapter import Kind, kind_of
from finetuning.training.settings import shared_settings


def any_kind_of(job: TrainingJob) -> Kind:
    """What a training of the job's method is made of, `grpo` too.

    Raises:
        FinetuningError: vLLM is to draw the answers, and cannot.
    """
    if job.training.use_vllm:
        require_vllm(job)
    return Kind(group_trainer, grpo_config, prompt_rows) if job.training.method == "grpo" else kind_of(job)


def group_trainer(job: TrainingJob, size: BatchSize, **settings: Any) -> GroupTrainer:
    """The trainer of groups, with the job's reward."""
    drawn = size.rows * job.training.gradient_accumulation_steps
    return GroupTrainer(
        rewards=Rewards.of(job, settings["processing_class"]),
        order=job.training.train_sampling_strategy,
        # Whole groups, whose questions are read once.
        drawn_together=max(drawn // job.training.num_generations, 1) * job.training.num_generations,
        **settings,
    )


def grpo_config(job: TrainingJob, size: BatchSize, model: Any) -> GRPOConfig:
    """The recipe's settings as trl's."""
    spec = job.training
    names = ("num_generations", "max_completion_length", "temperature", "top_p", "num_iterations", "beta", "loss_type")
    more = ("epsilon", "epsilon_high", "scale_rewards", "mask_truncated_completions")
    return GRPOConfig(
        **shared_settings(job, size),
        **spec.model_dump(include={*names, *more}),
        **vllm_settings(job, model),
        reward_weights=list(spec.reward.values()),
        top_k=0,
    )
