"""What a judge's endpoint refused, or how it could not be reached, as messages for people. None of them has the key."""

from finetuning.errors import FinetuningError, InfrastructureError, TransientError
from finetuning.recipe.judge import JudgeSpec
from finetuning.settings import variable

KEY = variable("judge_key")
PLACE = "evaluation.judge"


class QuestionRefused(FinetuningError):
    """One question that the endpoint does not take: it is too long for the model, or against the house's rules.

    Where it takes no question at all, the recipe is wrong.
    """

    def __init__(self, told: str, said: str) -> None:
        super().__init__(told)
        self.said = said
        """The beginning of what the endpoint said."""


def unreachable(spec: JudgeSpec, error: Exception, tries: int) -> FinetuningError:
    """The error of an endpoint that gave no answer."""
    return TransientError(
        f"{PLACE}: {spec.endpoint} cannot be reached ({type(error).__name__}), in {tries} tries. What was judged "
        "is kept and not asked again: run it again when it can."
    )


def busy(spec: JudgeSpec, status: int, said: str, wait: float | None = None) -> FinetuningError:
    """The error of an endpoint that is out, or has had too much, for longer than a run waits."""
    asked = f" and asks to wait {wait:.0f} s" if wait else ""
    return TransientError(
        f"{PLACE}: {spec.endpoint} answers {status}{asked} ({said}). What was judged is kept and not asked again: run "
        "it again later, or lower evaluation.judge.parallel."
    )


def refused(spec: JudgeSpec, status: int, said: str, has_key: bool) -> FinetuningError:
    """The error of a request that would be refused again."""
    key = f"{KEY} is {'set' if has_key else 'not set'}"
    if status in (401, 403):
        return InfrastructureError(
            f"{PLACE}: {spec.endpoint} does not accept the key ({status}: {said}; {key}). Set {KEY} to a key that "
            f"may ask {spec.name}."
        )
    if status == 402 or "insufficient_quota" in said:
        return InfrastructureError(f"{PLACE}: the account at {spec.endpoint} has no credit left ({status}: {said}).")
    if status in (404, 405):
        return FinetuningError(
            f"{PLACE}: {spec.endpoint}/chat/completions or the model {spec.name!r} is not there ({status}: {said}). "
            "Check evaluation.judge.endpoint, which most often ends in /v1, and name."
        )
    if 300 <= status < 400:
        return FinetuningError(
            f"{PLACE}: {spec.endpoint} sends requests elsewhere ({status}), which are not followed with a key; write "
            "the address that it sends to in evaluation.judge.endpoint."
        )
    advice = "write temperature: null" if "temperature" in said else "check evaluation.judge"
    told = f"{PLACE}: {spec.endpoint} refuses the question to {spec.name!r} ({status}: {said}); {advice}."
    return QuestionRefused(told, said) if status in (400, 413, 422) else FinetuningError(told)


def no_api(spec: JudgeSpec, said: str) -> FinetuningError:
    """The error of what answers in another way than OpenAI's API."""
    return FinetuningError(
        f"{PLACE}: {spec.endpoint} answers, and not as OpenAI's API does ({said}). Check evaluation.judge.endpoint, "
        "which most often ends in /v1."
    )


def over_budget(spec: JudgeSpec) -> FinetuningError:
    """The error of an exam that would ask more than its recipe allows."""
    return FinetuningError(
        f"{PLACE}.max_requests: all {spec.max_requests:,} requests were made, tries again among them. What was judged "
        "is kept and not asked again: run it again, or raise it."
    )
