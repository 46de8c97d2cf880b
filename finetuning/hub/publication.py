"""What `published_repo` and `published_merged_repo` leave: where on the hub something lies now."""

from dataclasses import dataclass

from pydantic import Field

from finetuning.evaluation.report import Proof
from finetuning.record import Record


@dataclass(frozen=True)
class Base:
    """Where the base model of an adapter is on the hub; `on_hub` says that it was there before."""

    repo_id: str
    commit: str
    on_hub: bool


class PublicationSummary(Record):
    """A version of a repo on the hub; `created` is False when the very same was there already."""

    repo_id: str
    commit: str
    tag: str
    created: bool
    files: dict[str, str] = Field(default_factory=dict)
    """The sha256 of each file that was published, by its path in the repo; empty where an older release did it."""


class AdapterPublicationSummary(PublicationSummary):
    """A version of an adapter's repo, and the base model that it names."""

    base: Base
    proof: Proof | None = None
    """What was proved of it; None where an older release published it."""
