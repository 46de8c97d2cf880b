"""The section `dataset`: where the rows come from, and which of them are for the exam or for choices."""

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.mistakes import section_mistake
from finetuning.recipe.source import SourceSpec
from finetuning.recipe.spec import Spec, remakes


class EvalSpec(Spec):
    """The rows that are kept out of training: exactly one of `fraction` and `sources`."""

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Share of the rows of `dataset.sources`, drawn with `dataset.seed`.",
        json_schema_extra=remakes("chat_dataset"),
    )
    sources: Annotated[tuple[SourceSpec, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Data sets of their own, such as a test split.",
        json_schema_extra=remakes("raw_dataset", "chat_dataset"),
    )

    @field_validator("sources")
    @classmethod
    def _one_way(cls, value: Any, info: ValidationInfo) -> Any:
        if "fraction" in info.data and (info.data["fraction"] is None) == (value is None):
            found = "neither fraction nor sources" if value is None else "both fraction and sources"
            raise section_mistake(f"has {found}; write exactly one of them")
        return value


class DevSpec(Spec):
    """The rows that choose: neither learned nor part of the exam."""

    model_config = ConfigDict(json_schema_extra=remakes("chat_dataset"))

    fraction: float = Field(
        gt=0,
        lt=1,
        description="Share of the rows of `dataset.sources`, drawn with `dataset.seed` once those of eval are.",
    )


class DatasetSpec(Spec):
    """The rows that are trained and evaluated on."""

    sources: Annotated[tuple[SourceSpec, ...], Field(strict=False, min_length=1)] = Field(
        description="One or more data sets, mixed in proportion to their rows.",
        json_schema_extra=remakes("raw_dataset", "chat_dataset"),
    )
    eval: EvalSpec = Field(default=EvalSpec(fraction=0.05), description="The rows that are kept out of training.")
    dev: DevSpec | None = Field(
        default=None,
        description="Rows that are kept out of training and exam, for choices on the way: the eval loss is measured on "
        "them, and so decides early stopping and `variants` without a look at the exam. `null` measures it on eval.",
        json_schema_extra=remakes("chat_dataset", silent_default=True),
    )
    dedup: Literal["none", "exact", "near"] = Field(
        default="none",
        description="Which repeated conversations are dropped: none of them, those that are word for word the same "
        "(white space that carries no meaning aside), or also those whose question and answer are nearly the same (see "
        "`similarity`). Only the first is kept.",
        json_schema_extra=remakes("chat_dataset"),
    )
    similarity: float = Field(
        default=0.85,
        ge=0.5,
        le=1,
        description="Share of three-token sequences that two texts have in common from which they are nearly the same: "
        "for `dedup: near`, and to keep questions of eval out of train. What many questions share, such as an "
        "instruction, does not count. 1 means the same sequences.",
        json_schema_extra=remakes("chat_dataset"),
    )
    seed: int = Field(
        default=42,
        ge=0,
        description="Seed of every draw of rows: `rows`, the split, the order.",
        json_schema_extra=remakes("raw_dataset", "chat_dataset"),
    )


def sources(dataset: DatasetSpec) -> dict[str, tuple[SourceSpec, str]]:
    """Every source of `dataset` with its path in the recipe, by the stem of the file that holds its rows.

    `train-00`, `train-01`, … are `dataset.sources`; `eval-00`, … are `dataset.eval.sources`.
    """
    training = {f"train-{i:02d}": (source, f"dataset.sources[{i}]") for i, source in enumerate(dataset.sources)}
    evaluation = {
        f"eval-{i:02d}": (source, f"dataset.eval.sources[{i}]") for i, source in enumerate(dataset.eval.sources or ())
    }
    return training | evaluation
