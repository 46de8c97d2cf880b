"""Writes into a chat template what every use of it has to agree on: the date, and the recipe's arguments.

chat.template_kwargs: {enable_thinking: false}
-> {%- if enable_thinking is not defined %}{%- set enable_thinking = false %}{%- endif %} … before the template's text

The tokenizer's template then makes the same of a conversation in training, in the exam and wherever it is published,
whatever the day, with no argument given.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date

from jinja2 import Environment, TemplateSyntaxError, meta, nodes
from pydantic import JsonValue

from finetuning.errors import FinetuningError
from finetuning.recipe.chat import RESERVED
from finetuning.recipe.mistakes import nearest

# What templates that write the date (Llama 3, gpt-oss, Mistral Small) take for today, so that the same rows give the
# same tokens on any day, and a published model is asked with the words that it was examined with.
TODAY = date(2024, 7, 26)
DATE = "strftime_now"
# Marks of what an assistant says, which trl's training templates have and jinja2 by itself does not know.
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
DIRECTIVES = "aAbBcdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"


def with_settings(template: str, template_kwargs: Mapping[str, JsonValue], today: date = TODAY) -> str:
    """Return the template with `template_kwargs` as its defaults, and with `today` wherever it asks for the date."""
    settings = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
        for name, value in template_kwargs.items()
    )
    if DATE in template:
        settings += _date(template, today)
    # The first line break behind a block is left out.
    return settings + ("\n" if settings and template.startswith("\n") else "") + template


def require_read(template: str | Mapping[str, str], template_kwargs: Mapping[str, JsonValue], where: str) -> None:
    """Check that a template reads each of the recipe's arguments: another one would do nothing, in silence.

    Args:
        template: its text, or that of each of several by their names.
        where: the recipe's file.

    Raises:
        FinetuningError: it does not.
    """
    if not template_kwargs:
        return
    try:
        read = set[str]().union(*map(_arguments, [template] if isinstance(template, str) else template.values()))
    except (TemplateSyntaxError, RecursionError):
        return  # it is refused as soon as it is tried
    if unread := [name for name in template_kwargs if name not in read]:
        named = ", ".join(f"{name}{nearest(name, read)}" for name in unread)
        raise FinetuningError(
            f"{where}: chat.template_kwargs: the chat template does not read {named}. It reads "
            f"{', '.join(sorted(read)) or 'no argument'}. What it does not read would change nothing: leave it out."
        )


def _arguments(template: str) -> set[str]:
    """Return the names that a template reads and does not give a value itself before."""
    tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(GENERATION.sub("", template))
    first: dict[str, bool] = {}
    for name, is_read in _uses(tree):
        first.setdefault(name, is_read)
    given = meta.find_undeclared_variables(tree).difference(RESERVED)
    return {name for name in given if first.get(name) and not name.endswith("_token")}


def _uses(node: nodes.Node) -> Iterator[tuple[str, bool]]:
    """Yield each name, and whether it is read or given a value; those of a loop or a macro itself are left out."""
    if isinstance(node, nodes.Name):
        yield node.name, node.ctx == "load"
    children = list(node.iter_child_nodes())
    own: set[str] = set()
    if isinstance(node, (nodes.Assign, nodes.AssignBlock)):
        children = [*children[1:], children[0]]
    elif isinstance(node, nodes.For):
        yield from _uses(node.iter)
        own, children = _names(node.target), [child for child in children if child is not node.iter]
    elif isinstance(node, (nodes.Macro, nodes.CallBlock)):
        own = set().union(*map(_names, node.args))
    for child in children:
        yield from (use for use in _uses(child) if use[0] not in own)


def _names(target: nodes.Node) -> set[str]:
    """Return the names that a loop or a macro gives values."""
    found = [target, *target.find_all(nodes.Name)]
    return {node.name for node in found if isinstance(node, nodes.Name)}


def writes_date(template: str) -> bool:
    """Whether the template writes today's date, if it is given one."""
    return DATE in template


def _date(template: str, today: date) -> str:
    """Return a macro in place of the function that says what day it is; templates call it by its name."""
    written = [f"%{flag}{letter}" for letter in DIRECTIVES for flag in ("-", "") if f"%{flag}{letter}" in template]
    replaced = "".join(f" | replace({d!r}, {_literal(today.strftime(d))})" for d in written)
    return f"{{%- macro {DATE}(format) %}}{{{{- format{replaced} -}}}}{{%- endmacro %}}"


def _literal(value: JsonValue) -> str:
    """Return a value as a template writes it."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
        case _:
            return json.dumps(value)
