"""The section `checks`: how severe each fault of the data is, and how much of it is accepted."""

from typing import Literal

from pydantic import (
    ConfigDict,
    Field,
)

from finetuning.recipe.spec import Spec, remakes


class CheckSpec(Spec):
    """How much of a fault is too much, and whether that ends the run."""

    model_config = ConfigDict(json_schema_extra=remakes())

    severity: Literal["error", "warn"] = Field(
        default="error", description="`error` ends the run before anything is trained; `warn` only shows it."
    )
    limit: float = Field(default=0.0, ge=0, le=1, description="Share of rows that may have the fault.")


class WarningSpec(CheckSpec):
    """The same for a fault that is often harmless: a warning, unless said otherwise."""

    severity: Literal["error", "warn"] = Field(
        default="warn", description="`error` ends the run before anything is trained; `warn` only shows it."
    )


class ChecksSpec(Spec):
    """Faults of the data that are looked for in every run. `chat.tolerance` is the limit of rows that are too long."""

    unreadable_rows: CheckSpec = Field(
        default=CheckSpec(), description="Lines of a file that no row can be read from: broken JSON, wrong encoding."
    )
    bad_rows: CheckSpec = Field(
        default=CheckSpec(),
        description="Rows that hold no conversation: unknown roles, wrong order, empty turns, values of another type.",
    )
    refused_rows: CheckSpec = Field(
        default=CheckSpec(limit=0.01),
        description="Conversations that the chat template refuses, or of which it leaves something out. One of them "
        "passes in any case where the limit is above 0.",
    )
    supervision: CheckSpec = Field(
        default=CheckSpec(), description="Rows of which nothing is learned, or everything, the prompt too."
    )
    stop_token: CheckSpec = Field(
        default=CheckSpec(), description="Rows with an answer whose stop token is not learned."
    )
    bos_token: CheckSpec = Field(
        default=CheckSpec(), description="Rows without exactly one begin-of-sequence token, for models that use one."
    )
    duplicates: WarningSpec = Field(
        default=WarningSpec(),
        description="Rows that repeat another one word for word, but for white space that carries no meaning.",
    )
    near_duplicates: WarningSpec = Field(default=WarningSpec(), description="Rows that nearly repeat another one.")
    overlap: CheckSpec = Field(
        default=CheckSpec(),
        description="Train rows whose question is in eval as well, word for word or nearly. They are always left out "
        "of train.",
    )
    secrets: WarningSpec = Field(
        default=WarningSpec(), description="Rows with text that looks like a password, a key or a token."
    )
    special_tokens: WarningSpec = Field(
        default=WarningSpec(),
        description="Rows whose text spells out a special token. It is learned as plain text, never as that token.",
    )
    round_trip: CheckSpec = Field(
        default=CheckSpec(), description="Rows (of a sample) whose tokens do not decode to the text that they encode."
    )
    unreadable_documents: CheckSpec = Field(
        default=CheckSpec(), description="Documents of `knowledge` that no text can be read from."
    )
    cut_passages: WarningSpec = Field(
        default=WarningSpec(),
        description="Passages that end within a paragraph, because it is longer than `knowledge.passages.max_tokens`.",
    )
    evidence: CheckSpec = Field(
        default=CheckSpec(limit=0.01),
        description="Rows whose `document` is not there, or whose `evidence` is in none of its passages. They are left "
        "out; one of them passes in any case where the limit is above 0.",
    )
    document_leak: CheckSpec = Field(
        default=CheckSpec(),
        description="Train rows about a document that eval asks about. They are always left out of train.",
    )
    eval_size: WarningSpec = Field(
        default=WarningSpec(limit=0.05),
        description="Rows that eval has less, or more, than `dataset.eval.fraction` asks for: those that ask nearly "
        "the same stay together. The limit is a share of what is asked for.",
    )
    eval_likeness: WarningSpec = Field(
        default=WarningSpec(limit=0.05),
        description="Eval rows that would have to be others for eval to be like train in length, source and short "
        "answers, such as the names of classes. What chance may explain counts as none. An eval of its own sources is "
        "compared where train is of one source.",
    )
