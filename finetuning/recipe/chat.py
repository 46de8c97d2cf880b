"""The section `chat`: how long a conversation may be, and what becomes of longer ones."""

from typing import Literal

from pydantic import (
    Field,
)

from finetuning.recipe.spec import Count, Spec


class ChatSpec(Spec):
    """How conversations become tokens."""

    max_length: Count = Field(default=1024, description="Most tokens of one row, prompt and completion together.")
    over_length: Literal["error", "drop", "truncate"] = Field(
        default="drop", description="What happens to a longer row. Dropped and truncated rows are counted and shown."
    )
    tolerance: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of rows that may be over length before that is an error; unused by `error`.",
    )
