"""Sources of each format, and turns as their rows have them."""

from finetuning.recipe.source import SourceSpec


def source(format: str, **keys) -> SourceSpec:
    return SourceSpec(files=["rows.jsonl"], format=format, **keys)


def turns(*pairs: tuple[str, str | None]) -> list[dict[str, str | None]]:
    return [{"role": role, "content": content} for role, content in pairs]


CALLS = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]
ASKED = turns(("user", "2 + 3?"))
FIVE, SIX = turns(("assistant", "5")), turns(("assistant", "6"))
