"""What is wrong with a recipe, said for the person who wrote it: every mistake at once, a line each."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from finetuning.errors import FinetuningError
from finetuning.public_names import without_secrets
from finetuning.secrets import masked

KeyPath = tuple[str | int, ...]

# Keys of other tools and of older versions, which are not like the key that took their place.
RENAMED = {
    "chat.max_seq_length": "max_length",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.rank": "r",
    "training.batch_size": "per_device_train_batch_size",
    "training.epochs": "num_train_epochs",
    "training.fp16": "bf16: false here and dtype: float16 in base_model",
    "training.gradient_checkpointing": "activation_checkpointing",
    "training.group_by_length": "train_sampling_strategy: group_by_length",
    "training.lr": "learning_rate",
    "training.max_length": "it in chat",
    "training.max_seq_length": "max_length in chat",
    "training.warmup_ratio": "warmup_steps, which below 1 is a share of all steps",
}
# With all that stands before the last @, which a password may be in.
ADDRESS = re.compile(r"(?:https?)?://(?:[^\s/]*@)?[^\s'\"]+")
_SECTION = "a section of `key: value` lines"
_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": _SECTION,
    "model_type": _SECTION,
}
# Found elsewhere, or only what follows from another mistake: rules between sections, defaults that depend on a key that
# is wrong, keys that are no text.
_FOLLOWING = ("contradiction", "default_factory_not_called", "invalid_key")


class RecipeError(FinetuningError):
    """Everything that is wrong with one recipe, a line each: `recipes/phi-2.yaml:14: training.learning_rate: …`."""

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(map(harmless, text.split("\n"))))


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong, the key that it is about, and that key's line in the file (from 1)."""

    path: KeyPath
    message: str
    line: int

    def text(self, file: Path) -> str:
        """The line that the user reads."""
        return f"{shown(file)}:{self.line}: {dotted(self.path)}: {self.message}"


def section_mistake(message: str) -> PydanticCustomError:
    """The error of a rule on one key whose message is about the section that the key is in."""
    return PydanticCustomError("section", "{message}", {"message": message})


def contradiction(path: KeyPath, message: str) -> PydanticCustomError:
    """The error of a rule between sections."""
    return PydanticCustomError("contradiction", "{message}", {"message": f"{dotted(path)}: {message}"})


def shown(path: Path) -> str:
    """The path as a user would type it: relative to the current directory when it is inside."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def dotted(path: KeyPath) -> str:
    """A key's place as text: `dataset.sources[0].rows`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def nearest(word: str, words: Iterable[str]) -> str:
    """`; nearest is …` for a word that is like one of the words, else nothing."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; nearest is {near[0]}" if near else ""


def harmless(text: str) -> str:
    """Return the text without passwords in its addresses, and without other secrets. Ask before it is cut."""
    return masked(ADDRESS.sub(lambda found: without_secrets(found[0]), text))


def as_yaml(value: Any) -> str:
    """The value as a recipe would have it, cut to one short line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = harmless(repr(value))
    return text if len(text) <= 60 else text[:59] + "…"


def mistakes(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    """The place of everything that a model's validation found, and what to do about it.

    Rules between sections are left out: they run only when all else is right, so the file's own data is asked instead.
    """
    details = error.errors(include_url=False)
    for detail in details:
        place = detail["loc"]
        # A list is also reported as too short when its items are wrong.
        has_wrong_items = any(place == other["loc"][: len(place)] != other["loc"] for other in details)
        is_its_own = detail["type"] not in _FOLLOWING and "[key]" not in place
        if is_its_own and not (detail["type"] == "too_short" and has_wrong_items):
            path = place[:-1] if detail["type"] == "section" else place
            yield path, _message(detail, path, model)


def _message(detail: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    value, context = as_yaml(detail["input"]), detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key{_instead(path, model)}"
        case "missing":
            return f"missing.{_meaning(path, model)}"
        case "value_error":
            return str(context["error"])
        case "section":
            return context["message"]
        case "literal_error":
            return f"{value} is not allowed{_allowed(detail['input'], context['expected'])}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"{value} is not {_bound(context)}"
        case "string_pattern_mismatch" | "too_short":
            return f"{value} is empty.{_meaning(path, model)}"
        case "finite_number":
            return f"{value} is not a finite number"
        case kind if kind in _KINDS:
            return _wrong_type(detail["input"], kind)
    return f"{value} is wrong: {detail['msg']}"


def _instead(path: KeyPath, model: type[BaseModel]) -> str:
    if dotted(path) in RENAMED:
        return f"; write {RENAMED[dotted(path)]}"
    # A recipe's name is its file's, and no key.
    fields = _spec(path[:-1], model).model_fields.items()
    keys = [field.alias or key for key, field in fields if key != "name"]
    return nearest(str(path[-1]), keys) or f"; there are {', '.join(keys)}"


def _allowed(value: Any, expected: str) -> str:
    # pydantic names them in a sentence: "'none', 'all' or 'lora_only'", "4 or 8".
    words = [text or number for text, number in re.findall(r"'([^']*)'|(\d+)", expected)]
    return f"; write {', '.join(words[:-1])}{' or ' * (len(words) > 1)}{words[-1]}{nearest(str(value), words)}"


def _bound(context: dict[str, Any]) -> str:
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    (key, bound), *_ = context.items()
    return "a positive number" if (key, bound) == ("gt", 0) else f"{words[key]} {bound:g}"


def _meaning(path: KeyPath, model: type[BaseModel]) -> str:
    steps = tuple(step for step in path if isinstance(step, str))
    field = _spec(steps[:-1], model).model_fields.get(steps[-1])
    return f" {field.description}" if field else ""


def _spec(path: KeyPath, model: type[BaseModel]) -> type[BaseModel]:
    """The section that is at a place of the model."""
    for step in path:
        field = model.model_fields.get(str(step))
        model = next(_specs(field.annotation), model) if field else model
    return model


def _specs(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type mentions: `SourceSpec` of `tuple[SourceSpec, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _specs(argument)


def _wrong_type(value: Any, kind: str) -> str:
    if value is None:
        return f"null is not {_KINDS[kind]}; write one, or leave the key out"
    is_text = " is text," if isinstance(value, str) else " is"
    meant = _meant(value, kind)
    return f"{as_yaml(value)}{is_text} not {_KINDS[kind]}" + (f"; write {meant}" if meant else "")


def _meant(value: Any, kind: str) -> str | None:
    """What to write instead, where it is plain what was meant."""
    match kind, value:
        case "tuple_type", str():
            return f"[{value}]"
        case "int_type", float() if value.is_integer():
            return str(int(value))
        case (("int_type" | "float_type"), str()):
            return _number(value, kind)
        case "bool_type", str() | int() if str(value).lower() in ("true", "yes", "on", "1"):
            return "true"
        case "bool_type", str() | int() if str(value).lower() in ("false", "no", "off", "0"):
            return "false"
        case "string_type", bool():
            return "the word in quotes"
        case "string_type", int() | float():
            return f'"{value}"'
    return None


def _number(text: str, kind: str) -> str | None:
    # PyYAML takes a number with an exponent for text, unless it has a point and the exponent a sign.
    exponent = re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)", text)
    if exponent:
        whole, part, sign, power = exponent.groups()
        if kind == "float_type":
            return f"{whole}{part or '.0'}e{sign or '+'}{power}"
        return f"{float(text):.0f}" if float(text).is_integer() else None
    number = yaml.safe_load(text) if re.fullmatch(r"[-+]?\d+(\.\d+)?", text) else None
    return f"{number} without quotes" if isinstance(number, int) or (kind == "float_type" and number) else None
