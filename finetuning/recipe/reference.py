"""The reference of recipes, `docs/recipe.md`, made from the schema: every key, what it remakes, and its meaning."""

from collections.abc import Iterator
from typing import Any, get_args

import yaml

from finetuning.recipe.recipe import Recipe
from finetuning.recipe.source import FORMAT_ROWS
from finetuning.recipe.spec import Made

INTRODUCTION = """\
# Recipe

Everything about one run is in one YAML file, `recipes/NAME.yaml`. Folders of your own, named in `FINETUNING_RECIPES`
and separated by `:`, are read as well. `summary`, `base_model`, `dataset.sources`, `hub.repo` and `hub.license` are
required; whatever else is left out has the default below. Library settings keep the library's own names. Paths are
relative to the folder that a command is run in.

```yaml
summary: Phi-2 solves grade-school maths step by step
base_model: {repo: microsoft/phi-2, chat_template: instruction}
dataset:
  sources:
    - {hub: openai/gsm8k, config: main, format: question-answer}
hub: {repo: phi-2-basic-maths, license: mit}
```

`python -m finetuning.recipe validate` checks all recipes, or those that are named, and lists every mistake at once.

**What a change remakes.** The column "remakes" names the assets that a key's value goes into: a changed value makes
them anew at the next run. What comes after them is remade because what it is made from changed, and is not named:
`lora.lora_alpha` remakes `lora_adapter`, and so its report and its repo. All else is reused.

- "none" stands at keys that decide how a run goes and not what comes of it, such as `training.save_steps`, and at those
  that judge figures which are there already, such as `checks`; "by key" stands at a section whose keys say it.
- `base_answers`, `published_answers` and `base_benchmarks` are what base and published model made of the exam. They are
  stored beside `evaluation_report`, so that other recipes of the same base reuse them.
- `lora.r` remakes `quantized_base_model` only in recipes with `init_lora_weights: loftq`, and `dataset.seed` remakes
  `raw_dataset` only in those whose sources have `rows`.

This page is made from the schema: `python -m finetuning.recipe reference > docs/recipe.md`.
"""
FORMATS = """
## Formats

A format that is not named is recognised by its columns. Roles are system, user, assistant and tool; an assistant's turn
may have `tool_calls`, `reasoning_content`, and `weight: 0` or `train: false`, which is not learned.

`columns` translates the names below to a data set's own: `columns: {question: Problem, answer: Solution}`. Every format
also reads `system` and `tools`; `alpaca`, `prompt-completion` and `question-answer` read `context`, `history` and
`reasoning`. [data.md](data.md#what-else-is-read) has the names that count as these, and what becomes of them.

| format | a row |
| --- | --- |
"""
PREFERENCES = """
Each of `prompt`, `chosen` and `rejected` is a text or a list of messages. Where `chosen` and `rejected` are whole
conversations, they differ in their last answer alone, and `prompt` may be missing. `training.method: sft` learns the
chosen answers and does not look at the others.

A row of `unpaired-preference` is for `training.method: kto`. Its `prompt` and `completion` are texts or lists of
messages, and its `label` is true or false, or 1 or 0. In place of the two it may hold a whole conversation whose last
answer was judged, in `messages` or `conversations`, with turns of either kind:
`{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "label": false}`.

A row of `text` is no conversation: all of it is learned, without a chat template.
"""
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "`null`"}
PLAIN = "#/$defs/JsonValue"
BOUNDS = {"exclusiveMinimum": "over", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}

Schema = dict[str, Any]


def reference() -> str:
    """The whole page, as Markdown."""
    schema = Recipe.model_json_schema()
    del schema["properties"]["name"]
    formats = "".join(f"| `{format}` | `{row}` |\n" for format, row in FORMAT_ROWS.items())
    return INTRODUCTION + "".join(_tables(schema, "", schema["$defs"])) + FORMATS + formats + PREFERENCES


def _tables(section: Schema, place: str, sections: dict[str, Schema]) -> Iterator[str]:
    """A table for each section, in the order of the file."""
    yield f"\n## {f'`{place}`' if place else 'Top level'}\n\n{section['description']}\n\n"
    yield "| key | type | default | remakes | meaning |\n| --- | --- | --- | --- | --- |\n"
    for key, field in section["properties"].items():
        default = "required" if key in section.get("required", ()) else _default(field)
        # pydantic leaves out a description that the section has word for word.
        meaning = field.get("description") or sections[next(_sections_of(field))]["description"]
        yield f"| `{key}` | {_type(field)} | {default} | {_remakes(field, section)} | {meaning} |\n"
    for key, field in section["properties"].items():
        # The sources of `dataset.eval` have the keys of `dataset.sources`.
        for name in dict.fromkeys(_sections_of(field)) if place not in ("dataset.eval", "checks") else ():
            yield from _tables(sections[name], f"{place}.{key}".removeprefix("."), sections)
    if place == "checks":  # all alike
        yield from _tables(sections["CheckSpec"], "checks.NAME", sections)


def _sections_of(field: Any) -> Iterator[str]:
    """The names of the sections that a field's schema refers to."""
    for key, value in field.items() if isinstance(field, dict) else enumerate(field):
        if key == "$ref" and value != PLAIN:
            yield value.rpartition("/")[2]
        elif isinstance(value, (dict, list)):
            yield from _sections_of(value)


def _type(field: Schema) -> str:
    match field:
        case {"anyOf": choices}:
            return " or ".join(_type(choice) for choice in choices)
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{value}`"
        case {"type": "array", "items": items}:
            return f"list of: {_type(items)}"
        case {"type": "object"}:
            return f"mapping to: {_type(field['additionalProperties'])}"
        case {"$ref": ref} if ref == PLAIN:
            return "any plain value"
        case {"$ref": _}:
            return "section"
    bounds = [f"{words} {field[key]:g}" for key, words in BOUNDS.items() if key in field]
    return " ".join([TYPES[field["type"]], " and ".join(bounds)]).strip()


def _remakes(field: Schema, section: Schema) -> str:
    declared = field.get("remakes", section.get("remakes"))
    if declared is None:
        return "by key"
    named = {*declared["by_value"], *declared["by_meaning"]}
    return ", ".join(f"`{asset}`" for asset in get_args(Made) if asset in named) or "none"


def _default(field: Schema) -> str:
    if "default" not in field:
        return "see meaning"
    default = field["default"]
    if isinstance(default, dict):
        default = {key: value for key, value in default.items() if value is not None}
        return "its defaults" if len(default) > 3 else f"`{_flow(default)}`"
    return f"`{_flow(default)}`"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()
