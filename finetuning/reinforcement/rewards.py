"""What an answer is worth: the exam's own metrics, and terms beside them, each between 0 and 1.

final-answer  "… so 9 + 9 = 18.\n#### 18"  against  "…\n#### 18"   is 1.0
length        the same, in 14 tokens of 96                         is 0.85
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from finetuning.chat.answers import split_thought
from finetuning.chat.template import before_answer, stop_token
from finetuning.evaluation.generation import answer_of
from finetuning.evaluation.metrics import Outcome, metrics_for
from finetuning.evaluation.python_tests import SECONDS, Ending, endings, require_confinement
from finetuning.knowledge.context import as_compared, cites_right, refuses
from finetuning.progress import Progress
from finetuning.recipe.evaluation import EvaluationSpec
from finetuning.recipe.knowledge import ContextSpec
from finetuning.recipe.reward import CITATIONS
from finetuning.training.job import TrainingJob

CODE = "python-tests"
# Of code that was not waited for, nothing is known.
WORTH: Mapping[Ending, float] = {"passed": 1.0, "unknown": math.nan}
TOLD_OF_CODE: tuple[Ending, ...] = ("slow", "bent")  # shares of the answers, in the curve
SLOW = 1 / 8  # share of a step's programs that may take all of their time
# The metric of the exam that a term is the opposite of.
OPPOSITES = {"format": "unclear"}
NO_METRICS = ("length", CITATIONS)
# Terms that read a final answer. Where passages do not say it, what says so is right.
OF_FINAL_ANSWERS = ("final-answer", "format")
SILENT = Progress(lambda line: None, "")


@dataclass(frozen=True)
class Answered:
    """An answer that was drawn: what the exam reads of it, and how many tokens it has."""

    outcome: Outcome
    tokens: int
    cites: float = math.nan
    """1 where it names the passage that it is from, else 0; no number where it was shown none."""


class Rewards:
    """Scores answers by each term of a recipe's reward.

    Args:
        weights: of the terms.
        limit: most tokens of an answer.
        markers: words of the recipe after which a final answer stands.
        context: what is asked with passages.
    """

    def __init__(
        self,
        weights: Mapping[Any, float],
        tokenizer: PreTrainedTokenizerBase,
        limit: int,
        markers: Sequence[str] = (),
        context: ContextSpec | None = None,
    ) -> None:
        self.weights, self.tokenizer, self.limit, self.context = dict(weights), tokenizer, limit, context
        self.stop, self.mark = stop_token(tokenizer), before_answer(tokenizer)
        metrics = tuple(OPPOSITES.get(name, name) for name in weights if name not in NO_METRICS)
        spec = EvaluationSpec.model_construct(metrics=metrics, answer_markers=tuple(markers))
        self.metrics = metrics_for(spec)

    @classmethod
    def of(cls, job: TrainingJob, tokenizer: PreTrainedTokenizerBase) -> "Rewards":
        """Those of a job.

        Raises:
            FinetuningError: code is rewarded, and cannot be confined on this machine.
        """
        spec = job.training
        if CODE in spec.reward:
            require_confinement(job.where)  # which may be another one than that of the step: a cluster's node
        return Rewards(spec.reward, tokenizer, spec.max_completion_length, job.answer_markers, job.context)

    def functions(self) -> list[Callable[..., list[float | None]]]:
        """The terms in their order as trl calls them, each by its own name."""
        return [self._function(name) for name in self.weights]

    def _function(self, name: str) -> Callable[..., list[float | None]]:
        def scored(**given: Any) -> list[float | None]:
            return self._term(name, **given)

        scored.__name__ = name
        return scored

    def _term(
        self,
        name: str,
        *,
        completion_ids: Sequence[list[int]],
        reference: Sequence[str],
        golden: Sequence[list[int] | None] | None = None,
        rank: Sequence[int | None] | None = None,
        log_metric: Callable[[str, float], None],
        **given: Any,
    ) -> list[float | None]:
        none = [None] * len(completion_ids)
        rows = zip(completion_ids, reference, golden or none, rank or none, strict=True)
        answers = [self.answered(ids, wanted, places or (), found) for ids, wanted, places, found in rows]
        if name == CODE:
            ends = endings_of(answers)
            scores = [WORTH.get(end, 0.0) for end in ends]
            for told in TOLD_OF_CODE:
                log_metric(f"rewards/{name}/{told}", ends.count(told) / len(ends))
        else:
            scores = self.scores(name, answers)
        # What is no number says nothing of an answer; trl leaves it out of its group.
        log_metric(f"rewards/{name}/no_number", sum(not math.isfinite(score) for score in scores) / len(scores))
        return [score if math.isfinite(score) else None for score in scores]

    def answered(self, ids: list[int], reference: str, golden: Sequence[int] = (), rank: int | None = None) -> Answered:
        """What the exam would read of an answer in tokens.

        Args:
            golden: the places of the passages that have the answer, of those that were shown.
            rank: where the first of these was found; None where there is none to be found.
        """
        answer = answer_of(self.tokenizer, ids, self.stop, self.mark)
        said, cites = split_thought(answer.text)[1], math.nan
        if self.context:
            cites = cites_right(said, golden, self.context)
            said, reference = as_compared(said, reference, golden, rank, self.context)
        return Answered(Outcome(reference, said, answer.stopped), answer.tokens, cites)

    def scores(self, name: str, answers: Sequence[Answered]) -> list[float]:
        """The score of each answer by one term."""
        if name == "length":
            return [1 - min(answer.tokens, self.limit) / self.limit for answer in answers]
        if name == CITATIONS:
            return [answer.cites for answer in answers]
        outcomes = [answer.outcome for answer in answers]
        if name == CODE:
            return [WORTH.get(end, 0.0) for end in endings_of(answers)]
        score = self.metrics[OPPOSITES.get(name, name)].score
        found = [1 - score(outcome) if name in OPPOSITES else score(outcome) for outcome in outcomes]
        if name in OF_FINAL_ANSWERS and (context := self.context):  # a refusal states none
            rows = zip(outcomes, found, strict=True)
            found = [
                float(refuses(o.answer, context)) if o.reference == context.refusal else score for o, score in rows
            ]
        return found


def endings_of(answers: Sequence[Answered]) -> list[Ending]:
    """How the code of answers ended; `unknown` for what was not waited for, where too many took long."""
    texts, references = ([getattr(a.outcome, part) for a in answers] for part in ("answer", "reference"))
    seconds = SECONDS * (1 + SLOW * len(answers) / (os.cpu_count() or 1))
    return endings(texts, references, SILENT, "training", seconds)
