"""What one step leaves for the next in JSON: summaries of artifacts, jobs, reports; typed, frozen, with a version."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from finetuning.errors import FinetuningError


class Record(BaseModel):
    """A typed JSON document. Raise a class's `version` when a reader of the older one would misread it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1

    def as_json(self) -> dict[str, JsonValue]:
        """The document as it is written: plain JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def of(cls, content: Mapping[str, JsonValue], where: str) -> Self:
        """Read a document that `as_json` wrote.

        Args:
            where: the file it stands in, for the message.

        Raises:
            FinetuningError: another release of this project wrote it, or somebody changed it.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the document"
            raise FinetuningError(
                f"{where}: not what this release writes as {cls.__name__}: {place}: {first['msg']}. It was made by "
                "another release of this project, or changed since; delete its folder and materialize it again."
            ) from None
