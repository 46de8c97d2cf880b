"""The section `chat`: how long a conversation may be, and what becomes of longer ones."""

from typing import Literal

from pydantic import (
    Field,
)

from finetuning.recipe.spec import Count, Spec, remakes


class ChatSpec(Spec):
    """How conversations become tokens."""

    max_length: Count = Field(
        default=1024,
        description="Most tokens of one row, prompt and completion together.",
        json_schema_extra=remakes("chat_dataset"),
    )
    over_length: Literal["error", "drop", "truncate"] = Field(
        default="drop",
        description="What happens to a longer row. Dropped and truncated rows are counted and shown.",
        json_schema_extra=remakes("chat_dataset"),
    )
    tolerance: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of rows that may be over length before that is an error; unused by `error`.",
        json_schema_extra=remakes(),
    )
