"""What a training needs that draws its answers itself."""

from transformers import AutoConfig

from finetuning.memory.data import longest_prompt
from finetuning.memory.drawing import predict_rewarded
from finetuning.memory.prediction import MIB
from finetuning.memory.rows import TrainingData
from tests.finetuning.memory.test_prediction import recipe_of
from tests.finetuning.training.adapter_jobs import ROWS, data
from tests.tiny_models import save_tiny_model


def test_answers_that_are_drawn_together_need_room_however_small_the_passes_are(tmp_path):
    config = AutoConfig.from_pretrained(save_tiny_model("smollm2-135m", tmp_path))

    def needed(passes, longest=4000):
        training = {"method": "grpo", "reward": ["chrf"], "max_completion_length": 200, "num_generations": 4}
        recipe = recipe_of(training=training | {"gradient_accumulation_steps": passes})
        return predict_rewarded(recipe, config, "cpu", TrainingData(longest, 200, []))

    few, many = needed(1), needed(64)
    assert (few.activations, few.head, few.gradients) == (many.activations, many.head, many.gradients)
    assert many.total > few.total + 100 * MIB
    assert needed(64, longest=2000).total < many.total


def test_the_longest_prompt_ends_where_the_answer_begins(tmp_path):
    data(tmp_path, save_tiny_model("smollm2-135m", tmp_path / "tiny"))
    assert longest_prompt(tmp_path / "train.parquet") == max(row["labels"].count(-100) for row in ROWS[:2])
