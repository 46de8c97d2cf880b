"""What a training needs that draws its answers itself: a step's passes, and before them a batch of answers."""

from dataclasses import replace

from transformers import PreTrainedConfig

from finetuning.memory.exam import ExamRows, predict_exam
from finetuning.memory.prediction import Device, Prediction, predict
from finetuning.memory.rows import TrainingData
from finetuning.memory.savings import Settings, with_settings
from finetuning.recipe.recipe import Recipe


def predict_rewarded(recipe: Recipe, config: PreTrainedConfig, device: Device, rows: TrainingData) -> Prediction:
    """Predict what training by rewards needs: that of its passes, and what drawing answers adds to their peak.

    Args:
        rows: of the longest prompt with the longest answer.
    """
    training, drawn = recipe.training, recipe.training.max_completion_length
    trained = predict(recipe, config, device, rows.longest, rows.supervised, rows.new_tokens)
    answers = training.per_device_train_batch_size * training.gradient_accumulation_steps
    settings: Settings = {"evaluation.batch_size": answers, "evaluation.max_new_tokens": drawn}
    asked = ExamRows(rows.longest - drawn, rows.longest, drawn)
    drawing = predict_exam(with_settings(recipe, settings), config, device, asked)
    more = drawing.cache + drawing.activations + drawing.logits - trained.activations - trained.head
    return replace(trained, evaluation=max(trained.evaluation, more))
