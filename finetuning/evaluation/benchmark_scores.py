"""Base and tuned model on public benchmarks: lm-eval asks and scores, and the gains have the intervals of metrics.

>>> compare_benchmarks(base_folder, tuned_folder)["arc_easy"]
BenchmarkFigures(metric="acc", rows=2376, base=0.412, tuned=0.405, gain=-0.007, interval=(-0.021, 0.006), …)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from lm_eval.api.model import CacheHook
from lm_eval.evaluator import evaluate as run_tasks
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from finetuning.base_model.loading import freeing_models
from finetuning.chat.template import stop_token
from finetuning.errors import FinetuningError, InfrastructureError
from finetuning.evaluation.benchmark_tasks import Benchmark
from finetuning.evaluation.exam import Candidate, Exam
from finetuning.evaluation.intervals import Sides, figure_of, gain_interval, standard_error
from finetuning.evaluation.metrics import perplexity
from finetuning.evaluation.report import BenchmarkFigures
from finetuning.out_of_memory import is_out_of_memory
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.record import Record
from finetuning.training.peak_memory import PeakMemory

if TYPE_CHECKING:
    from lm_eval.api.task import Task

ROWS = "benchmarks.parquet"
SEED = 1234
Harness: Any = HFLM  # whose decorator hides its type
# What lm-eval shows of the mean over rows.
FIGURES: Mapping[str, Callable[[Any], Any]] = {
    "mean": lambda mean: mean,
    "perplexity": lambda mean: perplexity(-mean),
    "weighted_perplexity": lambda mean: perplexity(-mean),
    "bits_per_byte": lambda mean: -mean / math.log(2),
}

# What lm-eval notes of a row: `doc_id`, `doc_hash`, `filter`, and a number or a pair under the metric's name.
LmEvalSample = Mapping[str, Any]


class Row(NamedTuple):
    """What a model scored in one row of a task: `sum` by `weight`."""

    benchmark: str
    metric: str
    aggregation: str
    higher_is_better: bool
    task: str
    row: int
    text: str
    """lm-eval's hash of the row."""
    sum: float
    weight: float


class BenchmarkAnswering(Record):
    """What it took one model to be asked the benchmarks; its scores lie beside."""

    rows: dict[str, int]
    """By benchmark."""
    peak_memory_mb: int


class Requests(CacheHook):
    """Counts what lm-eval has asked, and tells `progress`: lm-eval hands its hook each answer as it comes."""

    def __init__(self, progress: Progress, name: str) -> None:
        super().__init__(None)
        self.progress, self.name, self.asked, self.answered = progress, name, 0, 0

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Count one more answered request."""
        self.answered += 1
        self.tell()

    def tell(self) -> None:
        """Hand the progress how many requests are answered."""
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


@freeing_models()
def sit_benchmarks(
    spec: EvaluationSpec,
    benchmarks: Mapping[str, Benchmark],
    exam: Exam,
    candidate: Candidate,
    progress: Progress,
    folder: Path,
) -> BenchmarkAnswering:
    """Ask a model the benchmarks, write the score of each row into `folder`, and return what that took.

    `compare_benchmarks` reads the scores.

    Raises:
        FinetuningError: the adapter is not whole or changes nothing, memory ran out, or lm-eval gave up.
    """
    progress.update(f"{candidate.name}: loading the model")
    with PeakMemory() as memory:
        examinee = Examinee(candidate.load(exam), exam.tokenizer, spec.batch_size, progress, candidate.name)
        rows = ask(examinee, benchmarks, spec)
    rows.to_parquet(folder / ROWS)
    return BenchmarkAnswering(rows=rows["benchmark"].value_counts(sort=False).to_dict(), peak_memory_mb=memory.mib)


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


def run(examinee: Examinee, tasks: "dict[str, Task]", limit: int | None, chat: bool) -> dict[str, list[LmEvalSample]]:
    """Let lm-eval ask the tasks; return what it noted of each row, by task.

    Args:
        chat: whether the prompt is a turn of a chat that the model answers, or text that it goes on with.
    """
    torch.manual_seed(SEED)  # of tasks that sample
    try:
        asked = {"limit": limit, "bootstrap_iters": 0, "apply_chat_template": chat, "fewshot_as_multiturn": chat}
        found: Any = run_tasks(examinee, {"tasks": tasks}, **asked)
    except Exception as error:
        if is_out_of_memory(error):
            raise InfrastructureError(
                f"evaluation.batch_size: memory ran out with {examinee.batch_size} requests of benchmarks together: "
                f"lower it ({error})"
            ) from error
        if not isinstance(error, (AssertionError, ValueError)):
            raise
        raise FinetuningError(f"evaluation.benchmarks: lm-eval gave up on {', '.join(tasks)}: {error}") from error
    return found["samples"]


def rows_of(benchmark: Benchmark, task: str, samples: Sequence[LmEvalSample]) -> list[Row]:
    """Return the rows of one task, by the first of its filters of answers; lm-eval notes each row once a filter."""
    rows: list[Row] = []
    for sample in samples:
        if sample["filter"] == samples[0]["filter"]:
            found = sample[benchmark.metric]
            total, weight = found if isinstance(found, (tuple, list)) else (found, 1.0)
            rows.append(
                Row(
                    benchmark=benchmark.name,
                    metric=benchmark.metric,
                    aggregation=benchmark.aggregation,
                    higher_is_better=benchmark.higher_is_better,
                    task=task,
                    row=sample["doc_id"],
                    text=sample["doc_hash"],
                    sum=float(total),
                    weight=float(weight),
                )
            )
    return rows


def compare_benchmarks(base: Path, tuned: Path) -> dict[str, BenchmarkFigures]:
    """Return the figures of base and tuned by benchmark, each gain with its 95 % interval.

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


def compare(before: pd.DataFrame, after: pd.DataFrame) -> BenchmarkFigures:
    """Return the figures of both in one benchmark, with their standard errors, and the gain with its interval."""
    figure = FIGURES[before["aggregation"].iat[0]]
    sides = Sides(*(side[["sum", "weight"]].to_numpy() for side in (before, after)))
    base, tuned = (figure_of(side, figure) for side in sides)
    return BenchmarkFigures(
        metric=before["metric"].iat[0],
        rows=len(before),
        base=base,
        tuned=tuned,
        gain=tuned - base,
        interval=gain_interval(sides, figure),
        standard_errors=(standard_error(sides.first, figure), standard_error(sides.second, figure)),
        higher_is_better=bool(before["higher_is_better"].iat[0]),
    )
