"""What an exam will need: keys and values of real models, an exam's memory beside its prediction, what is refused."""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from finetuning.errors import FinetuningError
from finetuning.evaluation.exam import Candidate, Exam, sit
from finetuning.evaluation.generation import Question
from finetuning.memory.exam import ExamRows, cached, predict_exam, require_exam_fits
from finetuning.memory.prediction import MIB
from finetuning.memory.shapes import adapted_model, leave_meta
from finetuning.progress import Progress
from finetuning.recipe.recipe import Recipe
from tests.finetuning.memory.test_prediction import NF4, recipe_of
from tests.tiny_models import save_tiny_model
from tests.warm_server import WarmServer


def asked(batch_size: int, **base_model: Any) -> Recipe:
    recipe = recipe_of(256, base_model={"dtype": "float32", **base_model})
    spec = recipe.evaluation.model_copy(update={"batch_size": batch_size, "max_new_tokens": 24, "metrics": ("loss",)})
    return recipe.model_copy(update={"evaluation": spec})


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.info = self.warning = self.lines.append


@pytest.mark.parametrize("name", ["smollm2-135m", "falcon-7b", "phi-2", "gemma-3", "zephyr-7b-beta"])
def test_keys_and_values_are_counted_as_the_model_keeps_them(tmp_path, name):
    config = AutoConfig.from_pretrained(save_tiny_model(name, tmp_path))
    real: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32")
    with torch.inference_mode():
        kept = real.generate(
            torch.full((3, 80), 5), max_new_tokens=8, min_new_tokens=8, return_dict_in_generate=True
        ).past_key_values
    model = adapted_model(asked(3), config, "sdpa", [])
    with FakeTensorMode(allow_non_fake_inputs=True):
        leave_meta(model)
        (predicted,) = cached(model, 3, (87,))
    # A layer with a window keeps one token less: the next one completes it.
    a_token = 2 * 3 * kept.layers[0].keys.shape[1] * kept.layers[0].keys.shape[3] * 4
    assert predicted == pytest.approx(sum(x.keys.nbytes + x.values.nbytes for x in kept.layers), abs=2 * a_token)


def test_exams_of_few_and_of_many_at_once_take_what_is_predicted(tmp_path):
    shape: dict[str, Any] = {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    folder = save_tiny_model("smollm2-135m", tmp_path / "model", **shape)
    # Of a process that has kept no memory from what was tested before.
    code = f"""
import sys
from pathlib import Path
from {__name__} import peak_of_exam
print(peak_of_exam(Path(sys.argv[1]), int(sys.argv[2])))
"""
    peaks = {size: WarmServer.run_code(code, str(folder), str(size)).stdout.split()[-1] for size in (2, 64)}
    sizes = {size: (int(peaks[size]), predicted_for(folder, size)) for size in peaks}
    shown = [[x // MIB for x in pair] for pair in sizes.values()]
    # Without the keys and values that are kept, the larger one would be a quarter too small.
    assert all(predicted == pytest.approx(measured, rel=0.18) for measured, predicted in sizes.values()), shown


def predicted_for(folder: Path, size: int) -> int:
    recipe, config = asked(size, quantization=None), AutoConfig.from_pretrained(folder)
    return predict_exam(recipe, config, "cpu", ExamRows(200, 210, 10)).total


def peak_of_exam(folder: Path, size: int) -> int:
    draw = random.Random(0)
    prompts = [[draw.randrange(5, 200) for _ in range(200)] for _ in range(size)]
    questions = [Question("", [], prompt, "5") for prompt in prompts]
    rows = [prompt + [7] * 10 for prompt in prompts]
    exam = Exam(AutoTokenizer.from_pretrained(folder), questions, rows, [[-100] * 200 + [7] * 10] * size)
    exam.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    kwargs = {"dtype": "float32", "device_map": {"": "cpu"}, "attn_implementation": "sdpa", "trust_remote_code": False}
    with Progress(lambda line: None, "") as progress:
        candidate = Candidate("base", folder, None, kwargs)
        return sit(asked(size).evaluation, exam, candidate, progress, folder).peak_memory_mb * MIB


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base model, and a chat data set of a few rows."""
    chat, base = (tmp_path_factory.mktemp(name) for name in ("chat", "base"))
    save_tiny_model("smollm2-135m", base)
    rows = [{"input_ids": list(range(5, 25)), "labels": [-100] * 12 + list(range(17, 25))}] * 6
    pd.DataFrame(rows).to_parquet(chat / "eval.parquet")
    return chat, base


def test_an_exam_that_this_machine_cannot_hold_is_refused_with_what_it_can(folders):
    chat, base = folders
    with pytest.raises(FinetuningError) as error:
        require_exam_fits(Log(), asked(2**30), chat, base, "cpu")
    said = str(error.value)
    assert "evaluation.batch_size: answering 1073741824 prompts" in said and "could only fail" in said
    advised = int(said.rpartition("batch_size: ")[2].rstrip("."))
    log = Log()
    require_exam_fits(log, asked(advised), chat, base, "cpu")
    assert "MiB are free" in log.lines[0] and "predicted to take" not in log.lines[0]


def test_an_exam_that_fits_is_said_to(folders):
    chat, base = folders
    log = Log()
    require_exam_fits(log, asked(8), chat, base, "cpu")
    assert log.lines[0].startswith("memory of the exam: ") and "at its peak" in log.lines[0]


def test_4_bit_weights_are_counted_written_out_where_memory_allows(folders):
    config = AutoConfig.from_pretrained(folders[1])
    tight, roomy = (
        predict_exam(asked(2, quantization=NF4), config, "cpu", ExamRows(12, 20, 8), free) for free in (0, 2**40)
    )
    gpu = predict_exam(asked(2, quantization=NF4), config, "cuda", ExamRows(12, 20, 8))
    assert roomy.weights > tight.weights == gpu.weights
