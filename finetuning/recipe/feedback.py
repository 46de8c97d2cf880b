"""The section `feedback`: what people say of answers, and where it is kept."""

from pydantic import ConfigDict, Field

from finetuning.recipe.spec import Spec, Text, remakes


class FeedbackSpec(Spec):
    """What people say of answers is kept, and may be learned from by a source `feedback`."""

    model_config = ConfigDict(json_schema_extra=remakes())

    name: Text | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="The name that it is kept by, and that a source names; `null` is the recipe's own.",
    )
