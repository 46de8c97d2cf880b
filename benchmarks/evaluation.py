"""How fast both models answer the eval rows, beside transformers' own generation of one row after another.

`python -m benchmarks.evaluation` takes the recipe `smollm2-135m` as far as a shortly trained adapter, and lets base and
tuned model answer its eval rows as the asset `evaluation_report` does. Beside it, some of these rows, spread evenly,
are answered one at a time by `model.generate`: by the very same model, and by the model as bitsandbytes loads it, which
is what notebooks do. Speed is in tokens of answers a second. The ratio is the time that all the tokens would take one
row at a time, over the time that they took, of which writing out the quantized weights is a part; by
`ratio_to_sequential` the one row at a time has the weights written out too, by `ratio_to_notebook` it has not.

In float32 the answers of both ways are compared letter by letter. In bfloat16 a batch rounds otherwise than a row
alone, and the next token of some answers is another one: there the scores of both ways are compared, with the 95 %
interval of their difference. The last line of the output is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi
from peft import PeftModel

from benchmarks.sides import WORK
from finetuning.base_model.loading import answer_on_cpu, load_model
from finetuning.base_model.quantized_base_model import quantize
from finetuning.base_model.source import local_folder
from finetuning.chat.chat_dataset import write_chat
from finetuning.chat.template import stop_token
from finetuning.chat.tokenizer import load_tokenizer
from finetuning.dataset.raw_dataset import write_raw
from finetuning.dataset.revisions import resolve_all
from finetuning.evaluation.comparison import compare
from finetuning.evaluation.exam import Exam, exam_of
from finetuning.evaluation.generation import Answer, Question, answer_of, generate
from finetuning.evaluation.metrics import METRICS, Outcome
from finetuning.evaluation.report import Figures
from finetuning.evaluation.verdict import change_of
from finetuning.lora.loading import load_adapter, load_base
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.loading import load
from finetuning.recipe.recipe import Recipe
from finetuning.training.job import TrainingJob
from finetuning.training.lora_adapter import train
from finetuning.training.peak_memory import PeakMemory
from resources.gpu import Gpu

RECIPE = "smollm2-135m"
SILENT = Progress(lambda line: None, "")


@dataclass
class Side:
    """One model's answers: ours to all rows, and those to the rows that were answered one at a time."""

    name: str
    tokens: int
    seconds: float
    peak_mb: int
    sequential_rate: float
    notebook_rate: float
    identical: float
    difference: Figures


def main(arguments: list[str] | None = None) -> None:
    """The table and the JSON object are printed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description="Measure how models answer.")
    parser.add_argument("--rows", type=int, default=128, help="eval rows that are answered in batches (128)")
    parser.add_argument("--sequential-rows", type=int, default=12, help="of these, answered one at a time too (12)")
    parser.add_argument("--steps", type=int, default=24, help="steps that the adapter is trained for (24)")
    options = parser.parse_args(arguments)
    recipe = load(RECIPE)
    spec = recipe.evaluation.model_copy(update={"rows": options.rows})
    WORK.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="evaluation-", dir=WORK) as folder:
        root = Path(folder)
        prepare(root, recipe, options.steps)
        exam = exam_of(spec, root / "chat")
        chosen = list(range(0, len(exam.questions), max(1, len(exam.questions) // options.sequential_rows)))
        sides = [measure(name, root, recipe, spec, exam, chosen) for name in ("base", "tuned")]
    report(sides)


def prepare(root: Path, recipe: Recipe, steps: int) -> None:
    """Fill `root` with the folders chat, base and adapter."""
    spec = recipe.base_model
    folder = local_folder(spec, recipe.file)
    assert folder is not None, "the recipe's weights are on this machine"
    api, gpu = HfApi(token=False), Gpu()
    for name in ("raw", "base", "adapter"):
        (root / name).mkdir()
    revisions = resolve_all(recipe.dataset, api=api, where=recipe.file)
    write_raw(recipe.dataset, revisions, root / "raw", api=api, file=recipe.file)
    write_chat(root / "raw", root / "chat", recipe, load_tokenizer(spec, folder, recipe.file))
    quantize(spec, folder, root / "base", gpu.quantization_kwargs(spec), recipe.file)
    job = TrainingJob(
        where=recipe.file,
        lora=recipe.lora,
        training=recipe.training.model_copy(update={"max_steps": steps, "report_to": ()}),
        max_length=recipe.chat.max_length,
        chat_dataset=root / "chat",
        base_model=root / "base",
        model_kwargs=gpu.model_kwargs(spec),
        output=root / "adapter",
    )
    train(job, SILENT)


def measure(name: str, root: Path, recipe: Recipe, spec: EvaluationSpec, exam: Exam, chosen: list[int]) -> Side:
    """What one model's answers took, in every way."""
    kwargs, some = Gpu().model_kwargs(recipe.base_model), [exam.questions[i] for i in chosen]
    with PeakMemory() as memory:
        model = load_base(exam.tokenizer, root / "base", kwargs, str(root))
        model = load_adapter(model, root / "adapter", some[0].prompt_ids) if name == "tuned" else model
        started = time.perf_counter()
        answer_on_cpu(model)
        together = generate(model, exam.tokenizer, exam.questions, spec, SILENT, name)
        seconds = time.perf_counter() - started
    tokens = sum(answer.tokens for answer in together)
    print(f"{name}: {tokens / seconds:.1f} tokens/s together, ", end="", flush=True)
    alone, sequential_rate = timed(model, exam, some, spec)
    print(f"{sequential_rate:.1f} one at a time, ", end="", flush=True)
    _, notebook_rate = timed(as_notebooks_do(root, kwargs, name == "tuned"), exam, some, spec)
    print(f"{notebook_rate:.1f} as notebooks do", flush=True)
    torch.nn.Module.float(model)  # transformers' own refuses, though the weights are written out by now
    exact, _ = timed(model, exam, some, spec)
    others = [question for i, question in enumerate(exam.questions) if i not in chosen][: 3 * len(some)]
    batched = generate(model, exam.tokenizer, [*some, *others], spec, SILENT, name)
    return Side(
        name=name,
        tokens=tokens,
        seconds=seconds,
        peak_mb=memory.mib,
        sequential_rate=sequential_rate,
        notebook_rate=notebook_rate,
        identical=sum(one == other for one, other in zip(exact, batched, strict=False)) / len(some),
        difference=compare(METRICS["final-answer"], scored(some, alone), scored(some, [together[i] for i in chosen])),
    )


def as_notebooks_do(root: Path, kwargs: dict[str, Any], tuned: bool) -> Any:
    """The model as bitsandbytes and peft load it, with their own choice of kernels."""
    model = load_model(root / "base", **kwargs).eval()
    return PeftModel.from_pretrained(model, str(root / "adapter")).eval() if tuned else model


def timed(model: Any, exam: Exam, questions: Sequence[Question], spec: EvaluationSpec) -> tuple[list[Answer], float]:
    """transformers' own answers to one question after another, and their tokens a second."""
    stop = stop_token(exam.tokenizer)
    started, answers = time.perf_counter(), []
    for question in questions:
        ids = torch.tensor([question.prompt_ids])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=spec.max_new_tokens,
                do_sample=False,
                eos_token_id=stop,
                pad_token_id=stop,
            )
        answers.append(answer_of(exam.tokenizer, output[0, ids.shape[1] :].tolist(), stop))
    return answers, sum(answer.tokens for answer in answers) / (time.perf_counter() - started)


def scored(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Outcome]:
    """The answers beside their references."""
    return [Outcome(q.reference, a.text, a.stopped) for q, a in zip(questions, answers, strict=True)]


def report(sides: Sequence[Side]) -> None:
    """The table and the JSON object are printed."""
    seconds = sum(side.seconds for side in sides)

    def ratio(rate: Callable[[Side], float]) -> float:
        return round(sum(side.tokens / rate(side) for side in sides) / seconds, 2)

    for side in sides:
        low, high = side.difference.interval
        print(
            f"{side.name}: {side.tokens:,} tokens in {side.seconds:.1f} s, at most {side.peak_mb:,} MiB; in float32 "
            f"{side.identical:.0%} of the answers are those of one row at a time; in bfloat16 final-answer differs by "
            f"{side.difference.gain:+.3f} ({low:+.3f} to {high:+.3f})"
        )
    result = {
        "ratio_to_sequential": ratio(lambda side: side.sequential_rate),
        "ratio_to_notebook": ratio(lambda side: side.notebook_rate),
        "identical_answers": sum(side.identical for side in sides) / len(sides),
        "tokens_per_second": {side.name: round(side.tokens / side.seconds, 1) for side in sides},
        "score_differs_beyond_noise": any(change_of(side.difference) != "noise" for side in sides),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
