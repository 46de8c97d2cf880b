"""The document `report.json`: what an evaluation found, and its verdict on one adapter.

{"version": 1, "adapter": "0a1b…", "rows": 200, "metrics": {"final-answer": {"base": 0.1, "tuned": 0.6, …}}, …}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from finetuning.recipe.judge import JUDGE
from finetuning.record import Record

# What stands for an artifact, or a file's content, in a report that may come from the hub: both become parts of paths.
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]

# Whatever is not exactly true, such as "yes" in a file that somebody changed, has not passed.
Passed = Annotated[bool, BeforeValidator(lambda value: value is True)]


def absent(value: object) -> bool:
    """Whether the JSON leaves a value out."""
    return value is None or value is False


class Part(BaseModel):
    """A part of the report. Keys that it does not know are of a later release, and passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Gain(Part):
    """What the tuned model came to, and what it gained over another model on the same rows."""

    tuned: float
    gain: float
    """The tuned model's figure less the other's, so that a gain of what is better low is below 0."""
    interval: tuple[float, float]
    """The 95 % interval of the gain."""
    higher_is_better: bool

    @property
    def improvement(self) -> float:
        """By how much the tuned model is better: what people are shown as the gain, above 0 for the better."""
        return self.gain if self.higher_is_better else 0.0 - self.gain  # and never -0.0

    @property
    def improvement_interval(self) -> tuple[float, float]:
        """The 95 % interval of the improvement."""
        low, high = self.interval
        return (low, high) if self.higher_is_better else (0.0 - high, 0.0 - low)


class Figures(Gain):
    """A metric of base and tuned model."""

    base: float


class PublishedFigures(Gain):
    """A metric of the version that is published now and of the tuned model."""

    published: float


class BenchmarkFigures(Figures):
    """A benchmark of base and tuned model."""

    metric: str
    rows: int
    standard_errors: tuple[float, float]
    """Of the base's figure and of the tuned model's."""


class Verdict(Part):
    """Whether the adapter may be published, with a reason for each rule."""

    passed: Passed
    smoke: bool = Field(default=False, exclude_if=absent)
    """Whether a smoke run made it, so that nothing is proved."""
    reasons: tuple[str, ...] = ()


class Published(Part):
    """The version that is published now: how the tuned model compares with it, or as `why` what forbids it."""

    repo_id: str
    tag: str
    commit: str
    adapter: str
    files: dict[str, str] = Field(default_factory=dict)
    """The sha256 of its weights, by the file's name."""
    why: str | None = Field(default=None, exclude_if=absent)
    metrics: dict[str, PublishedFigures] | None = Field(default=None, exclude_if=absent)


class Started(Part):
    """The adapter that training went on from: how the tuned model compares with it, or as `why` what forbids it."""

    source: str
    revision: str
    why: str | None = Field(default=None, exclude_if=absent)
    metrics: dict[str, Figures] | None = Field(default=None, exclude_if=absent)
    """Where `base` is the adapter that it went on from."""


class Answering(Record):
    """What it took one model to answer."""

    tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_mb: int
    fingerprint: str | None = Field(default=None, exclude_if=absent)
    """Of the artifact that holds the answers; None where they lie with the report."""
    rows: int | None = Field(default=None, exclude_if=absent)
    """How many questions were asked, where they were also asked without passages."""
    without: tuple[float, int] | None = Field(default=None, exclude_if=absent)
    """Seconds and tokens of the answers without passages."""


class Contestant(Part):
    """How base or tuned model did, with passages or without, by the main metric; shares are between 0 and 1."""

    score: float
    says_it: float
    """The share of answers that have the reference in them, in whatever words."""
    right_refusals: float | None = None
    """Of the questions that no document answers, those that it said so of; None where there are none."""
    wrong_refusals: float | None = None
    """Of the others, those that it said so of."""
    right_citations: float | None = None
    """Of the questions whose passage was shown, those that it cited it for; None without passages."""
    retrievers_fault: int | None = None
    """Wrong answers to questions whose passage was not shown; None of a metric that grades."""
    readers_fault: int | None = None
    """Wrong answers to those whose passage was."""


class Pair(Part):
    """What one contestant gained over another one on the same rows."""

    before: str
    after: str
    gain: float
    interval: tuple[float, float]


class Retrieval(Part):
    """Where the passages with the answers were found."""

    questions: int
    recall: dict[int, float]
    """The share of the questions whose passage is among so many first ones."""
    mean_reciprocal_rank: float
    """Of the first ten."""


class InContext(Part):
    """What passages did for the answers."""

    contestants: dict[str, Contestant]
    pairs: list[Pair]
    retrieval: Retrieval
    advice: str
    """Which of the four to use, in words."""


class JudgeReport(Part):
    """What a judge made of an exam, and how far it agrees with people; shares are between 0 and 1."""

    name: str
    asked_agreement: float
    """The least that the lower end of `agreement_interval` must be, for a verdict."""
    choices: int
    """How many human choices it was measured by."""
    agreement: float | None
    """The share of these that it agrees with; a tie counts half."""
    agreement_interval: tuple[float, float] | None
    """Its 95 % interval."""
    carries_verdict: Passed
    pairs: int
    won: int
    """Of the tuned model."""
    lost: int
    same: int
    """Pairs of one answer twice, which nobody was asked about: ties."""
    unclear: int
    """Pairs of which a reply was no choice: ties."""
    orders_agree: float | None
    """The share of the other pairs in which both orders came to the same."""
    winner_length: float | None
    """The mean length of answers that won, in characters."""
    loser_length: float | None
    longer_won: float | None
    """The share of decided pairs, of answers that are not as long, in which the longer one won."""
    questions: int
    """How many it answered, about human choices and about the exam."""
    tokens: tuple[int, int]
    """Read and written for these, as its endpoint counted them."""


class Proof(Record):
    """What a report proves, and of which adapter: all that is read of one on the hub, whichever release wrote it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    adapter: Fingerprint
    """The adapter's fingerprint."""
    files: dict[FileName, Sha256] = Field(default_factory=dict)
    """The sha256 of the adapter's weights, by the file's name."""
    alike: dict[str, JsonValue] = Field(default_factory=dict)
    """What two versions must have in common to answer the same prompts on the same base model."""
    verdict: Verdict


class Report(Proof):
    """All numbers of an evaluation."""

    rows: int
    metrics: dict[str, Figures]
    benchmarks: dict[str, BenchmarkFigures] = Field(default_factory=dict)
    answering: dict[str, Answering]
    """By model: base and tuned."""
    published: Published | None = None
    """None where nothing was published, or only this adapter."""
    start: Started | None = Field(default=None, exclude_if=absent)
    """The adapter that was rewarded further; None for other methods, and where there was none before."""
    context: InContext | None = Field(default=None, exclude_if=absent)
    """What passages did for the answers, where the recipe has documents."""
    judge: JudgeReport | None = Field(default=None, exclude_if=absent)
    """What the judge made of the answers, where the recipe has one."""

    def proof(self) -> Proof:
        """What it proves, without the numbers."""
        return Proof.model_validate(self.model_dump(include=set(Proof.model_fields)))

    @property
    def scored_against(self) -> str | None:
        """What scores of the main metric are relative to: judge and base answers; None where it is no judge's."""
        if self.judge is None or next(iter(self.metrics)) != JUDGE:
            return None
        return f"{self.judge.name} against base answers {self.answering['base'].fingerprint}"

    @property
    def figures(self) -> Mapping[str, Figures]:
        """Metrics and benchmarks by name."""
        return {**self.metrics, **self.benchmarks}


@dataclass(frozen=True)
class Sample:
    """One question with both answers and their scores by the main metric."""

    place: str
    question: str
    reference: str
    base: str
    tuned: str
    base_score: float
    tuned_score: float
    asked: str = ""
    """The question as it was asked, where that was with passages; these are not published."""


@dataclass(frozen=True)
class Findings:
    """What an exam found, before it is judged."""

    rows: int
    metrics: Mapping[str, Figures]
    samples: Sequence[Sample]
    benchmarks: Mapping[str, BenchmarkFigures] = field(default_factory=dict)
    answering: Mapping[str, Answering] = field(default_factory=dict)
    """What it took base and tuned model to answer, by model."""
    published: Published | None = None
    """The comparison with the version that is published now; None where there is none."""
    start: Started | None = None
    """The comparison with the adapter that was rewarded further; None where there is none."""
    context: InContext | None = None
    """What passages did for the answers; None for a recipe without documents."""
    judge: JudgeReport | None = None
    """What a judge made of the answers; None for a recipe without one."""
