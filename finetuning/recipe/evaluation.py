"""The section `evaluation`: the exam, and what its verdict requires."""

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.judge import JUDGE, JudgeSpec
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.spec import Count, Spec, Text, listed, no_twins, remakes

# Metrics of which less is better.
LESS_IS_BETTER = ("unclear", "empty", "loss", "perplexity")

# Those that are no shares, with the least that they can be.
UNBOUNDED = {"loss": 0, "perplexity": 1}

Metric = Literal[
    "final-answer",
    "unclear",
    "exact-match",
    "contains",
    "stop-rate",
    "empty",
    "rouge-l",
    "chrf",
    "python-tests",
    "judge",
    "loss",
    "perplexity",
]

METRICS = get_args(Metric)

# Metrics that read what an answer says: they compare it with its reference or, the judge, with the other model's.
OF_ANSWERS = ("final-answer", "exact-match", "contains", "rouge-l", "chrf", "python-tests", JUDGE)


def with_implied(metrics: Iterable[str]) -> tuple[str, ...]:
    """The metrics, and those that are always reported with them.

    These are `unclear` with `final-answer`, `chrf` where the main one does not look at what an answer says, and
    `stop-rate` and `empty`.
    """
    named = tuple(metrics)
    implied = ["unclear"] if "final-answer" in named else []
    if not set(named[:1]) & set(OF_ANSWERS):
        implied.append("chrf")
    return tuple(dict.fromkeys((*named, *implied, "stop-rate", "empty")))


class GateSpec(Spec):
    """What the verdict requires of one metric."""

    model_config = ConfigDict(json_schema_extra=remakes("evaluation_report"))

    min_gain: float = Field(
        default=0.0,
        description="Least by which the tuned model must be better than the base model: by a higher score or, of "
        "`unclear`, `empty`, `loss` and `perplexity`, by a lower one. Below 0 it may be worse by as much.",
    )
    min_score: float | None = Field(
        default=None, description="Least that the tuned model must score; `null` asks for nothing."
    )
    max_score: float | None = Field(
        default=None,
        description="Most that the tuned model may score, of a metric of which less is better; `null` asks for "
        "nothing.",
    )


class EvaluationSpec(Spec):
    """How base and tuned model are compared, and what publishing requires."""

    model_config = ConfigDict(json_schema_extra=remakes("evaluation_report"))

    metrics: Annotated[tuple[Metric, ...], Field(strict=False)] = Field(
        default=(),
        description="The first one is the main metric. Left out, it follows the references and the log says which it "
        "is: `final-answer` where all of them state one, `exact-match` where all are one short line, `perplexity` of "
        "texts without a question, else `chrf`; a metric that `gate` names comes before it. `final-answer`: share of "
        "answers whose final answer (after "
        "`####`, or after words such as `The answer is`) is right, numbers compared as numbers; `unclear`, the share "
        "of those that state none, is reported with it. `exact-match`: share of answers that equal the reference word "
        "for word; `contains`: of those that have it in them as whole words. `rouge-l` (English words) and `chrf` "
        "(characters of any language): how much of the reference an answer has. `python-tests`: share of answers whose "
        "Python code runs to its end, in a confined process, and keeps the asserts of the reference's code. `judge`: "
        "share of questions in which the model of `evaluation.judge` calls the answer better than the base model's, in "
        "both orders; ties count half. `loss` "
        "(nats) and `perplexity`: of the supervised tokens of the "
        "same rows, less is better. `chrf` is reported too where the main metric does not look at what answers say, or "
        "no answer of the tuned model scores anything in those that do. "
        "`stop-rate`, the share of answers that end before `max_new_tokens`, and `empty`, the share of those that have "
        "no letter or digit, are always reported.",
        json_schema_extra=remakes("evaluation_report", by_meaning=("base_answers", "published_answers")),
    )
    answer_markers: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(),
        description="Words after which an answer states its final answer, up to the end of the line, beside `####`, "
        "`\\boxed{}` and the English ones that `final-answer` knows: `[Respuesta final, Antwort]`.",
        json_schema_extra=remakes("evaluation_report", silent_default=True),
    )
    judge: JudgeSpec | None = Field(
        default=None,
        description="Who compares answers, for the metric `judge`; `null` is nobody.",
        json_schema_extra=remakes("evaluation_report", silent_default=True),
    )
    rows: Count = Field(
        default=200,
        description="Most eval rows that are answered. Fewer than 5 carry no verdict; where several rules "
        "ask that nothing be worse, with their wider intervals, fewer than 6 (two rules), 7 (four) or 8 (nine).",
        json_schema_extra=remakes("evaluation_report", by_meaning=("base_answers", "published_answers")),
    )
    max_new_tokens: Count = Field(
        default=256,
        description="Most tokens of one answer.",
        json_schema_extra=remakes("evaluation_report", "base_answers", "published_answers"),
    )
    batch_size: Count = Field(
        default=32,
        description="Prompts that are answered together.",
        json_schema_extra=remakes("evaluation_report", "base_answers", "published_answers", "base_benchmarks"),
    )
    samples: int = Field(
        default=3,
        ge=0,
        description="Most eval rows of each kind (better, worse, still wrong) that the report shows, with both "
        "answers. The report is published: with 0 no text of the data leaves this machine.",
    )
    benchmarks: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(),
        description="lm-eval's names of tasks, groups or tags (`arc_easy`, `mmlu`), run for base and tuned alike.",
        json_schema_extra=remakes("evaluation_report", "base_benchmarks"),
    )
    benchmark_folder: Text | None = Field(
        default=None,
        description="Folder with lm-eval tasks of your own (YAML); data files that they name may lie in it.",
        json_schema_extra=remakes("evaluation_report", by_meaning=("base_benchmarks",)),
    )
    benchmark_rows: Count | None = Field(
        default=None,
        description="Rows of each task that are asked, the first ones; `null` asks all. A benchmark of so few that "
        "no fall could show is refused before the training.",
        json_schema_extra=remakes("evaluation_report", "base_benchmarks"),
    )
    max_benchmark_fall: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Most by which the tuned model may be worse than the base model in any benchmark, whatever `gate` "
        "says: 0.05 is 5 points of a share; of a figure above 1, such as a perplexity, 5 % of the base model's.",
    )
    gate: dict[str, GateSpec] = Field(
        default={},
        description="What the verdict requires, by metric. Left out, the first metric has to be better than the base "
        "model's by more than its noise (the whole 95 % interval of the gain lies on the better side of 0), and no "
        "other one worse by more than its noise. With one or without, `empty` may not be, nor be 1, unless the gate "
        "names it, nor may the metrics of what answers say, unless the gate names one of them that is not 0.",
    )
    no_worse_than_published: bool = Field(
        default=True,
        description="Whether the first metric must also not be worse, by more than its noise, than that of the version "
        "that is published now. That version answers the same rows once more; one of another base model or chat "
        "template cannot, and is not asked.",
    )

    _metrics_once = field_validator("metrics")(no_twins)

    _markers_once = field_validator("answer_markers")(no_twins)

    _benchmarks_once = field_validator("benchmarks")(no_twins)

    @field_validator("benchmark_folder", "benchmark_rows")
    @classmethod
    def _of_benchmarks(cls, value: str | int | None, info: ValidationInfo) -> str | int | None:
        if value is not None and info.data.get("benchmarks") == ():
            raise ValueError(f"{value!r} would be ignored: evaluation.benchmarks names none; leave it out")
        return value

    @field_validator("gate")
    @classmethod
    def _gates_on_metrics(cls, value: dict[str, GateSpec], info: ValidationInfo) -> dict[str, GateSpec]:
        named = info.data.get("metrics")
        metrics = with_implied(named) if named else METRICS
        strangers = [metric for metric in value if metric not in metrics]
        if strangers:
            named = ", ".join(f"{metric!r}{nearest(metric, metrics)}" for metric in strangers)
            raise ValueError(f"not in evaluation.metrics (which has {listed(metrics)}): {named}")
        wrong = [mistake for metric, gate in value.items() for mistake in _gate_mistakes(metric, gate)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return value


def _gate_mistakes(metric: str, gate: GateSpec) -> Iterable[str]:
    less = metric in LESS_IS_BETTER
    if (gate.min_score if less else gate.max_score) is not None:
        wrong, right = ("min_score", "max_score") if less else ("max_score", "min_score")
        yield f"{metric}.{wrong}: {'less' if less else 'more'} of it is better; write {right}"
    if metric in UNBOUNDED:
        most, least = gate.max_score, UNBOUNDED[metric]
        if most is not None and most < least:
            yield f"{metric}.max_score: {most:g} is less than {least}, the least that {metric} can be"
        return
    for key, least in (("min_gain", -1), ("min_score", 0), ("max_score", 0)):
        value = getattr(gate, key)
        if value is not None and not least <= value <= 1:
            yield f"{metric}.{key}: {value:g} is not between {least} and 1, as shares are"
