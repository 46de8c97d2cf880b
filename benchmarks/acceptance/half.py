"""Training in float16 with a scaled loss, as a GPU without bfloat16 does it."""

import math
from pathlib import Path

from benchmarks.acceptance.findings import Device, Findings, run
from benchmarks.acceptance.tiny import SILENT, base_of, job_on, on_cpu
from finetuning.training.lora_adapter import train
from resources.gpu import Gpu

STEPS = 20
NEAR = 0.05


def main(findings: Findings, folder: Path, device: Device, shape: str) -> None:
    """Compare the losses with those of a CPU."""
    if device != "cuda":
        findings.add("float16", passed=None, reason="a CPU trains in float32")
        return
    spec, base = base_of("mistral-7b-fennec", folder, dtype="float16", attention=["sdpa"])
    kwargs = Gpu().model_kwargs(spec)
    there = train(job_on(base, folder / "there", kwargs, max_steps=STEPS, bf16=False), SILENT)
    here = train(job_on(base, folder / "here", on_cpu(kwargs), max_steps=STEPS, bf16=False), SILENT)
    first, last = (there["curve"][place]["loss"] for place in (0, -1))
    near = abs(there["train_loss"] / here["train_loss"] - 1)
    findings.add(
        "float16", passed=math.isfinite(last) and last < first and near < NEAR, first=first, last=last, error=near
    )


if __name__ == "__main__":
    run("half", main)
