"""The section `evaluation.judge`: a model that says which of two answers is the better one."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from finetuning.recipe.data_rules import section_of
from finetuning.recipe.mistakes import KeyPath, harmless
from finetuning.recipe.spec import Count, Spec, Text, remakes

JUDGE = "judge"
BASE = "base"  # of RECIPE/base, a recipe's base model
# The address of OpenAI's API, to which /chat/completions is added: no password in it and no query.
ENDPOINT = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")

# Keys of a judge behind an API, and why a model on this machine has none of them.
NOT_HERE = {"temperature": "replies by what is most likely", "parallel": "is asked one question at a time"}


class JudgeSpec(Spec):
    """Who compares answers, how far that is to be trusted, and what it may cost. Its key is FINETUNING_JUDGE_KEY."""

    model_config = ConfigDict(json_schema_extra=remakes("evaluation_report"))

    endpoint: Text | None = Field(
        default=None,
        description="Address of an API that is OpenAI's or like it: `https://api.openai.com/v1`, or a server of your "
        "own such as `http://127.0.0.1:8000/v1`. Questions and answers of the exam are sent there, and the human "
        "choices. `null` is a model on this machine.",
    )
    name: Text = Field(
        description="The model's name there, of a dated version if it has one. Without an endpoint: the recipe whose "
        "tuned model judges, or `RECIPE/base` for its base model, whose artifacts are there."
    )
    choices: Text | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$",
        description="Feedback by whose preferences the judge is measured; `null` is the recipe's own. Whole tens of "
        "them are taken, so that single ones hold no new exam.",
    )
    max_choices: Count = Field(default=100, description="Most of these choices that are asked about, the last ones.")
    agreement: float = Field(
        default=0.6,
        gt=0.5,
        lt=1,
        description="Least share of the human choices that the judge agrees with, by the lower end of its 95 % "
        "interval; a tie counts half, so that tossing coins comes to 0.5. Where it is less, or there are no choices, "
        "the judge is reported and carries no verdict.",
    )
    max_requests: Count = Field(
        default=2000,
        description="Most requests of one exam, tries again among them. An exam that may need more is refused before "
        "the first, and before the training.",
        json_schema_extra=remakes(),
    )
    max_tokens: Count = Field(
        default=16,
        description="Most tokens of a reply, which is one word; a model that thinks first needs some thousand.",
    )
    temperature: float | None = Field(
        default=0.0, ge=0, le=2, description="Sent with each request; `null` sends none, for models that take none."
    )
    parallel: int = Field(default=4, ge=1, le=64, description="Requests at once.", json_schema_extra=remakes())

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not ENDPOINT.fullmatch(value):
            raise ValueError(
                f"{harmless(value)!r} is not the address of an API: write https://HOST/v1, with no password and no "
                "query in it; the key is FINETUNING_JUDGE_KEY"
            )
        if value.rstrip("/").endswith("/completions"):
            raise ValueError(f"{value!r}: leave /chat/completions out, which is added; write what is before it")
        return value.rstrip("/")

    def on_this_machine(self) -> tuple[str, bool]:
        """The recipe whose model judges where there is no endpoint, and whether that is its base model.

        >>> JudgeSpec(name="phi-2/base").on_this_machine(), JudgeSpec(name="phi-2").on_this_machine()
        (('phi-2', True), ('phi-2', False))
        """
        name, _, side = self.name.rpartition("/")
        return (name, True) if name and side == BASE else (self.name, False)


def judge_rules(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """The place of each contradiction between a judge and what asks for one, and what to do about it."""
    evaluation = section_of(data, "evaluation")
    asks = [key for key in ("metrics", "gate") if _names_it(evaluation.get(key))]
    given = evaluation.get(JUDGE) is not None
    if asks and not given:
        yield (
            ("evaluation", asks[0]),
            "judge, and nothing says who that is; write evaluation.judge: {endpoint: https://HOST/v1, name: MODEL}, or "
            "{name: RECIPE/base} for a model on this machine",
        )
    if given and not asks:
        yield (
            ("evaluation", JUDGE),
            "would be ignored: neither evaluation.metrics nor gate names it; write metrics: [judge], or leave it out",
        )
    spec = section_of(evaluation, JUDGE)
    for key in NOT_HERE if spec and spec.get("endpoint") is None else ():
        if spec.get(key, default := JudgeSpec.model_fields[key].default) not in (None, default):
            yield (
                ("evaluation", JUDGE, key),
                f"{spec[key]} would be ignored: a model on this machine {NOT_HERE[key]}; leave it out, or write "
                "endpoint",
            )
    if asks and data.get("knowledge") is not None:
        yield (
            ("evaluation", asks[0]),
            "judge beside knowledge: answers with passages are not compared by a judge; name another metric, such as "
            "contains",
        )


def _names_it(value: object) -> bool:
    return isinstance(value, (list, tuple, Mapping)) and JUDGE in value
