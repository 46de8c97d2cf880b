"""The document `leaderboard.json`: every group of exams about the same rows, with the models that took part.

{"version": 1, "groups": [{"metric": "final-answer", "rows": 200, "models": [{"name": "phi-2", "score": 0.6, …}]}]}
"""

from pydantic import Field

from finetuning.evaluation.report import Part
from finetuning.record import Record


class Costs(Part):
    """What a model is and takes; None for what is not known any more. Sizes and memory are in MiB."""

    base_model: str | None = None
    parameters: int | None = None
    """Of base model and adapter together."""
    size_mb: float | None = None
    """Of the base model as it is loaded (quantized), and the adapter."""
    training_seconds: float | None = None
    training_device: str | None = None
    training_processes: int | None = None
    training_price: float | None = None
    """Hours of training times processes times the price of an hour; None where no price is set."""
    tokens_per_second: float
    """While it answered its exam."""
    peak_memory_mb: int
    """While it answered its exam."""
    license: str | None = None
    """Of what is published."""


class Standing(Part):
    """One model of a group. A gain above 0, or an interval of it, is for the better whichever way the metric goes."""

    name: str
    """Of its recipe."""
    report: str
    """The fingerprint of its exam."""
    adapter: str
    score: float
    """On the rows that all of the group were asked."""
    interval: tuple[float, float]
    """The 95 % interval of the score."""
    gain: float
    """Over its own base model, on all rows of its own exam."""
    gain_interval: tuple[float, float]
    passed: bool
    """Its own verdict."""
    beaten_by: list[str]
    """The models that are better beyond noise."""
    is_on_front: bool
    """Whether no other one has as good a score and is smaller, or as small and better; False of unknown size."""
    costs: Costs


class Comparison(Part):
    """What one model gains over another one on the same rows: `gain` above 0 is for `better`."""

    better: str
    """The one with the better score, which may be so by chance."""
    other: str
    gain: float
    interval: tuple[float, float]
    """The 95 % interval of this gain, not widened for the number of comparisons."""
    chance: float
    """The chance of such a gain where `better` is not better, corrected for all comparisons of the group."""
    is_beyond_noise: bool
    other_answers: int
    """How many of the answers differ."""
    other_settings: list[str]
    """The places of the recipes' keys that differ."""


class Group(Part):
    """Exams of the same rows, asked in the same way."""

    metric: str
    higher_is_better: bool
    max_new_tokens: int
    answer_markers: list[str] = Field(default_factory=list)
    """Words of the recipes after which a final answer stands."""
    with_passages: bool
    against: str | None = None
    """Of a judge's scores: the judge, and the base answers that it compared with."""
    rows: int
    """How many all of them were asked."""
    digest: str
    """Sixteen hexadecimal digits, the same for the same rows."""
    error_rate: float
    """The chance that anything is called better beyond noise which is not, in all of the group."""
    models: list[Standing]
    """The best score first."""
    comparisons: list[Comparison]
    unbeaten: list[str]
    """The models that none is shown to beat."""


class LeftOut(Part):
    """An exam that takes no part."""

    name: str
    why: str


class Leaderboard(Record):
    """All groups, those of most models first."""

    groups: list[Group]
    left_out: list[LeftOut] = Field(default_factory=list)
    smoke: bool = False
    """Whether the exams are of smoke runs, which prove nothing."""
