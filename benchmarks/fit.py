"""How near the memory that a training is predicted to need is to what it needs.

`python -m benchmarks.fit` prepares rows and base model of the recipe `smollm2-135m` as the pipeline does, and trains a
few steps of it with 4, 8 and 16 rows a pass, each time in a fresh process that measures the eval loss as well. Beside
the most memory that the process held, which is what the asset `lora_adapter` shows as `peak_memory_mb`, is what
`Gpu.fit` said before it was started.

The last line of the output is one JSON object.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from huggingface_hub import HfApi

from benchmarks.sides import WORK, record_of
from finetuning.base_model.quantized_base_model import quantize
from finetuning.base_model.source import local_folder
from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.revisions import resolve_all
from finetuning.memory.data import training_data
from finetuning.memory.savings import with_settings
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe
from resources.gpu import MIB, Gpu
from resources.launcher import child_environment

RECIPE = "smollm2-135m"
ROWS = (4, 8, 16)


class Job(NamedTuple):
    """What the training process reads; paths are folders."""

    where: str
    lora: dict[str, Any]
    training: dict[str, Any]
    max_length: int
    chat_dataset: str
    base_model: str
    model_kwargs: dict[str, Any]
    output: str

    @property
    def record(self) -> str:
        """The file of its summary."""
        return f"{self.output}/summary.json"


class Comparison(NamedTuple):
    """One training: memory in MiB."""

    rows: int
    """Of a pass."""
    predicted: int
    measured: int
    seconds: float
    """That the prediction took."""

    @property
    def error(self) -> float:
        """By how much the prediction is too high, as a share of what was measured."""
        return self.predicted / self.measured - 1


def main(arguments: list[str] | None = None) -> None:
    """The table and the JSON object are printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description="Measure predictions of memory.")
    parser.add_argument("--steps", type=int, default=3, help="steps of each training (3)")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of a pass, for each training (4 8 16)")
    options = parser.parse_args(arguments)
    recipe = with_settings(load(RECIPE), {"training.max_steps": options.steps, "training.warmup_steps": 0})
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="fit-", dir=WORK) as folder:
        work = Path(folder)
        prepare(work, recipe)
        found = [compare(work, recipe, rows) for rows in options.rows]
    print(table(found))
    print(json.dumps(result(found)))


def prepare(work: Path, recipe: Recipe) -> None:
    """Fill `work` with the rows in `chat`, and the base model in `base`."""
    spec, api = recipe.base_model, HfApi(token=False)
    source = local_folder(spec, recipe.file)
    assert source is not None, "the recipe's base model is on this machine"
    revisions = resolve_all(recipe.dataset, api=api, where=recipe.file)
    write_raw(recipe.dataset, revisions, work / "raw", api=api, file=recipe.file)
    write_chat(work / "raw", work / "chat", recipe, load_tokenizer(spec, source, recipe.file))
    gpu = Gpu()
    quantize(spec, source, work / "base", gpu.quantization_kwargs(spec), recipe.file)


def compare(work: Path, recipe: Recipe, rows: int) -> Comparison:
    """What was predicted, and then measured, of a training with so many rows a pass."""
    recipe = with_settings(recipe, {"training.per_device_train_batch_size": rows})
    started = time.monotonic()
    fit = Gpu().fit(recipe, work / "base", *training_data(recipe, work / "chat", work / "base"))
    seconds = time.monotonic() - started
    print(fit.text(), flush=True)
    (work / f"adapter-{rows}").mkdir()
    job = Job(
        where=recipe.file,
        lora=recipe.lora.model_dump(mode="json"),
        training=recipe.training.model_dump(mode="json") | {"activation_checkpointing": fit.checkpointing},
        max_length=recipe.chat.max_length,
        chat_dataset=str(work / "chat"),
        base_model=str(work / "base"),
        model_kwargs=Gpu().model_kwargs(recipe.base_model),
        output=str(work / f"adapter-{rows}"),
    )
    threads = child_environment()["OMP_NUM_THREADS"]
    summary = record_of("finetuning.training.process", sys.executable, job, "training", OMP_NUM_THREADS=threads)
    return Comparison(rows, fit.prediction.total // MIB, summary["peak_memory_mb"], seconds)


def table(found: list[Comparison]) -> str:
    """The table as text."""
    lines = ["", f"{'rows a pass':>12}{'predicted':>14}{'measured':>14}{'error':>9}{'predicted in':>15}"]
    lines += [
        f"{it.rows:>12}{it.predicted:>10,} MiB{it.measured:>10,} MiB{it.error:>+9.1%}{it.seconds:>13.1f} s"
        for it in found
    ]
    return "\n".join(lines)


def result(found: list[Comparison]) -> dict[str, Any]:
    """The JSON object: the largest error, whatever its sign, and all that was found."""
    return {
        "largest_error": round(max(abs(it.error) for it in found), 4),
        "trainings": [{**it._asdict(), "seconds": round(it.seconds, 2), "error": round(it.error, 4)} for it in found],
    }


if __name__ == "__main__":
    main()
