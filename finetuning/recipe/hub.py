"""The section `hub`: where the result is published, and under which terms."""

import re

from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from finetuning.recipe.licenses import LICENSES, OTHER
from finetuning.recipe.mistakes import nearest
from finetuning.recipe.rules import LONGEST_NAME
from finetuning.recipe.spec import Spec, Text, remakes


class HubSpec(Spec):
    """Where the adapter is published."""

    model_config = ConfigDict(json_schema_extra=remakes("published_repo", "published_merged_repo"))

    repo: Text = Field(description="Name of the repo (`phi-2-basic-maths`), or `namespace/name`.")
    license: Text = Field(
        description="The Hub's identifier of the adapter's licence (`apache-2.0`, `mit`, `gemma`, `llama3.2`, …), "
        "which the licences of base model and data have to allow. `other`, with `license_name` and `license_link`, "
        "for one that the Hub does not know.",
    )
    license_name: Text | None = Field(default=None, description="What a licence is called that is `other`.")
    license_link: Text | None = Field(default=None, description="Address of the text of a licence that is `other`.")
    private: bool = Field(default=True, description="Whether only you, or your organisation, see the repo.")

    @field_validator("repo")
    @classmethod
    def _a_repo_id(cls, value: str) -> str:
        # The Hub's own rule.
        part = r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
        parts = value.split("/")
        if (
            len(parts) > 2
            or len(value) > LONGEST_NAME
            or value.endswith(".git")
            or not all(re.fullmatch(part, p) for p in parts)
        ):
            raise ValueError(
                f"{value!r} is not a name that the Hub takes; write name or namespace/name, of letters, digits, '-', "
                f"'_' and '.', at most {LONGEST_NAME}, with no '--' or '..', and no '-' or '.' at either end"
            )
        return value

    @field_validator("license")
    @classmethod
    def _a_license_of_the_hub(cls, value: str) -> str:
        if value not in LICENSES:
            raise ValueError(
                f"{value!r} is no licence that the Hub has an identifier for{nearest(value.lower(), LICENSES)}. For "
                "another one write license: other, with license_name and license_link"
            )
        return value

    @field_validator("license_name", "license_link")
    @classmethod
    def _only_of_other(cls, value: str | None, info: ValidationInfo) -> str | None:
        license = info.data.get("license")
        if license == OTHER and value is None:
            raise ValueError("missing, which license: other needs to say what may be done with the adapter")
        if license not in (OTHER, None) and value is not None:
            raise ValueError(f"{value!r} would be ignored: the Hub knows {license} itself; leave it out")
        if info.field_name == "license_link" and value is not None and not value.startswith(("https://", "http://")):
            raise ValueError(f"{value!r} is no address; write one that begins with https:")
        return value
