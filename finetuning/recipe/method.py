"""The keys of the section `training` that say what is learned from, and how that is weighed."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from finetuning.recipe.reward import RewardTerm, weighted
from finetuning.recipe.spec import Count, Spec, listed, remakes

Method = Literal["sft", "dpo", "kto", "grpo"]

# By trl's names.
LossType = Literal["sigmoid", "hinge", "ipo", "kto", "apo_zero_unpaired", "dapo", "grpo", "dr_grpo", "bnpo"]
# The losses of the methods that have several, the default first.
LOSSES: dict[Method, tuple[LossType, ...]] = {
    "dpo": ("sigmoid", "hinge", "ipo"),
    "kto": ("kto", "apo_zero_unpaired"),
    "grpo": ("dapo", "grpo", "dr_grpo", "bnpo"),
}
# How strongly a method holds the model to what it was, unless said otherwise.
BETAS: dict[Method, float] = {"dpo": 0.1, "kto": 0.1, "grpo": 0.0}


class MethodSpec(Spec):
    """What the adapter learns from, by trl's names."""

    model_config = ConfigDict(json_schema_extra=remakes("lora_adapter"))

    method: Method = Field(
        default="sft",
        description="`sft` learns to say what the answers say; `dpo` to prefer each row's chosen answer to its "
        "rejected one (direct preference optimization), from data of the format `preference`; `kto` to say what was "
        "judged good and not what was judged bad (Kahneman-Tversky optimization), from data of the format "
        "`unpaired-preference`; `grpo` to give more of its own answers that score well by `reward` (group relative "
        "policy optimization), from questions whose answers can be checked.",
        json_schema_extra=remakes("chat_dataset", "lora_adapter"),
    )
    beta: Annotated[float, Field(ge=0)] | None = Field(
        default_factory=lambda data: BETAS.get(data.get("method", "sft")),
        description="How strongly `dpo` and `kto` hold the model to what it was: 0.1 unless said otherwise, and more "
        "for less change. With `grpo` the weight of the divergence (KL) from where it started, 0 unless said "
        "otherwise, which saves a pass of each step. `sft` has none.",
    )
    loss_type: LossType | None = Field(
        default_factory=lambda data: next(iter(LOSSES.get(data.get("method", "sft"), ())), None),
        description="Loss of `dpo`: `sigmoid` unless said otherwise; `hinge` (SLiC) and `ipo` stop pulling a pair "
        "apart at some distance. Loss of `kto`: `kto` unless said otherwise, which compares an answer's gain with how "
        "far the model has gone as a whole; `apo_zero_unpaired` with 0. Loss of `grpo`: `dapo` unless said otherwise, "
        "a mean over all tokens of a step; `grpo` a mean over answers of their tokens' means; `dr_grpo` a sum over "
        "tokens divided by `max_completion_length`; `bnpo` a mean over the tokens of a pass. `sft` has none.",
    )
    desirable_weight: float = Field(
        default=1.0,
        gt=0,
        description="What the loss of an answer that was judged good counts with `kto`.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    undesirable_weight: float = Field(
        default=1.0,
        gt=0,
        description="What the loss of an answer that was judged bad counts with `kto`. Good ones times their weight "
        "should be 1 to 1.33 times as much as bad ones times theirs.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    reward: Annotated[dict[RewardTerm, float], BeforeValidator(weighted)] = Field(
        default={},
        description="What `grpo` rewards: names of the exam's metrics, each with a weight "
        "(`{final-answer: 1.0, length: 0.1}`) or as a list, which weighs all by 1. Metrics compare an answer with its "
        "row's: `final-answer`, `exact-match`, `contains`, `rouge-l`, `chrf`, `python-tests`; one of them has to be "
        "there. Terms beside them: `stop-rate`, 1 for an answer that ends by itself; `format`, 1 for one that states a "
        "final answer, right or wrong; `length`, 1 for an empty answer and 0 for one of `max_completion_length` "
        "tokens; `citations`, with `knowledge`, 1 for one that names a passage that has it.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    num_generations: int = Field(
        default=8,
        ge=2,
        description="Answers of `grpo` to one question, a group: each is rewarded by how much better than its group "
        "it is. Rows of a pass times passes times processes must be a multiple of it.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    max_completion_length: Count = Field(
        default=256,
        description="Most tokens of an answer of `grpo`; `evaluation.max_new_tokens` says so of the exam.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="Temperature by which the answers of `grpo` are drawn.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the likelihood from whose most likely tokens `grpo` draws.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    num_iterations: Count = Field(
        default=1,
        description="How often `grpo` learns from the same answers before it draws others.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    epsilon: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="How far an answer's likelihood may move, as a share, before `grpo` learns no more from it; of use "
        "with `num_iterations` above 1.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    epsilon_high: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="The same upwards, where it is another one; DAPO has 0.28. `null` takes `epsilon`.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="By which spread `grpo` divides how much better an answer is: its group's, that of the whole step, "
        "or by none (Dr. GRPO).",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    mask_truncated_completions: bool = Field(
        default=False,
        description="Learn nothing from answers of `grpo` that were cut off at `max_completion_length`.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    use_vllm: bool = Field(
        default=False,
        description="Draw the answers of `grpo` by vLLM, where it is installed (the extra `vllm`). It has a "
        "copy of the model of its own, which is given the weights of each step.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.3,
        description="Share of a GPU's memory that vLLM takes, for that copy and for what it keeps of tokens.",
        json_schema_extra=remakes("lora_adapter", silent_default=True),
    )

    @field_validator("beta", "loss_type")
    @classmethod
    def _settings_of_comparisons(cls, value: float | str | None, info: ValidationInfo) -> float | str | None:
        method = info.data.get("method")
        if method == "sft" and value is not None:
            other = next((other for other, losses in LOSSES.items() if value in losses), "dpo")
            raise ValueError(
                f"{value} would be ignored: training.method is sft; leave it out, or write method: {other}"
            )
        if method in LOSSES and value is None:
            raise ValueError(f"null, which {method} cannot do without; leave it out for its default")
        if value == 0 and method in ("dpo", "kto"):
            raise ValueError(f"{value} is not more than 0, so that {method} would hold the model to nothing; write 0.1")
        if isinstance(value, str) and method in LOSSES and value not in LOSSES[method]:
            raise ValueError(f"{value} is no loss of {method}, which has {listed(LOSSES[method])}")
        return value

    @field_validator("desirable_weight", "undesirable_weight")
    @classmethod
    def _weights_of_judgements(cls, value: float, info: ValidationInfo) -> float:
        method = info.data.get("method")
        if value != 1 and method != "kto":
            raise ValueError(f"{value:g} would be ignored: training.method is {method}, which judges no answers")
        return value
