'''The Modelfile beside a GGUF file, by which Ollama makes a model that is asked as the adapter was in its exam.

>>> print(modelfile(recipe, tokenizer, "phi-2.q8_0.gguf"))
FROM ./phi-2.q8_0.gguf
TEMPLATE """{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system
{{ .Content }}<|im_end|>
…
PARAMETER stop "<|im_end|>"

Ollama has its own language for templates. One is written for a chat template that puts the same text before and after
every turn of a role, whatever the turns say, and for no other.

Source: https://github.com/ollama/ollama: docs/modelfile.mdx, template/template.go and parser/parser.go.
'''

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetuning.chat.template import bos_in_use, stop_text, texts
from finetuning.dataset.row_faults import RowDropped
from finetuning.dataset.turns import Message
from finetuning.recipe.recipe import Recipe

ROLES = ("system", "user", "assistant")
# What may not be the same before and after every turn: space, thoughts, tags, and nothing at all.
CONTENTS = ("2 + 3?", " \n spaced \n", "<think>\nIt is 5.\n</think>\n\n5", "", "<b>é</b> & \"so\" 'on'", "5")
# Stands in for what a turn says, while the text around it is looked for.
SLOT = "\u2983{}\u2984"


class TurnTexts(NamedTuple):
    """What a chat template puts before and after each turn, by its role, and what an answer follows."""

    before: dict[str, str]
    after: dict[str, str]
    prompt: str

    def render(self, messages: list[Message]) -> str:
        """Return the prompt of a conversation."""
        turns = [self.before[turn["role"]] + turn["content"] + self.after[turn["role"]] for turn in messages]
        return "".join(turns) + self.prompt


def modelfile_of(recipe: Recipe, merged: Path, file: str) -> str:
    """Return the Modelfile of the GGUF file in the folder of a merged model."""
    return modelfile(recipe, AutoTokenizer.from_pretrained(merged), file)


def modelfile(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, file: str) -> str:
    """Return the Modelfile of a GGUF file beside it, with no TEMPLATE where Ollama's could not say the same.

    Args:
        file: the GGUF file's name.
    """
    system = recipe.dataset.sources[0].system
    lines = [f"FROM ./{file}"]
    if template := ollama_template(tokenizer, system is None):
        lines.append(f'TEMPLATE """{template}"""')
    if system and '"""' in system:
        lines.append(
            "# The recipe's system message has three quotes in a row, which SYSTEM cannot hold: send it yourself."
        )
    elif system:
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(
        [
            *lines,
            f'PARAMETER stop "{stop_text(tokenizer)}"',
            "PARAMETER temperature 0",
            "PARAMETER repeat_penalty 1",  # Ollama's default of 1.1 changes greedy answers
            f"PARAMETER num_predict {recipe.evaluation.max_new_tokens}",
            "",
        ]
    )


def has_template(text: str) -> bool:
    """Return whether a Modelfile has a TEMPLATE."""
    return '\nTEMPLATE """' in text


def ollama_template(tokenizer: PreTrainedTokenizerBase, without_system: bool) -> str | None:
    """Return the chat template as Ollama has them; None where none writes the same prompts.

    The token that the file has every text begin with is not in it: llama.cpp puts it there.

    Args:
        without_system: whether there are conversations without a system message, which the Modelfile does not add.
    """
    found = turn_texts(tokenizer, without_system)
    if found is None or any('"""' in text or "{{" in text for text in (*found.before.values(), *found.after.values())):
        return None
    turns = []
    for role in ROLES:
        condition = f'{"else " if turns else ""}if eq .Role "{role}"'
        turns.append(f"{{{{ {condition} }}}}{found.before[role]}{{{{ .Content }}}}{found.after[role]}")
    return f"{{{{ range .Messages }}}}{''.join(turns)}{{{{ end }}}}{{{{ end }}}}{found.prompt}"


def turn_texts(tokenizer: PreTrainedTokenizerBase, without_system: bool) -> TurnTexts | None:
    """Return what the chat template puts around every turn of a role; None where that is not always the same."""
    bos = str(tokenizer.bos_token) if bos_in_use(tokenizer) is not None else ""
    try:
        found = _around_turns(tokenizer, bos)
        talks = list(_talks(without_system))
        rendered = texts(tokenizer, talks, add_generation_prompt=True)
    except (RowDropped, ValueError):
        return None
    return found if rendered == [bos + found.render(talk) for talk in talks] else None


def _around_turns(tokenizer: PreTrainedTokenizerBase, bos: str) -> TurnTexts:
    """Return what stands around the turns of one conversation.

    Raises:
        ValueError: the template does not write what they say, one after the other.
        RowDropped: the template refuses it.
    """
    talk = [{"role": role, "content": SLOT.format(place)} for place, role in enumerate([*ROLES, "user"])]
    prompt = texts(tokenizer, [talk], add_generation_prompt=True)[0]
    (asked, answered) = texts(tokenizer, [talk[:2], talk[:3]])
    first, system_to_user, user_to_answer, answer_to_user, last = _between_slots(prompt, len(talk))
    after_user, after_answer = _between_slots(asked, 2)[-1], _between_slots(answered, 3)[-1]
    before_user = _without(answer_to_user, after_answer)
    if not system_to_user.endswith(before_user):
        raise ValueError(f"a user's turn begins with {system_to_user!r} or with {before_user!r}")
    return TurnTexts(
        before={
            "system": _without(first, bos),
            "user": before_user,
            "assistant": _without(user_to_answer, after_user),
        },
        after={
            "system": system_to_user.removesuffix(before_user),
            "user": after_user,
            "assistant": after_answer,
        },
        prompt=_without(last, after_user),
    )


def _between_slots(text: str, turns: int) -> list[str]:
    """Return the text before, between and after what the turns say."""
    slots = [SLOT.format(place) for place in range(turns)]
    starts = [text.index(slot) for slot in slots]
    ends = [start + len(slot) for start, slot in zip(starts, slots, strict=True)]
    edges = [*zip([0, *ends], [*starts, len(text)], strict=True)]
    if any(start > end for start, end in pairwise(starts)):
        raise ValueError(f"the turns are in another order in {text!r}")
    return [text[start:end] for start, end in edges]


def _without(text: str, beginning: str) -> str:
    if not text.startswith(beginning):
        raise ValueError(f"{text!r} does not begin with {beginning!r}")
    return text.removeprefix(beginning)


def _talks(without_system: bool) -> Iterator[list[Message]]:
    """Yield conversations whose turns say each of `CONTENTS`, of one to five turns, that end with a question."""
    for shift in range(len(CONTENTS)):
        said = [CONTENTS[(shift + place) % len(CONTENTS)] for place in range(6)]
        for turns in (1, 3, 5):
            roles = [("user", "assistant")[place % 2] for place in range(turns)]
            talk = [{"role": role, "content": text} for role, text in zip(roles, said[1:], strict=False)]
            yield [{"role": "system", "content": said[0]}, *talk]
            if without_system:
                yield talk
