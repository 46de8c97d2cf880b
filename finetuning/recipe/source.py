"""A source of rows in the section `dataset`: where they come from, and what a row looks like."""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.columns import ALIASES, MORE_COLUMNS, OF_A_QUESTION, OF_KNOWLEDGE
from finetuning.recipe.mistakes import nearest, section_mistake
from finetuning.recipe.spec import Count, Spec, Text, listed, no_twins, remakes

Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt-completion", "question-answer", "ultrafeedback", "preference",
    "unpaired-preference", "text",
]  # fmt: skip

# A row of each format, as the reference shows it.
FORMAT_ROWS: dict[Format, str] = {
    "messages": '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    "sharegpt": '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
    "alpaca": '{"instruction": "…", "input": "…", "output": "…"}',
    "prompt-completion": '{"prompt": "…", "completion": "…"}',
    "question-answer": '{"question": "…", "answer": "…"}',
    "ultrafeedback": '{"instruction": "…", "completions": [{"model": "gpt-4", "response": "…"}]}',
    "preference": '{"prompt": "…", "chosen": "…", "rejected": "…"}',
    "unpaired-preference": '{"prompt": "…", "completion": "…", "label": true}',
    "text": '{"text": "…"}',
}

# What a row of each format holds, by the names that `columns` translates from.
FORMAT_COLUMNS: dict[str, tuple[str, ...]] = {format: tuple(json.loads(row)) for format, row in FORMAT_ROWS.items()}


# The splits of each generator.
SPLITS = {"product-manuals": ("train", "test"), "linear-equations": ("train", "mixed")}
# The keys of a source of which one says where its rows come from.
ORIGINS = ("hub", "files", "feedback", "generator")


class SourceSpec(Spec):
    """One data set: exactly one of `hub`, `files`, `feedback` and `generator` says where its rows come from."""

    hub: Text | None = Field(
        default=None, description="Data set on the Hub (`openai/gsm8k`).", json_schema_extra=remakes("raw_dataset")
    )
    files: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Files, or patterns of them (`data/*.jsonl`, `s3://bucket/chats/*.parquet`): jsonl, json, csv or "
        "parquet, compressed or not, here or at any address that fsspec reads.",
        json_schema_extra=remakes("raw_dataset"),
    )
    feedback: Text | None = Field(
        default=None,
        description="What people said of answers, under the name that it was kept by (`feedback.name`): for `sft` "
        "corrections and preferred answers, for `dpo` each beside what was worse, for `kto` each by itself. None of it "
        "is ever in eval.",
        json_schema_extra=remakes("raw_dataset", silent_default=True),
    )
    generator: Literal["linear-equations", "product-manuals"] | None = Field(
        default=None,
        description="Rows that this project makes up, seeded: equations, or questions about the documents of the same "
        "name (`split: test` asks about other products than `train`).",
        json_schema_extra=remakes("raw_dataset"),
    )
    every: Count = Field(
        default=20,
        description="How many entries of feedback are taken at once: so many new ones start a run, and fewer wait.",
        json_schema_extra=remakes("raw_dataset", silent_default=True),
    )
    config: Text | None = Field(
        default=None, description="Configuration of a Hub data set.", json_schema_extra=remakes("raw_dataset")
    )
    split: Text = Field(
        default="train",
        description="Split of a Hub data set; of `product-manuals`: train or test; of `linear-equations`: train or, "
        "with two in five solutions that say the value alone, mixed.",
        json_schema_extra=remakes("raw_dataset"),
    )
    revision: Text = Field(
        default="main",
        description="Branch, tag or commit of a Hub data set; a run records the commit.",
        json_schema_extra=remakes(by_meaning=("raw_dataset",)),
    )
    format: Format | None = Field(
        default=None,
        description="What a row looks like; `null` recognises it from the columns.",
        json_schema_extra=remakes("chat_dataset"),
    )
    columns: dict[str, Text] = Field(
        default={},
        description="The format's column names, to the data set's, where the two differ.",
        json_schema_extra=remakes("chat_dataset"),
    )
    ignore: tuple[Text, ...] = Field(
        default=(),
        strict=False,
        description="Columns, and keys of messages, that are not looked at, whatever they mean: `[label, weight]`.",
        json_schema_extra=remakes("chat_dataset", silent_default=True),
    )
    system: Text | None = Field(
        default=None,
        description="System prompt that opens every conversation of this source.",
        json_schema_extra=remakes("chat_dataset"),
    )
    rows: Count | None = Field(
        default=None,
        description="How many rows to take, drawn with `dataset.seed`; `null` takes all.",
        json_schema_extra=remakes("raw_dataset"),
    )
    at_most: bool = Field(
        default=False,
        description="Whether fewer than `rows` will do where there are no more; an error otherwise.",
        json_schema_extra=remakes("raw_dataset", silent_default=True),
    )
    streaming: bool = Field(
        default=False,
        description="Fetch no more of a Hub data set than `rows` asks for. They are drawn from shuffled files through "
        "a buffer, so that a data set in a certain order is not drawn from evenly.",
        json_schema_extra=remakes("raw_dataset"),
    )
    model: Text | None = Field(
        default=None,
        description="Whose answer to take (`gpt-4`); `ultrafeedback` rows have several.",
        json_schema_extra=remakes("chat_dataset"),
    )

    @field_validator("generator")
    @classmethod
    def _one_origin(cls, value: str | None, info: ValidationInfo) -> str | None:
        before = {key: info.data[key] for key in ORIGINS if key in info.data}
        given = tuple(key for key, origin in (before | {"generator": value}).items() if origin is not None)
        if len(before) == len(ORIGINS) - 1 and len(given) != 1:
            found = f"has {' and '.join(given)}" if given else "has no hub, files, feedback or generator"
            raise section_mistake(f"{found}; write exactly one of {', '.join(ORIGINS)}")
        return value

    @field_validator("every")
    @classmethod
    def _only_of_feedback(cls, value: int, info: ValidationInfo) -> int:
        if value != cls.model_fields["every"].default and "feedback" in info.data and info.data["feedback"] is None:
            raise ValueError(f"{value} would be ignored: only feedback is taken in batches; leave it out")
        return value

    @field_validator("config", "split", "revision")
    @classmethod
    def _only_of_a_hub_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        default = cls.model_fields[info.field_name or ""].default
        elsewhere = info.data.get("files") or info.data.get("feedback") or info.data.get("generator")
        if info.field_name == "split" and elsewhere in SPLITS:
            if value not in SPLITS[elsewhere]:
                raise ValueError(f"{value!r} is no split of {elsewhere}; write {' or '.join(SPLITS[elsewhere])}")
            return value
        if value != default and elsewhere and not info.data.get("hub"):
            raise ValueError(f"{value!r} would be ignored: only a hub source has a {info.field_name}; leave it out")
        return value

    @field_validator("format", "rows")
    @classmethod
    def _not_of_feedback(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("feedback"):
            raise ValueError(
                f"{value!r} would be ignored: what is learned of feedback follows training.method; leave it out"
            )
        return value

    @field_validator("columns")
    @classmethod
    def _columns_of_the_format(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if "format" not in info.data:
            return value
        format = info.data["format"]
        every = sorted({name for names in FORMAT_COLUMNS.values() for name in names} | ALIASES.keys())
        own = [*FORMAT_COLUMNS[format], *MORE_COLUMNS.get(format, OF_A_QUESTION)] if format else every
        strangers = [column for column in value if column not in (*own, *OF_KNOWLEDGE)]
        if strangers:
            named = ", ".join(f"{column!r}{nearest(column, own)}" for column in strangers)
            raise ValueError(f"no column of {format or 'any format'} (which has {listed(own)}): {named}")
        return value

    @field_validator("ignore")
    @classmethod
    def _not_what_is_read(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        both = [name for name in value if name in info.data.get("columns", {}).values()]
        if both:
            raise ValueError(f"{listed(both)} is named in columns as well; leave it out of one of them")
        return no_twins(value) or ()

    @field_validator("rows")
    @classmethod
    def _a_generator_needs_rows(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("generator"):
            raise ValueError("missing; a generator has no end, so write how many rows it makes")
        return value

    @field_validator("at_most")
    @classmethod
    def _most_of_what(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("generator"):
            raise ValueError("true would be ignored: a generator has no end; leave it out")
        if value and "rows" in info.data and info.data["rows"] is None:
            raise ValueError("true without rows, of which all are taken; write rows too, or leave it out")
        return value

    @field_validator("streaming")
    @classmethod
    def _a_stream_needs_rows(cls, value: bool, info: ValidationInfo) -> bool:
        if value and any(info.data.get(key) for key in ORIGINS if key != "hub"):
            raise ValueError("true would be ignored: only a hub source is streamed; leave it out")
        if value and "rows" in info.data and info.data["rows"] is None:
            raise ValueError("true without rows, which would fetch everything; write how many rows to take")
        return value

    @field_validator("model")
    @classmethod
    def _whose_answer(cls, value: str | None, info: ValidationInfo) -> str | None:
        format = info.data.get("format")
        if format == "ultrafeedback" and value is None:
            raise ValueError("missing; an ultrafeedback row has an answer of each of several models: write whose")
        if format not in ("ultrafeedback", None) and value is not None:
            raise ValueError(f"{value!r} would be ignored: only ultrafeedback has answers of several models")
        return value
