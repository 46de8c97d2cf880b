"""An adapter answers in the precision in which it was trained."""

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer

from finetuning.base_model.loading import answer_on_cpu
from finetuning.base_model.quantized_base_model import quantize
from finetuning.lora.loading import load_base, load_side
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.training.lora_adapter import train
from tests.finetuning.training.adapter_jobs import ROWS, data, job_of
from tests.tiny_models import ZEPHYR, save_tiny_model

KWARGS = {"dtype": "bfloat16", "device_map": {"": "cpu"}, "use_safetensors": True, "trust_remote_code": False}
IDS = ROWS[0]["input_ids"]


@pytest.fixture(scope="module", params=[None, {"bits": 4}], ids=["in full precision", "in 4 bits"])
def trained(tmp_path_factory, request):
    """Folders of a base model and of an adapter that was trained in mixed precision."""
    folder = tmp_path_factory.mktemp("trained")
    source = save_tiny_model("smollm2-135m", folder / "source", ZEPHYR)
    quantize(BaseModelSpec(repo=str(source), quantization=request.param), source, folder / "base", KWARGS, "tiny")
    data(folder, source)
    settings = {"max_steps": 3, "learning_rate": 3e-2, "per_device_train_batch_size": 3, "bf16": True}
    job = job_of(folder, folder / "base", {"lora_dropout": 0.0}, settings, model_kwargs=KWARGS)
    train(job, Progress(lambda line: None, ""))
    return folder / "base", job.output


def logits_of(model):
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits


@pytest.mark.parametrize("mixed", [True, False])
def test_the_adapters_products_are_those_of_training(trained, mixed):
    base, adapter = trained
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    reference = PeftModel.from_pretrained(load_base(tokenizer, base, KWARGS, "tiny"), str(adapter)).eval()
    answer_on_cpu(reference)
    # As the trainer goes forward.
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        expected = logits_of(reference)
    answering = load_side(tokenizer, IDS, base, adapter, KWARGS, mixed)
    assert torch.equal(logits_of(answering), expected)
    formats = {p.dtype for m in answering.modules() if isinstance(m, LoraLayer) for p in m.lora_A.parameters()}
    assert formats == {torch.bfloat16 if mixed else torch.float32}
