"""Two steps of each shipped recipe's architecture, with its quantization and kernels, beside the same on the CPU."""

from pathlib import Path

from benchmarks.acceptance.findings import Device, Findings, run
from benchmarks.acceptance.tiny import SILENT, base_of, job_on, on_cpu
from finetuning.recipe.loading import load, partitions
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu

NEAR = 0.05  # of the loss of two steps, in bfloat16 beside float32


def main(findings: Findings, folder: Path, device: Device, shape: str) -> None:
    """Train each, and go on with the next where one fails."""
    names = partitions() if shape != "tiny" else ["mistral-7b-fennec", "smollm2-135m"]
    for name in names:
        with findings.trying(name):
            try_one(findings, name, folder / name)


def try_one(findings: Findings, name: str, folder: Path) -> None:
    """Compare the losses of both devices."""
    recipe = load(name).base_model
    settings = recipe.model_dump(mode="json", include={"quantization", "attention", "dtype"})
    spec, base = base_of(name, folder, **settings)
    kwargs = Gpu().model_kwargs(spec)
    there = train(job_on(base, folder / "there", kwargs, max_steps=2, bf16=spec.dtype == "bfloat16"), SILENT)
    here = train(job_on(base, folder / "here", on_cpu(kwargs), max_steps=2, bf16=False), SILENT)
    losses = {"loss": there["train_loss"], "on_a_cpu": here["train_loss"]}
    passed = abs(losses["loss"] / losses["on_a_cpu"] - 1) < NEAR
    findings.add(name, passed=passed, attention=there["attention"], device=there["device"], **losses)


if __name__ == "__main__":
    run("recipes", main)
