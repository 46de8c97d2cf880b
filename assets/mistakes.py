"""Turns a user's mistake into the one message of the step that failed, and says what is worth another try."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from finetuning.errors import FinetuningError, PassingError


def first_delay() -> float:
    """Seconds until the first of the tries after a failure.

    Raises:
        FinetuningError: FINETUNING_RETRY_SECONDS is no such number.
    """
    text = os.environ.get("FINETUNING_RETRY_SECONDS", "30")
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text):
        raise FinetuningError(f"FINETUNING_RETRY_SECONDS: {text!r} is no number of seconds; write 30.")
    return float(text)


# For steps that ask a network; bad data, a failed gate and every other mistake end the run at once.
RETRIES = dg.RetryPolicy(
    max_retries=3,
    delay=first_delay(),
    backoff=dg.Backoff.EXPONENTIAL,
    jitter=dg.Jitter.PLUS_MINUS,
)


@contextmanager
def explained() -> Iterator[None]:
    """Nothing; as a decorator of an asset, it lets a `FinetuningError` fail the step with its text.

    The step is tried again, where it has a retry policy, after a `PassingError` alone.
    """
    try:
        yield
    except FinetuningError as error:
        # From None: the way to the mistake is of no use to somebody who has to mend a recipe.
        raise dg.Failure(description=str(error), allow_retries=isinstance(error, PassingError)) from None
