"""What a training is predicted to hold of a GPU at most, and what it holds, at five shapes of a 7B model in NF4."""

import sys
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig

from benchmarks.acceptance.findings import Device, Findings, run
from benchmarks.acceptance.large import Large, large_model, rows_of
from benchmarks.fit import Job
from benchmarks.sides import SideFailed, record_of
from finetuning.memory.prediction import predict
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import allocator_settings
from resources.gpu import MIB

NEAR = 0.05


class Case(NamedTuple):
    """A training by what decides its memory."""

    rows: int
    """Of a pass."""
    length: int
    r: int
    checkpointing: bool

    def __str__(self) -> str:
        kept = "computed twice" if self.checkpointing else "kept"
        return f"{self.rows} rows of {self.length} tokens, rank {self.r}, activations {kept}"


# The last one is about what 80 GB hold.
CASES = (
    Case(1, 512, 16, checkpointing=False),
    Case(4, 2048, 16, checkpointing=True),
    Case(8, 512, 64, checkpointing=False),
    Case(1, 4096, 16, checkpointing=True),
    Case(4, 2048, 16, checkpointing=False),
)
TINY = (Case(2, 64, 8, checkpointing=False),)


def main(findings: Findings, folder: Path, device: Device, shape: str) -> None:
    """Train each for two steps in a process of its own."""
    large = large_model(folder, shape)
    for number, case in enumerate(TINY if shape == "tiny" else CASES):
        with findings.trying(str(case)):
            try_one(findings, case, large, folder / str(number), device)


def try_one(findings: Findings, case: Case, large: Large, folder: Path, device: Device) -> None:
    """Compare prediction and measurement; a machine that has less memory than predicted is no failure."""
    rows_of(large, 2 * case.rows, case.length, folder / "rows")
    recipe = recipe_of(case, large.model_kwargs["attn_implementation"])
    prediction = predict(recipe, AutoConfig.from_pretrained(large.folder), device)
    (folder / "adapter").mkdir()
    job = Job(
        where="acceptance",
        lora=recipe.lora.model_dump(mode="json"),
        training=recipe.training.model_dump(mode="json"),
        max_length=case.length,
        chat_dataset=str(folder / "rows"),
        base_model=str(large.folder),
        model_kwargs=large.model_kwargs,
        output=str(folder / "adapter"),
    )
    predicted = prediction.total // MIB
    try:
        summary = record_of("finetuning.training.process", sys.executable, job, "training", **allocator_settings())
    except SideFailed as failed:
        failure = folder / "adapter" / "failure.txt"
        said = failure.read_text() if failure.exists() else str(failed)
        findings.add(str(case), passed=None, predicted_mib=predicted, said=said[-300:])
        return
    measured = summary["peak_memory_mb"]
    findings.add(
        str(case),
        passed=abs(predicted / measured - 1) < NEAR if device == "cuda" else None,
        predicted_mib=predicted,
        measured_mib=measured,
        reserved_mib=summary["peak_reserved_mb"],
        error=predicted / measured - 1,
        attention=summary["attention"],
    )


def recipe_of(case: Case, kernel: str) -> Recipe:
    """The training as a recipe."""
    return Recipe.model_validate(
        {
            "name": "acceptance",
            "summary": "acceptance",
            "base_model": {"repo": "random/model", "attention": [kernel]},
            "dataset": {"sources": [{"generator": "linear-equations", "rows": 10}]},
            "chat": {"max_length": case.length},
            "lora": {"r": case.r, "lora_dropout": 0.05},
            "training": {
                "per_device_train_batch_size": case.rows,
                "per_device_eval_batch_size": 1,
                "activation_checkpointing": case.checkpointing,
                "max_steps": 2,
                "report_to": [],
            },
            "hub": {"repo": "acceptance", "license": "mit"},
        }
    )


if __name__ == "__main__":
    run("memory", main)
