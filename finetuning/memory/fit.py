"""Whether a training fits into the memory that is free, and which settings would fit where it does not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from finetuning.errors import FinetuningError
from finetuning.memory.free import free_memory, gpu_memory
from finetuning.memory.rows import TrainingData
from finetuning.memory.savings import Settings, settings_that_fit, with_settings
from finetuning.recipe.mistakes import as_yaml
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingTask

if TYPE_CHECKING:
    from finetuning.memory.prediction import Device, Prediction

SHOWN = 300  # characters of an error

MIB = 2**20
# Of what some layers' activations, or weights that are written out, may fill: predictions were wrong by less.
RESERVE = 0.1

CHECKPOINTING = "training.activation_checkpointing"

Task = TypeVar("Task", bound=TrainingTask)


class Placement(NamedTuple):
    """Where the training takes place."""

    device: "Device"
    processes: int
    """That train together there: each on a GPU of its own, or all on the CPU."""


@dataclass(frozen=True)
class Fit:
    """Whether a training fits into the memory that is free, in bytes, and what would."""

    free: int
    prediction: "Prediction"
    checkpointing: bool
    """Whether activations are computed twice: as the recipe says, or where it says nothing, if they do not fit else."""
    kept_layers: int
    """How many layers, the last ones, keep their activations where the others compute them twice."""
    layers: int
    """Of all."""
    kept: int | None
    """Where the recipe says nothing: what is needed if all activations are kept."""
    alternatives: list[tuple[Settings, int]]
    """Where it does not fit: settings that would, by their path in the recipe, with what they need."""
    unquantized: int | None
    """Where it fits, and without quantization would as well: what that needs."""
    in_4_bits: int | None = None
    """Where weights of 4 bits are written out: what would be needed if they were not."""

    @property
    def fits(self) -> bool:
        """Whether what is predicted is free."""
        return self.prediction.total <= self.free

    def text(self) -> str:
        """Lines for a person, before the training."""
        needed = f"memory: {self.prediction.text()}; {self.free // MIB:,} MiB are free"
        lines = [needed if self.fits else f"{needed}, which is too little"]
        if self.kept is not None:
            why = f"{self.kept // MIB:,} MiB would be needed without" if self.checkpointing else "it fits without"
            lines.append(f"training.activation_checkpointing: {in_yaml(self.checkpointing)}, as {why}")
        if self.kept_layers:
            lines[-1] += f"; the last {self.kept_layers} of {self.layers} layers keep theirs, for which there is room"
        if self.in_4_bits is not None:
            lines.append(
                f"base_model.quantization: the weights of 4 bits are written out once, for which there is room "
                f"({self.in_4_bits // MIB:,} MiB would be needed without)"
            )
        if self.unquantized is not None:
            lines.append(
                f"base_model.quantization: null would fit too ({self.unquantized // MIB:,} MiB), and train faster"
            )
        return "\n".join([*lines, *self.ways_out()])

    def advice(self) -> str:
        """What to say, and to change, when the training ran out of memory."""
        said = f"{self.prediction.total // MIB:,} MiB were predicted, and {self.free // MIB:,} MiB were free before it"
        if not self.fits:
            return ". ".join([said, *self.ways_out()]) + "."
        return (
            f"{said}, so other processes took memory since then, or the prediction is wrong. Set training.on_oom to "
            "halve-batch, or lower training.per_device_train_batch_size."
        )

    def ways_out(self) -> list[str]:
        """What would fit, where the training does not: a line for each way."""
        if self.fits:
            return []
        ways = [
            f"{size // MIB:,} MiB would do with {', '.join(f'{path}: {in_yaml(v)}' for path, v in settings.items())}"
            for settings, size in self.alternatives
        ]
        return ways or ["No smaller passes, quantization or shorter rows would do: take a smaller base model"]


def fitted(
    recipe: Recipe,
    longest: int,
    free: int,
    predicted: "Callable[[Recipe], Prediction]",
    layers: int = 0,
    writes_out: bool = False,
) -> Fit:
    """Whether training on rows of at most `longest` tokens fits into `free` bytes, and what would.

    Args:
        layers: of the model; 0 for one whose layers all do alike.
        writes_out: whether weights of 4 bits may be written out.
    """
    prediction, kept, kept_layers = predicted(recipe), None, 0
    if recipe.training.activation_checkpointing is None:
        kept = prediction.total
        recipe = with_settings(recipe, {CHECKPOINTING: kept > free})
        if kept > free:
            whole, prediction = prediction, predicted(recipe)
            kept_layers = layers_that_fit(layers, kept, prediction.total, free)
            prediction = prediction.towards(whole, share_kept(kept_layers, layers))
    alternatives, unquantized, in_4_bits = [], None, None
    if prediction.total > free:
        alternatives = settings_that_fit(recipe, longest, free, lambda changed: predicted(changed).total)
    elif recipe.base_model.quantization:
        dense = predicted(with_settings(recipe, {"base_model.quantization": None}))
        writes_out &= recipe.base_model.quantization.bits == 4 and not recipe.lora.use_dora and not kept_layers
        # Written out or not, these layers give outputs in the format of their inputs, which plain ones may not.
        written = replace(prediction, weights=dense.weights)
        if writes_out and written.total * (1 + RESERVE) <= free:
            in_4_bits, prediction = prediction.total, written
        elif dense.total <= free:
            unquantized = dense.total
    checkpointing = bool(recipe.training.activation_checkpointing)
    return Fit(free, prediction, checkpointing, kept_layers, layers, kept, alternatives, unquantized, in_4_bits)


def layers_that_fit(layers: int, kept: int, computed: int, free: int) -> int:
    """How many of so many layers can keep their activations in `free` bytes, less a reserve.

    All of them would need `kept` bytes, and none `computed`.
    """
    room = free / (1 + RESERVE) - computed
    if room <= 0 or kept <= computed:
        return 0
    return min(layers - 1, 1 + int((layers - 1) * room / (kept - computed))) if layers > 1 else 0


def share_kept(kept_layers: int, layers: int) -> float:
    """How far what is needed is on the way from none of the layers keeping their activations to all of them.

    The first one takes nothing: the others have as much at hand while one of them is computed again.
    """
    return (kept_layers - 1) / (layers - 1) if kept_layers else 0.0


def fit_of(
    recipe: Recipe, model_folder: Path, rows: TrainingData, place: Placement, free: Callable[[], int] = free_memory
) -> Fit:
    """Predict what training on such rows needs on one device, beside what is free there.

    Args:
        recipe: with the number format and the attention kernel of the machine, and the processes that share weights.
        model_folder: the base model's artifact, of which `config.json` is read.
        free: gives the free bytes of a GPU, or of the machine that its processes share, and is asked once the
            libraries are imported, which take a part of them.

    Raises:
        FinetuningError: the base model runs code that its repo ships.
    """
    from transformers import AutoConfig

    from finetuning.memory.drawing import predict_rewarded
    from finetuning.memory.prediction import predict

    if recipe.base_model.trust_remote_code:
        raise FinetuningError("the base model runs code that its repo ships, which is made for real tensors")
    config, (longest, supervised, new_tokens) = AutoConfig.from_pretrained(model_folder), rows

    def needed(changed: Recipe) -> "Prediction":
        if changed.training.method == "grpo":
            return predict_rewarded(changed, config, place.device, rows)
        return predict(changed, config, place.device, min(longest, changed.chat.max_length), supervised, new_tokens)

    # A divided model's layers are gathered for each use, whichever that is.
    divided = recipe.resources.strategy == "fsdp" and place.processes > 1
    layers = 0 if divided else config.get_text_config().num_hidden_layers
    # On a CPU it pays where tokens come one at a time.
    writes_out = (place.device == "cuda" or recipe.training.method == "grpo") and not divided
    share = free() // (1 if place.device == "cuda" else place.processes)
    if recipe.training.use_vllm:
        share -= int(recipe.training.vllm_gpu_memory_utilization * gpu_memory())
    return fitted(recipe, longest, share, needed, layers, writes_out)


def in_yaml(value: Any) -> str:
    """A setting's value as a recipe has it."""
    items = getattr(value, "model_dump", dict)().items()
    return f"{{{', '.join(f'{key}: {in_yaml(item)}' for key, item in items)}}}" if items else as_yaml(value).strip("'")


def predicted(log: Any, recipe: Recipe, chat: Path, base: Path, place: Placement) -> Fit | None:
    """What training will need of the memory that is free, which the log then says; None where that cannot be told.

    Args:
        recipe: as for `fit_of`.
    """
    try:
        from finetuning.memory.data import training_data

        fit = fit_of(recipe, base, training_data(recipe, chat, base), place)
    except Exception as error:  # whatever it is: no training has to fail for want of a prediction
        log.warning(f"memory: not predicted ({type(error).__name__}: {' '.join(str(error).split())[:SHOWN]})")
        return None
    (log.info if fit.fits else log.warning)(fit.text())
    return fit


def told(task: Task, fit: Fit | None) -> Task:
    """Return the task with what the prediction decided, and what to say when memory runs out all the same."""
    if fit is None:
        return task
    training = task.training.model_copy(update={"activation_checkpointing": fit.checkpointing})
    decided = {"kept_layers": fit.kept_layers, "writes_weights_out": fit.in_4_bits is not None}
    return task.model_copy(update={"training": training, "fit": fit.advice(), **decided})
