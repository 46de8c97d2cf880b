"""The section `chat`: how long a conversation may be, and what becomes of longer ones."""

from typing import Literal

from pydantic import (
    Field,
    JsonValue,
    field_validator,
)

from finetuning.recipe.spec import Count, Spec, listed, remakes

# What a template is given by whoever renders a conversation, and what it already has.
RESERVED = (
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "strftime_now"),
    *("raise_exception", "namespace", "dict", "range", "loop", "bos_token", "eos_token", "pad_token", "unk_token"),
    *("chat_template", "tokenize", "conversation", "return_tensors", "return_dict", "padding", "truncation"),
    *("max_length", "tokenizer_kwargs", "return_assistant_tokens_mask", "sanitize_control_tokens"),
)
JINJA_WORDS = ("true", "false", "none", "and", "or", "not", "in", "is", "if", "else", "elif", "for", "set")


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
    template_kwargs: dict[str, JsonValue] = Field(
        default={},
        description="Arguments of the chat template, such as `{enable_thinking: false}`. They become its defaults, in "
        "training, exam and the published tokenizer alike.",
        json_schema_extra=remakes(
            "chat_dataset",
            by_meaning=("base_answers", "published_answers", "base_benchmarks"),
            silent_default=True,
        ),
    )
    train_on_reasoning: bool = Field(
        default=True,
        description="Whether what was thought before an answer (`reasoning_content`, `<think>…</think>`) is learned, "
        "or only read.",
        json_schema_extra=remakes("chat_dataset", silent_default=True),
    )

    @field_validator("template_kwargs")
    @classmethod
    def _require_names(cls, given: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in given:
            if name in RESERVED:
                raise ValueError(
                    f"{name!r} is given to the template by what renders it, not by a recipe (so are {listed(RESERVED)})"
                )
            if not (name.isidentifier() and name.isascii()) or name.startswith("_") or name.lower() in JINJA_WORDS:
                raise ValueError(f"{name!r} is not a name that a chat template can use: letters, digits and _")
        return given
