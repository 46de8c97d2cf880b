"""Base and tuned model on public benchmarks: lm-eval asks and scores, and the gains have the intervals of metrics.

>>> compare_benchmarks(base_folder, tuned_folder)["arc_easy"]
{"metric": "acc", "rows": 2376, "base": 0.412, "tuned": 0.405, "gain": -0.007, "interval": [-0.021, 0.006], …}
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lm_eval.api.model import CacheHook
from lm_eval.evaluator import evaluate as run_tasks
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from finetuning.chat.template import stop_token
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.evaluation.benchmark_tasks import Benchmark
from finetuning.evaluation.comparison import interval_of, resampled
from finetuning.evaluation.exam import Exam
from finetuning.lora.loading import load_side
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.training.peak_memory import PeakMemory

ROWS = "benchmarks.parquet"
SEED = 1234
Harness: Any = HFLM  # whose decorator hides its type
# What lm-eval shows of the mean over rows.
FIGURES: dict[str, Callable[[Any], Any]] = {
    "mean": lambda mean: mean,
    "perplexity": lambda mean: np.exp(-mean),
    "weighted_perplexity": lambda mean: np.exp(-mean),
    "bits_per_byte": lambda mean: -mean / math.log(2),
}


class Requests(CacheHook):
    """Counts what lm-eval has asked, and tells `progress`: lm-eval hands its hook each answer as it comes."""

    def __init__(self, progress: Progress, name: str) -> None:
        super().__init__(None)
        self.progress, self.name, self.asked, self.answered = progress, name, 0, 0

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Nothing; one more request has its answer."""
        self.answered += 1
        self.tell()

    def tell(self) -> None:
        """Nothing; the next line says how far it is."""
        self.progress.update(f"{self.name}: {self.answered}/{self.asked} requests of the benchmarks answered")


class Examinee(Harness):
    """A loaded model as lm-eval asks it: it ends its answers where its chat template does."""

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int, progress: Progress, name: str
    ) -> None:
        # HFLM ties head and embeddings again, and with them what an adapter has learned of one of the two.
        model.tie_weights = lambda *_, **__: None
        # The likelihoods of two choices may differ by less than bfloat16 can tell.
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
        self.requests = Requests(progress, name)
        self.set_cache_hook(self.requests)

    @property
    def eot_token_id(self) -> int:
        """The stop token, which need not be the tokenizer's end-of-text token."""
        return stop_token(self.tokenizer)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """HFLM's, counted."""
        return super().loglikelihood(self._counted(requests), disable_tqdm)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """HFLM's, counted."""
        return super().loglikelihood_rolling(self._counted(requests), disable_tqdm)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """HFLM's, counted."""
        return super().generate_until(self._counted(requests), disable_tqdm)

    def _counted(self, requests: Any) -> Any:
        self.requests.asked += len(requests)
        self.requests.tell()
        return requests

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **generation_kwargs: Any) -> Any:
        return super()._model_generate(context, max_length, stop, eos_token_id=self.eot_token_id, **generation_kwargs)


def sit_benchmarks(
    spec: EvaluationSpec,
    benchmarks: Mapping[str, Benchmark],
    exam: Exam,
    base_model: Path,
    adapter: Path | None,
    model_kwargs: dict[str, Any],
    progress: Progress,
    folder: Path,
) -> dict[str, Any]:
    """What the base model, or the one tuned with `adapter`, took to be asked: rows by benchmark, and MiB at most.

    The score of each row is in `folder` then, see `compare_benchmarks`.

    Raises:
        FinetuningError: the adapter is not whole or changes nothing, memory ran out, or lm-eval gave up.
    """
    name = "tuned" if adapter else "base"
    progress.update(f"{name}: loading the model")
    with PeakMemory() as memory:
        model = load_side(exam.tokenizer, exam.questions[0].prompt_ids, base_model, adapter, model_kwargs)
        rows = ask(Examinee(model, exam.tokenizer, spec.batch_size, progress, name), benchmarks, spec)
    rows.to_parquet(folder / ROWS)
    return {"rows": rows["benchmark"].value_counts(sort=False).to_dict(), "peak_memory_mb": memory.mib}


def ask(examinee: Examinee, benchmarks: Mapping[str, Benchmark], spec: EvaluationSpec) -> pd.DataFrame:
    """A row for each row of each benchmark: its sum and weight, whose quotient is the score, and a hash of its text."""
    tasks = {name: task for benchmark in benchmarks.values() for name, task in benchmark.tasks.items()}
    samples = {}
    for generates in (False, True):
        some = {name: task for name, task in tasks.items() if (task.OUTPUT_TYPE == "generate_until") == generates}
        samples |= run(examinee, some, spec.benchmark_rows, chat=generates) if some else {}
    return pd.DataFrame(
        [row for one in benchmarks.values() for name in one.tasks for row in rows_of(one, name, samples[name])]
    )


def run(examinee: Examinee, tasks: dict[str, Any], limit: int | None, chat: bool) -> dict[str, list[dict[str, Any]]]:
    """What lm-eval noted of each row, by task.

    Args:
        chat: whether the prompt is a turn of a chat that the model answers, or text that it goes on with.
    """
    torch.manual_seed(SEED)  # of tasks that sample
    try:
        asked = {"limit": limit, "bootstrap_iters": 0, "apply_chat_template": chat, "fewshot_as_multiturn": chat}
        found: Any = run_tasks(examinee, {"tasks": tasks}, **asked)
    except torch.OutOfMemoryError as error:
        raise InfrastructureError(
            f"evaluation.batch_size: memory ran out with {examinee.batch_size} requests of benchmarks together: lower "
            f"it ({error})"
        ) from error
    except (AssertionError, ValueError) as error:
        raise FinetuningError(f"evaluation.benchmarks: lm-eval gave up on {', '.join(tasks)}: {error}") from error
    return found["samples"]


def rows_of(benchmark: Benchmark, task: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one task, by the first of its filters of answers; lm-eval notes each row once a filter."""
    rows = []
    for sample in samples:
        if sample["filter"] == samples[0]["filter"]:
            found = sample[benchmark.metric]
            total, weight = found if isinstance(found, (tuple, list)) else (found, 1.0)
            rows.append(
                {
                    "benchmark": benchmark.name,
                    "metric": benchmark.metric,
                    "aggregation": benchmark.aggregation,
                    "higher_is_better": benchmark.higher_is_better,
                    "task": task,
                    "row": sample["doc_id"],
                    "text": sample["doc_hash"],
                    "sum": float(total),
                    "weight": float(weight),
                }
            )
    return rows


def compare_benchmarks(base: Path, tuned: Path) -> dict[str, dict[str, Any]]:
    """The figures of base and tuned by benchmark, each gain with its 95 % interval.

    Args:
        base: the folder where `sit_benchmarks` left the base model's scores, as `tuned` is of the tuned model's.

    Raises:
        FinetuningError: they were not asked the same rows.
    """
    before, after = (pd.read_parquet(folder / ROWS) for folder in (base, tuned))
    asked = ["benchmark", "task", "row", "text"]
    if not before[asked].equals(after[asked]):
        raise FinetuningError(
            f"evaluation.benchmarks: rows have changed since the base model was asked them ({base}): a data set was "
            "published anew. Delete that folder and materialize evaluation_report again."
        )
    sides = [dict(iter(side.groupby("benchmark", sort=False))) for side in (before, after)]
    return {str(name): compare(rows, sides[1][name]) for name, rows in sides[0].items()}


def compare(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """The figures of base and tuned in one benchmark, with their standard errors, and the gain with its interval."""
    figure = FIGURES[before["aggregation"].iat[0]]
    sides = [side[["sum", "weight"]].to_numpy() for side in (before, after)]
    base, tuned = (float(figure(side[:, 0].sum() / side[:, 1].sum())) for side in sides)
    drawn = resampled(sides, figure)
    return {
        "metric": before["metric"].iat[0],
        "rows": len(before),
        "base": base,
        "tuned": tuned,
        "gain": tuned - base,
        "interval": interval_of(drawn),
        "standard_errors": [float(side.std()) for side in drawn],
        "higher_is_better": bool(before["higher_is_better"].iat[0]),
    }
