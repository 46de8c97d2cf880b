"""Turns a user's mistake into the one message of the step that failed."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from finetuning.errors import FinetuningError


@contextmanager
def explained() -> Iterator[None]:
    """Nothing; as a decorator of an asset, it lets a `FinetuningError` fail the step with its text, and no retry."""
    try:
        yield
    except FinetuningError as error:
        # From None: the way to the mistake is of no use to somebody who has to mend a recipe.
        raise dg.Failure(description=str(error), allow_retries=False) from None
