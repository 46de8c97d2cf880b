"""What `lora_adapter` leaves for later steps and the UI to read: how the training went, and in what surroundings."""

from typing import Literal

from pydantic import Field

from finetuning.record import Record


class TrainingSummary(Record):
    """Losses are means over supervised tokens in nats, speed counts tokens without padding, memory is in MiB."""

    trainable_parameters: int
    steps: int
    train_loss: float
    eval_loss: float
    """On the dev split, where there is one."""
    exam_loss: float | None = None
    """On the eval split, where `eval_loss` is not."""
    tokens: int
    tokens_per_second: float
    training_seconds: float
    peak_memory_mb: int
    peak_reserved_mb: int | None = None
    """What torch had taken of a GPU at most, with what lay free between tensors."""
    predicted_memory_mb: int | None = None
    """None where the prediction does not know the architecture."""
    device: str
    dtype: str
    """The number format that the model computes in, which may be another than the recipe's on a GPU that lacks it."""
    processes: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    """Both as they were in the end: where memory ran out, the passes have become smaller."""
    activation_checkpointing: bool
    kept_layers: int = 0
    """How many layers, the last ones, kept their activations where the others computed them twice."""
    weights_written_out: bool = False
    """Whether weights of 4 bits were written out before the first step, and not anew in every pass."""
    attention: str
    passed_over: dict[str, str]
    """The attention kernels that the recipe would rather have, and why each was not taken."""
    curve: list[dict[str, float]]
    """Losses on the way: after how many steps (`step`), how often the rows had been seen (`epoch`), and the `loss`."""
    eval_curve: list[dict[str, float]]
    """The same on the eval split, without `epoch`."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    weights_mb: float | None = None
    weights_held_mb: float | None = None
    """Of a base model that is divided among processes: its size, and what each process holds of it."""
    reward_accuracy: float | None = None
    reward_margin: float | None = None
    reward_chosen: float | None = None
    reward_rejected: float | None = None
    kl: float | None = None
    """On the eval split, of the methods that compare answers."""
    reward_curve: list[dict[str, float]] = Field(default_factory=list)
    """Of answers that are rewarded, on the way: after how many steps (`step`), the mean `reward` and its `spread`, each
    term by itself (`reward/final-answer`), tokens of an answer (`length`), the share that was `cut_off`, that of groups
    with `no_signal`, and of answers that vLLM drew their `mismatch`: by how much the logarithms of a token's likelihood
    there and here differ, in the mean."""


class MergedAdapterSummary(Record):
    """Of an adapter that others were merged into: nothing was trained, so that there are no losses and no steps."""

    trainable_parameters: int
    """That it has, as those of a training are called."""
