"""A training that is killed goes on from its last checkpoint, and ends with the weights of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.acceptance.findings import Device, Findings, run
from benchmarks.acceptance.tiny import base_of, job_on
from finetuning.training.job import TrainingJob
from resources.gpu import Gpu

STEPS = 60
SECONDS = 100.0
# Of the weights' length: kernels of a GPU may add up in another order each time.
NEAR = 1e-2


def main(findings: Findings, folder: Path, device: Device, shape: str) -> None:
    """Compare a training that was killed with one that was not, and that one with itself."""
    spec, base = base_of("smollm2-135m", folder, attention=["varlen", "sdpa"])
    kwargs = Gpu().model_kwargs(spec)
    settings = {"max_steps": STEPS, "save_steps": 1, "per_device_train_batch_size": 1, "bf16": spec.dtype == "bfloat16"}
    jobs = [job_on(base, folder / name, kwargs, 8, **settings) for name in ("whole", "again", "killed")]
    files = [written(job) for job in jobs]
    for file in files[:2]:
        subprocess.run(command(file), check=True)
    killed = subprocess.Popen(command(files[2]))
    end = time.monotonic() + SECONDS
    while not any(jobs[2].checkpoints.glob("step-[1-9]*")) and killed.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    steps = sorted(int(path.name.removeprefix("step-")) for path in jobs[2].checkpoints.glob("step-[0-9]*"))
    subprocess.run(command(files[2]), check=True)
    whole, again, resumed = (weights_in(job.output) for job in jobs)
    apart = {"of_two_undisturbed": distance(again, whole), "of_the_killed_one": distance(resumed, whole)}
    passed = bool(steps) and steps[-1] < STEPS and apart["of_the_killed_one"] < NEAR
    findings.add("killed and gone on", passed=passed, killed_at=steps[-1:], **apart)


def written(job: TrainingJob) -> Path:
    """The file of the job, beside the folder of its adapter."""
    file = job.output.with_name("job.json")
    file.write_text(job.model_dump_json())
    job.output.mkdir()
    return file


def command(file: Path) -> list[str]:
    """What trains."""
    return [sys.executable, "-m", "finetuning.training.process", str(file)]


def weights_in(adapter: Path) -> torch.Tensor:
    """All weights of an adapter, in one row."""
    found = load_file(adapter / "adapter_model.safetensors")
    return torch.cat([found[name].flatten().double() for name in sorted(found)])


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How far one is from the other, as a share of the other's length."""
    return float((found - expected).norm() / expected.norm())


if __name__ == "__main__":
    run("resume", main)
