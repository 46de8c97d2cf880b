"""How fast a 7B model in NF4 answers prompts of 256 tokens, as the exam asks them."""

import time
from pathlib import Path

import torch

from benchmarks.acceptance.findings import Device, Findings, run
from benchmarks.acceptance.large import large_model
from finetuning.base_model.loading import answer_on_cpu, load_model
from finetuning.evaluation.decoding import Decoding
from finetuning.evaluation.generation import continuations, keep_head_whole, left_padded
from finetuning.progress import Progress

PROMPT, NEW = 256, 64  # tokens
NEVER = -1  # a stop token that does not come
SILENT = Progress(lambda line: None, "")


def main(findings: Findings, folder: Path, device: Device, shape: str) -> None:
    """Answer batches of one size after the other."""
    large = large_model(folder, shape)
    model = load_model(large.folder, **large.model_kwargs).eval()
    answer_on_cpu(model)
    size = model.config.vocab_size
    for rows in (2,) if shape == "tiny" else (1, 8, 64):
        with findings.trying(f"{rows} answers together"), keep_head_whole(model), torch.inference_mode():
            prompts = torch.randint(3, size, (rows, 16 if shape == "tiny" else PROMPT)).tolist()
            batch = left_padded(prompts, 0, model.device)
            continuations(model, batch, NEVER, Decoding(2), (SILENT, "warm-up"))
            started = time.monotonic()
            answers = continuations(model, batch, NEVER, Decoding(NEW), (SILENT, "answers"))
            seconds = time.monotonic() - started
            tokens = sum(map(len, answers))
            findings.add(
                f"{rows} answers together",
                passed=tokens == rows * NEW,
                tokens_per_second=tokens / seconds,
                attention=large.model_kwargs["attn_implementation"],
            )


if __name__ == "__main__":
    run("generation", main)
