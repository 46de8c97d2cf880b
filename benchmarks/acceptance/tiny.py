"""Small trainings on either device, by the project's own trainer.

Models are the random ones of the tests, of each architecture that a recipe names.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer

from finetuning.base_model.quantized_base_model import quantize
from finetuning.progress import Progress
from finetuning.recipe.base_model import BaseModelSpec
from finetuning.training.job import TrainingJob
from resources.gpu import Gpu
from tests.tiny_models import save_tiny_model

SILENT = Progress(lambda line: None, "")
LENGTHS = (90, 12, 47, 23)  # tokens of the rows
PROMPT = 5  # of them that are not learned
# No momentum, nor a division by the gradients' size: what is wrong in a gradient is as wrong in the weights.
DESCENT = {
    "optim": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "logging_steps": 1,
    "activation_checkpointing": False,
    "report_to": [],
    "per_device_train_batch_size": len(LENGTHS),
}


def rows() -> list[dict[str, list[int]]]:
    """Rows with labels, of tokens that every tiny model has."""
    ids = [[5 + (7 * place + 3 * length) % 240 for place in range(length)] for length in LENGTHS]
    return [{"input_ids": row, "labels": [-100] * PROMPT + row[PROMPT:]} for row in ids]


def base_of(name: str, folder: Path, **base_model: Any) -> tuple[BaseModelSpec, Path]:
    """The specification of a tiny model like that recipe's, and the folder that holds it, ready to train on."""
    source = save_tiny_model(name, folder / "source", initializer_range=0.2)
    spec = BaseModelSpec.model_validate({"repo": str(source)} | base_model)
    quantize(spec, source, folder / "base", Gpu().quantization_kwargs(spec), f"{name}.yaml")
    return spec, folder / "base"


def job_on(base: Path, folder: Path, kwargs: dict[str, Any], repeated: int = 1, **training: Any) -> TrainingJob:
    """A training on that model, whose rows are written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "eval"):
        Dataset.from_list(rows() * repeated).to_parquet(str(folder / f"{split}.parquet"))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "tokenizer")
    return TrainingJob.model_validate(
        {
            "where": "acceptance",
            "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0},
            "training": DESCENT | training,
            "max_length": 128,
            "chat_dataset": folder,
            "base_model": base,
            "model_kwargs": kwargs,
            "output": folder / "adapter",
        }
    )


def on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same model on the CPU, in float32."""
    kernel = kwargs["attn_implementation"]
    kernel = kernel if kernel in ("sdpa", "eager") else "sdpa"
    return kwargs | {"device_map": {"": "cpu"}, "dtype": "float32", "attn_implementation": kernel}
